"""Names, values and status lines of responses: checked, and remembered in the form in which they are sent."""

from __future__ import annotations

import re
from http import HTTPStatus

# Those that RFC 9110 has renamed, and Python with its version 3.13: ours do not depend on the interpreter.
_RENAMED = {
    413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content",
}  # fmt: skip
PHRASES = {status.value: status.phrase for status in HTTPStatus} | _RENAMED
BODILESS = frozenset((204, 205, 304))  # of the final ones; RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5


def status_line(code: int, reason: str | None = None) -> bytes:
    """Return the first line of a response; the reason is the standard one, or was checked."""
    phrase = PHRASES.get(code, "") if reason is None else reason
    return f"HTTP/1.1 {code} {phrase}\r\n".encode("utf-8", "surrogateescape")


# Of those whose head is a matter of routine: final, and with a body.
PLAIN_LINES = {code: status_line(code) for code in PHRASES if code >= 200 and code not in BODILESS}

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search

# What a field name means to us; "" for most. Names are learned once: a check costs one lookup instead of a match.
_MEANINGS: dict[str, str] = {}
_MEANINGS_MAX = 2048
_OURS = frozenset(
    ["content-length", "transfer-encoding", "connection", "keep-alive", "date", "server", "content-encoding"]
)


# Fields that are the same in most responses of an app: checked and formatted once. One lookup (the hashes of literals
# are kept in them) instead of two checks and a formatting. Content-Length comes with its number.
_FIELDS: dict[tuple[str, str], tuple[bytes, int | None]] = {}
known_field = _FIELDS.get
_FIELDS_MAX = 1024
_FIELD_SIZE_MAX = 128
_REPEATED = frozenset(
    [
        "access-control-allow-origin",
        "cache-control",
        "content-type",
        "expires",
        "pragma",
        "referrer-policy",
        "strict-transport-security",
        "vary",
        "x-content-type-options",
        "x-frame-options",
    ]
)


REQUEST_ID = "request-id"
"""The meaning of the field that says a request's id, whatever its name is."""
_request_id = ""


def call_request_id(name: str) -> None:
    """Have a field of another name say the request's id in the responses of this process; empty: none does."""
    global _request_id
    _request_id = name.lower()
    _MEANINGS.clear()


def is_request_id(lower: str) -> bool:
    """Whether the field of this name, in lower case, says the request's id."""
    return lower == _request_id


def remember(name: str, value: str, line: bytes, length: int | None = None) -> None:
    """Keep a checked field for the next response: Content-Length with its number, others when they tend to repeat."""
    if length is None and (len(value) > _FIELD_SIZE_MAX or name.lower() not in _REPEATED):
        return
    if len(_FIELDS) >= _FIELDS_MAX:
        _FIELDS.clear()
    _FIELDS[name, value] = line, length


def field_line(name: str, value: str) -> bytes:
    """Return a checked field as a line of a head."""
    return f"{name}: {value}\r\n".encode()


def meaning_of(name: str) -> str:
    """Return what a field name means to a response: its lower case, REQUEST_ID, or "" for most.

    Raises:
        ValueError: it is not a token (RFC 9110 section 5.1).
    """
    meaning = _MEANINGS.get(name)
    if meaning is not None:
        return meaning
    if not _TOKEN(name):
        raise ValueError(f"invalid header name: {name!r}")
    lower = name.lower()
    meaning = lower if lower in _OURS else REQUEST_ID if lower == _request_id else ""
    if len(_MEANINGS) < _MEANINGS_MAX:
        _MEANINGS[name] = meaning
    return meaning


def checked_status(status: object) -> int:
    """Return a status as an `int` and nothing else; an `IntEnum`, as `HTTPStatus` is one, gives its value.

    Raises:
        ValueError: it is not 100 to 999, or of another type.
    """
    kind = type(status)
    code = int.__int__(status) if issubclass(kind, int) and kind is not bool else 0  # type: ignore[arg-type]  # an int
    if not 100 <= code <= 999:
        raise ValueError(f"invalid status: {status!r}")
    return code


def plain_text(value: object, what: str) -> str:
    """Return the text of a string as a `str` and nothing else; of an enum of strings its value.

    A subclass could say one thing to the checks and another when it is formatted, and would be remembered for all.

    Raises:
        TypeError: `value` is not a string.
    """
    if not issubclass(type(value), str):
        raise TypeError(f"{what} must be str, not {type(value).__name__}")
    return str.__str__(value)


def check_value(value: str) -> None:
    """Refuse a header value or a reason that would end its line (RFC 9110 section 5.5).

    Raises:
        ValueError: it holds CR, LF, NUL or another control character, or cannot be encoded.
    """
    if _CONTROL(value):
        raise ValueError(f"control character in a header value: {value!r}")
    value.encode()
