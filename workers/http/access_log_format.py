"""The format of the access log: from `%(X)s` atoms to a function that makes lines.

Every value that a client can choose is escaped, so that none can end its field or its line.
"""

from __future__ import annotations

import ast
import binascii
import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from preforkd.workers.http.clock import clock
from preforkd.workers.http.message import HttpVersion11, RequestMessage
from preforkd.workers.request_id import trace_of

if TYPE_CHECKING:
    from preforkd.workers.http.response import Response

NOT_SENT = 499
"""The status of a request that got no response, because its client has left or it was cut; nginx's."""
DEFAULT_FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'

Environ = Mapping[str, object] | None
LineMaker = Callable[["RequestMessage | None", "Response | None", Environ, float, str], str]
"""Makes a line of the request (None when it was refused before it had one), its response (None when it got none), the
values for `%({name}e)s`, the seconds that it took, and the client's address."""

PiecesMaker = Callable[["RequestMessage | None"], tuple[str, ...]]
"""Makes what of a line is the request's."""
MakesPieces = Callable[..., PiecesMaker]

_ATOM = re.compile(r"%(?:\(([^()]*)\)s|%)?")
_HEADER_ATOM = re.compile(r"\{([^{}]+)\}([ioe])")


def escape(value: str) -> str:
    """Return `value` so that it cannot leave its quotes or its line."""
    if value.isprintable() and '"' not in value and "\\" not in value:
        return value
    return "".join(map(_escape_character, value))


