"""From the bytes of a head to a request, in one pass over its fields; all rules of the protocol are kept here.

Pure functions, and strict: what is not certainly a request of HTTP/1.1 or 1.0 is refused, with the status that says
why.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from preforkd.workers.http import rules
from preforkd.workers.http.errors import BadRequestError
from preforkd.workers.http.message import Fields, HttpVersion11, RequestMessage
from preforkd.workers.http.names import LOWER, MEANT, METHODS, note_of, noted_with

if TYPE_CHECKING:
    from preforkd.workers.http.limits import Limits

# What may stand in a line: no control character but HTAB (RFC 9110 section 5.5). CR and LF end lines, in pairs.
TEXT = bytes([9, *range(32, 127), *range(128, 256)])
_ORIGIN_FORM = re.compile(rb"/[!\x22\x24-\x7e]*").fullmatch  # RFC 9112 section 3.2.1: printable, and no fragment
_TOKEN = rules.TOKEN.fullmatch
# Hosts that need no second look; the others are judged by `rules.is_valid_host()`.
_PLAIN_HOST = re.compile(rb"[A-Za-z0-9.\-]+(?::[0-5]?[0-9]{1,4})?").fullmatch
# The usual values of Connection, and whether they end it (in HTTP/1.1).
_PLAIN_CONNECTIONS = {None: False, b"keep-alive": False, b"Keep-Alive": False, b"close": True, b"Close": True}
_CODINGS = {b"gzip": "gzip", b"x-gzip": "gzip", b"deflate": "deflate"}


def parse_head(head: bytes, limits: Limits) -> RequestMessage:  # noqa: C901 -- flat, see below
    """Make a request of a head.

    Args:
        head: from the first byte of the request line to the empty line, with it.
        limits: `limit_headers` and `limit_body` are kept here; how long a head may be is for whoever collects it.

    Raises:
        BadRequestError: with the status to answer, and with the request where it is known what it asked for.
    """
    # Flat: every request passes here, and a call for each field would double what it costs.
    lines = head.split(b"\r\n")
    parts = lines[0].split(b" ")
    method = METHODS.get(parts[0])
    version = HttpVersion11
    is_plain = True
    noted = 0
    if method is None or len(parts) != 3 or parts[2] != b"HTTP/1.1" or not _ORIGIN_FORM(parts[1]):
        method, version = rules.check_request_line(lines[0])
        is_plain = False
    if len(head.translate(None, TEXT)) != 2 * (len(lines) - 1):
        raise BadRequestError("Control character in the head")
    fields: Fields = []
    host = connection = length = None
    known = LOWER.get
    for line in lines[1:-2]:
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")  # and nothing else (RFC 9110 section 5.5)
        lower = known(name)
        if lower is None or not colon:
            if not colon or not _TOKEN(name):
                raise BadRequestError("Invalid header field")
            lower = name.lower()
            if lower in MEANT:
                if lower == b"host" and host is None:
                    host = value
                elif lower == b"connection" and connection is None:
                    connection = value
                elif lower == b"content-length" and length is None:
                    length = value
                else:
                    is_plain = False
            elif note := note_of(lower):
                noted = noted_with(noted, note, len(fields))
        fields.append((lower, value))
    message = RequestMessage(method, parts[1].decode("latin-1"), version, fields, False, head)
    if noted:
        message.noted = noted
    if len(fields) > limits.limit_headers > 0:
        raise _refused(message, BadRequestError("Too many header fields", code=431))
    if (
        is_plain
        and host is not None
        and _PLAIN_HOST(host)
        and connection in _PLAIN_CONNECTIONS
        and (length is None or (length.isdigit() and len(length) < 19))
    ):
        message.should_close = _PLAIN_CONNECTIONS[connection]
        if length is not None:
            message.content_length = int(length)
            if message.content_length > limits.limit_body > 0:
                raise _refused(message, BadRequestError("Request body too large", code=413))
    else:
        try:
            _interpret(message, parts[1], limits)
        except BadRequestError as exc:
            raise _refused(message, exc) from None
    return message


def _refused(message: RequestMessage, exc: BadRequestError) -> BadRequestError:
    exc.request = message
    return exc


def _interpret(message: RequestMessage, target: bytes, limits: Limits) -> None:
    """Keep the rules for the target and for the fields that have a meaning, whatever they say."""
    meant: dict[bytes, list[bytes]] = {}
    for name, value in message.fields:
        if name in MEANT:
            meant.setdefault(name, []).append(value)
    _check_target(message, target, meant.get(b"host", []))
    version = message.version
    options = [option for value in meant.get(b"connection", ()) for option in rules.tokens(value)]
    # RFC 9112 section 9.3: `close` wins.
    message.should_close = b"close" in options or (version < HttpVersion11 and b"keep-alive" not in options)
    lengths = meant.get(b"content-length")
    codings = meant.get(b"transfer-encoding")
    if codings:
        rules.check_transfer_encoding(codings, version, lengths is not None)
        message.chunked = True
        # RFC 9112 section 6.1: an intermediary that saw another length has its say ended here.
    if lengths:
        message.content_length = rules.content_length(lengths)
        if message.content_length > limits.limit_body > 0:
            raise BadRequestError("Request body too large", code=413)
    _describe_body(message, meant)
    if b"upgrade" in meant:
        message.has_upgrade = True
        message.upgrade = rules.is_websocket_handshake(message.method, version, meant)


def _check_target(message: RequestMessage, target: bytes, hosts: list[bytes]) -> None:
    """Keep the rules for the target and for Host (RFC 9112 sections 3.2 and 3.3)."""
    authority = rules.authority_of(target, message.method)
    rules.check_host(hosts, message.version)
    if authority is not None:
        message.replace_host(authority)


def _describe_body(message: RequestMessage, meant: dict[bytes, list[bytes]]) -> None:
    has_body = message.chunked or bool(message.content_length)
    for value in meant.get(b"expect", ()):
        if not value:
            continue  # as if it were not there: an empty list of expectations (RFC 9110 section 10.1.1)
        if value.lower() != b"100-continue":
            raise BadRequestError("Unknown expectation", code=417)
        message.expect_continue = has_body and message.version >= HttpVersion11
    codings = meant.get(b"content-encoding", [])
    if has_body and len(codings) == 1:  # several: applied one after the other, and left to the handler
        message.compression = _CODINGS.get(codings[0].lower())


_BARE = re.compile(rb"\r(?!\n|\Z)|(?<!\r)\n").search


def check_start(head: bytearray, seen: int, checked: int) -> int:
    """Refuse the beginning of a head that cannot become a valid one any more.

    A client that speaks another protocol (TLS, say) is not kept waiting for the end of a head.

    Args:
        head: what has come, without its end.
        seen: bytes of it that were looked at before.
        checked: what the last call has returned; 0 at first.

    Returns:
        The beginning of the first line that is not complete.

    Raises:
        BadRequestError: with the status to answer.
    """
    if not checked:
        fault = rules.fault_of_method(bytes(head[: rules.METHOD_SIZE_MAX + 1]))
        if fault is not None:
            raise fault
    start = max(seen - 1, 0)
    if bytes(head[start:]).translate(None, TEXT + b"\r\n") or _BARE(head, start):
        raise BadRequestError("Control character in the head")
    while (end := head.find(b"\r\n", checked)) >= 0:
        line = bytes(head[checked:end])
        if not checked:
            rules.check_request_line(line)
        elif not _TOKEN(line.partition(b":")[0]) or b":" not in line:
            raise BadRequestError("Invalid header field")
        checked = end + 2
    return checked
