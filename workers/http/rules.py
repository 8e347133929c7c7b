"""The rules of HTTP/1.1 for a head: pure functions over bytes of the wire that accept or refuse.

Nothing here decides where a message ends: that is `parser.py`'s business alone, a second opinion is how requests are
smuggled.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address

from preforkd.workers.http.errors import BadRequestError
from preforkd.workers.http.message import HttpVersion, HttpVersion10, HttpVersion11, RequestMessage
from preforkd.workers.http.names import METHODS, UNSERVED_METHODS

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_REFUSED_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}) ([!-~]+)(?: HTTP/([0-9])\.([0-9])(?=\r))?").match
_TARGET_SHOWN_MAX = 1024
_HTTP_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])\Z")
_REG_NAME = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")  # RFC 3986 section 3.2.2
_HOST = re.compile(
    rb"(?:\[(?P<literal>[0-9A-Za-z:.\-_~!$&'()*+,;=]+)\]|(?P<name>" + _REG_NAME.pattern + rb"))(?::(?P<port>[0-9]*))?"
)
METHOD_SIZE_MAX = 65536  # bytes of a method that has not ended; the limit of the request line is lower as a rule
_IP_FUTURE = re.compile(rb"[vV][0-9A-Fa-f]+\.[0-9A-Za-z\-._~!$&'()*+,;=:]+")
_PRINTABLE = re.compile(rb"[!-~]+")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]*)(?:[/?]|\Z)")


def is_valid_host(value: bytes) -> bool:
    """Whether `value` is `uri-host [":" port]` with a host that is not empty (RFC 9110 section 7.2)."""
    match = _HOST.fullmatch(value)
    if match is None:
        return False
    port = match["port"]
    if port and (len(port) > 5 or int(port) > 65535):  # int() is safe: the pattern admits ASCII digits only
        return False
    literal = match["literal"]
    if literal is None or _IP_FUTURE.fullmatch(literal):
        return True
    try:
        IPv6Address(literal.decode("ascii"))
    except AddressValueError:
        return False
    return b"%" not in literal


def authority_of(target: bytes, method: str) -> bytes | None:
    """Check a request target (RFC 9112 section 3.2) and return the authority of an absolute-form one.

    Raises:
        BadRequestError: the target has none of the forms that its method allows.
    """
    if _PRINTABLE.fullmatch(target) is None:
        raise BadRequestError("Invalid character in the request target")
    if b"#" in target:
        raise BadRequestError("A request target has no fragment")
    if target[:1] == b"/":
        return None
    if target == b"*":
        if method != "OPTIONS":
            raise BadRequestError("The target * is for OPTIONS only")
        return None
    match = _ABSOLUTE.match(target)
    if match is None or not is_valid_host(match[1]):  # also refuses user information: no @ in a host
        raise BadRequestError("Invalid request target")
    return match[1]


def check_host(values: list[bytes], version: HttpVersion) -> None:
    """Check the Host fields of a request (RFC 9112 section 3.2).

    An empty value is what a client sends whose target has no authority, over a unix socket for instance.

    Raises:
        BadRequestError: HTTP/1.1 without Host, more than one, or an invalid value.
    """
    if len(values) > 1:
        raise BadRequestError("More than one Host header")
    if not values:
        if version >= HttpVersion11:
            raise BadRequestError("Missing Host header")
        return
    if values[0] and not is_valid_host(values[0]):
        raise BadRequestError("Invalid Host header")


def check_transfer_encoding(values: list[bytes], version: HttpVersion, has_length: bool) -> None:
    """Check the Transfer-Encoding fields of a request (RFC 9112 section 6.1); returns when it is `chunked` alone.

    Raises:
        BadRequestError: 501 for a coding that we do not have, 400 when the length of the body is in doubt.
    """
    codings = [coding.strip(b" \t").lower() for value in values for coding in value.split(b",")]
    if version < HttpVersion11:
        raise BadRequestError("Transfer-Encoding in HTTP/1.0")
    if has_length:
        raise BadRequestError("Transfer-Encoding with Content-Length")
    if codings == [b"chunked"]:
        return
    if b"chunked" in codings[:-1] or not all(TOKEN.match(coding) for coding in codings):
        raise BadRequestError("Invalid Transfer-Encoding")
    raise BadRequestError("Transfer-Encoding other than chunked is not implemented", code=501)


def content_length(values: list[bytes]) -> int:
    """Return the announced length of a body (RFC 9112 section 6.3).

    Raises:
        BadRequestError: more than one value, or anything but ASCII digits (int() would take `+5`, `5_0` and ` 5`).
    """
    digits = values[0].lstrip(b"0") or b"0"
    if len(values) != 1 or not values[0].isdigit() or len(digits) > 19:
        raise BadRequestError("Invalid Content-Length")
    return int(digits)


def tokens(value: bytes) -> list[bytes]:
    """Split a comma-separated list into its lower-case elements (RFC 9110 section 5.6.1)."""
    return [token.strip(b" \t") for token in value.lower().split(b",")]


def is_websocket_handshake(method: str, version: HttpVersion, fields: dict[bytes, list[bytes]]) -> bool:
    """Whether a request is a valid opening handshake (RFC 6455 section 4.2.1), Host being checked before.

    A body is no part of it: with one, what follows the head would be taken for frames of the client's choice.
    """
    return (
        method == "GET"
        and version >= HttpVersion11
        and b"content-length" not in fields
        and b"transfer-encoding" not in fields
        and any(b"websocket" in tokens(value) for value in fields.get(b"upgrade", ()))
        and any(b"upgrade" in tokens(value) for value in fields.get(b"connection", ()))
        and fields.get(b"sec-websocket-version") == [b"13"]
        and [len(key) for key in fields.get(b"sec-websocket-key", ())] == [24]
    )


def check_request_line(line: bytes) -> tuple[str, HttpVersion]:
    """Check a request line to the letter (RFC 9112 section 3), but for its target; return method and version.

    Args:
        line: without the CR LF at its end.

    Raises:
        BadRequestError: 400, 501 for a method that we do not know, or 505 for a version that is not 1.0 or 1.1.
    """
    fault = fault_of_method(line + b"\r")
    if fault is not None:
        raise fault
    method, *rest = line.split(b" ")
    if len(rest) == 1:
        raise BadRequestError("Missing HTTP version")
    if len(rest) != 2 or not rest[0]:
        raise BadRequestError("Invalid request line")
    version = _HTTP_VERSION.match(rest[1])
    if version is None:
        raise BadRequestError("Invalid HTTP version")
    if version[1] != b"1" or version[2] not in b"01":
        raise BadRequestError("HTTP version not supported", code=505)
    if method in UNSERVED_METHODS:
        raise BadRequestError(f"{method.decode()} is not implemented", code=501)
    return METHODS[method], HttpVersion11 if version[2] == b"1" else HttpVersion10


def refused_request(head: bytes, too_long: bool) -> RequestMessage | None:
    """Read the request line of a head that was refused, for the answer and the log; None when it is none.

    Args:
        head: what came of it, from its first byte on.
        too_long: that is what the line was refused for, so its end may be missing, and not all of the target is shown.
    """
    line = _REFUSED_LINE(head)
    if line is None or (line[3] is None and not (too_long and line.end() == len(head))):
        return None
    method, target = line[1].decode("ascii"), line[2].decode("ascii")
    version = HttpVersion11 if line[3] is None else HttpVersion(int(line[3]), int(line[4]))
    return RequestMessage(method, target[:_TARGET_SHOWN_MAX] if too_long else target, version, [], should_close=True)


def fault_of_method(head: bytes) -> BadRequestError | None:
    """Say what is wrong with the method at the beginning of a head; None: nothing, or more bytes are needed to tell.

    An unknown token is 501, anything else 400 (RFC 9110 section 9.1).
    """
    match = TOKEN.match(head)
    end = match.end() if match is not None else 0
    if end == len(head) and end <= METHOD_SIZE_MAX:
        return None
    if not end or head[end : end + 1] != b" ":
        return BadRequestError("Invalid method")
    if head[:end] in METHODS or head[:end] in UNSERVED_METHODS:
        return None
    return BadRequestError("Unknown method", code=501)