def _escape_character(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def protocol_of(message: RequestMessage) -> str:
    """Return the version as it stands in a request line."""
    version = message.version
    return "HTTP/1.1" if version is HttpVersion11 else f"HTTP/{version[0]}.{version[1]}"


Found = dict[bytes, bytes]
"""Values of fields as they were sent, by the lower-case name."""


class WantedFields:
    """Finds fields of requests: all of a line's in one pass; a dictionary of all that a request has would cost more.

    Args:
        names: lower-case; the first field of each name counts.
    """

    __slots__ = ("_names",)

    def __init__(self, *names: bytes) -> None:
        self._names = frozenset(names)

    def of(self, message: RequestMessage) -> Found:
        """Return those that the request has."""
        found: Found = {}
        names = self._names
        for name, value in message.fields:
            if name in names and name not in found:
                found[name] = value
        return found


def text_of(value: bytes) -> str:
    """Return the value of a field as text; bytes that are not UTF-8 as surrogates."""
    return value.decode("utf-8", "surrogateescape")


def user_of(authorization: bytes | None) -> str | None:
    """Return the user that a client says to be by `Authorization: Basic` (RFC 7617); nothing has checked that."""
    scheme, _, credentials = (authorization or b"").partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, _ = binascii.a2b_base64(credentials.strip(b" "), strict_mode=True).partition(b":")
    except ValueError:
        return None
    return user.decode("utf-8", "surrogateescape") if colon else None


Field = Callable[[bytes], bytes | None]
"""Gives the value of a field of the request by its lower-case name."""
RequestAtom = Callable[["RequestMessage", Field], str]


def _field_atom(name: bytes) -> RequestAtom:
    def text(_: RequestMessage, field: Field) -> str:
        value = field(name)
        # text_of(), without the call.
        return escape(value.strip(b" \t").decode("utf-8", "surrogateescape") or "-") if value else "-"

    return text


def _user(_: RequestMessage, field: Field) -> str:
    value = field(b"authorization")
    return "-" if value is None else escape(user_of(value) or "-")


def _trace(part: int) -> RequestAtom:
    def text(_: RequestMessage, field: Field) -> str:
        ids = trace_of(field(b"traceparent"))
        return ids[part] if ids is not None else "-"

    return text


# The atoms that look at the request alone.
_REQUEST_ATOMS: dict[str, RequestAtom] = {
    "r": lambda message, _: f"{message.method} {escape(message.path)} {protocol_of(message)}",
    "m": lambda message, _: escape(message.method),
    "U": lambda message, _: escape(message.path.partition("?")[0]),
    "q": lambda message, _: escape(message.path.partition("?")[2]),
    "H": lambda message, _: protocol_of(message),
    "u": _user,
    "id": lambda message, _: escape(message.request_id) or "-",
    "trace": _trace(0),
    "span": _trace(1),
    "f": _field_atom(b"referer"),
    "a": _field_atom(b"user-agent"),
}
_FIELDS_OF_ATOMS = {
    "u": b"authorization",
    "f": b"referer",
    "a": b"user-agent",
    "trace": b"traceparent",
    "span": b"traceparent",
}

_IN_C = frozenset({"r", "u", "f", "a"})
"""Atoms of the request that are made in C, too, as are its fields."""
PARTS_MAX = 16

# The other atoms, as expressions: all of a line's are evaluated in one call, where a call for each cost 1 us a line.
_EXPRESSIONS = {
    "h": "remote",
    "l": "'-'",
    "t": "clock.log_time",
    "s": "(response or no_response).status",
    "b": "(response or no_response).output_length or '-'",
    "B": "(response or no_response).output_length",
    "T": "int(seconds)",
    "M": "int(seconds * 1000)",
    "D": "int(seconds * 1_000_000)",
    "L": "format(seconds, '.6f')",
    "p": "f'<{getpid()}>'",
    "X": "'X' if (response or no_response).cut else '+' if response.keeps else '-'",
}
_KNOWN = " ".join(
    f"%({name})s"
    for name in [*"hlutrmUqHsbBfaTMDLpX", "id", "trace", "span", "{name}i", "{name}o", "{name}e"]
)  # fmt: skip


class _NoResponse:
    """What a line says of a response that does not exist."""

    status = NOT_SENT
    output_length = "-"
    cut = True
    headers: Mapping[str, str] = {}


def compile_format(access_log_format: str, parts: MakesPieces | None = None) -> LineMaker:
    """Turn a format into a function that makes lines (without the line feed).

    Args:
        access_log_format: text with atoms `%(X)s`: h client, l `-`, u the user of `Authorization: Basic`, t time,
            r request line, m method, U path, q query, H protocol, s status, b size or `-`, B size, f referer,
            a user agent, T seconds, M milliseconds, D microseconds, L seconds with six digits, p process,
            X what became of the connection: `X` it ended before the response was complete, `+` it stays open, `-` it
            ends behind the response; id the id of the request, trace and span those of its `traceparent`; `{name}i`,
            `{name}o`, `{name}e`: a field of the request, of the response, a value of the environ. `%%` is a percent
            sign. A request that got no response has the status 499.
        parts: makes what of usual lines is the request's, in C; None: it is made here.

    Raises:
        ValueError: an atom is unknown.
    """
    return _compile(access_log_format, parts)[0]


def needs_seconds(access_log_format: str) -> bool:
    """Whether the lines of a format say how long a request took."""
    return _compile(access_log_format)[1]


@lru_cache(maxsize=32)
def _compile(access_log_format: str, in_c: MakesPieces | None = None) -> tuple[LineMaker, bool]:
    parts: list[ast.expr] = []
    request_atoms: list[RequestAtom] = []
    wanted: list[tuple[str, bytes]] = []  # atoms of the request, with the name of the field that each looks at
    fields: list[bytes] = []  # of the request
    names: list[str] = []  # of fields; they are data, and never become a part of an expression
    says_seconds = False
    position = 0
    for match in _ATOM.finditer(access_log_format):
        parts.append(ast.Constant(access_log_format[position : match.start()]))
        position = match.end()
        if match[0] == "%%":
            parts.append(ast.Constant("%"))
            continue
        atom = match[1] or ""
        header = _HEADER_ATOM.fullmatch(atom)
        request_atom, field = _REQUEST_ATOMS.get(atom), _FIELDS_OF_ATOMS.get(atom)
        if header is not None and header[2] == "i":
            field = header[1].lower().encode("latin-1", "replace")
            request_atom = _field_atom(field)
        if field is not None:
            fields.append(field)
        if request_atom is not None:
            pieces = "pieces" if request_atoms else "(pieces := pieces_of(message))"
            expression = f"{pieces}[{len(request_atoms)}]"
            request_atoms.append(request_atom)
            wanted.append((atom, field or b""))
        elif header is not None:
            source = "(response or no_response).headers" if header[2] == "o" else "(environ or {})"
            expression = f"escape(str({source}.get(names[{len(names)}], '-')))"
            names.append(header[1])
        elif atom in _EXPRESSIONS:
            expression = _EXPRESSIONS[atom]
        else:
            raise ValueError(
                f"unknown atom {match[0]!r} at position {match.start()} of the access log format; known are {_KNOWN}"
            )
        says_seconds |= "seconds" in expression
        parts.append(ast.FormattedValue(ast.parse(expression, mode="eval").body, conversion=-1))
    parts.append(ast.Constant(access_log_format[position:]))
    # An f-string, put together as a tree: text of the format cannot become code. It takes half of what `%` does.
    tree = ast.parse("lambda message, response, environ, seconds, remote: ''", mode="eval")
    tree.body.body = ast.JoinedStr(parts)  # type: ignore[attr-defined]  # a lambda's
    code = compile(ast.fix_missing_locations(tree), "<access log format>", "eval")
    pieces_of = _pieces_maker(request_atoms, WantedFields(*fields))
    if in_c is not None and len(wanted) <= PARTS_MAX and all(atom in _IN_C or atom[0] == "{" for atom, _ in wanted):
        pieces_of = in_c(RequestMessage, HttpVersion11, tuple(wanted), pieces_of)
    known: dict[str, Any] = {
        "pieces_of": pieces_of, "names": names, "clock": clock, "escape": escape,
        "no_response": _NoResponse, "getpid": os.getpid,
    }  # fmt: skip
    make: LineMaker = eval(code, known)  # noqa: S307 -- of the expressions above, see there
    return make, says_seconds


def _pieces_maker(atoms: list[RequestAtom], wanted: WantedFields) -> PiecesMaker:
    dashes = ("-",) * len(atoms)
    fields_of = wanted.of

    def pieces_of(message: RequestMessage | None) -> tuple[str, ...]:
        if message is None:
            return dashes
        field = fields_of(message).get
        return tuple([atom(message, field) for atom in atoms])

    return pieces_of
