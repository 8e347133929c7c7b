"""The response of a WSGI app, written in the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from preforkd.workers.gateways.wsgi.headers import (
    DATE,
    HOP_BY_HOP,
    REQUEST_ID,
    SERVER,
    check_field,
    known_field,
    known_status,
    parse_status,
)
from preforkd.workers.http import compiled
from preforkd.workers.http.fields import BODILESS
from preforkd.workers.http.message import HttpVersion11
from preforkd.workers.http.response import Response

if TYPE_CHECKING:
    from preforkd.workers.gateways.hop_by_hop import HopByHopFields
    from preforkd.workers.gateways.wsgi.headers import Fields
    from preforkd.workers.http.exchange import Exchange


@compiled.in_both_forms
class WsgiResponse(Response):
    """A `Response` as an app begins it with `start_response`; nothing is sent by that. It may be made in any thread.

    Args:
        exchange: what is answered.
        hop_by_hop: what is done with headers that are the server's.
        status: code and reason.
        headers: pairs of name and value.

    Raises:
        TypeError: something has not the type that PEP 3333 wants.
        ValueError: something has a value that would break the response.
    """

    def __init__(self, exchange: Exchange, hop_by_hop: HopByHopFields, status: str, headers: Fields) -> None:
        # Flat, with both memos: every request passes here.
        code, reason = (known_status(status) if type(status) is str else None) or parse_status(status)
        Response.__init__(self, exchange.wire, code)  # super() costs 0.05 us
        if reason is not None:
            self.replace_reason(reason)
        if not isinstance(headers, list):
            raise TypeError(f"the headers must be a list, not {type(headers).__name__}")
        lines = self.lines
        for field in headers:
            try:
                known = known_field(field)
                if known is None or not (type(field) is tuple and type(field[0]) is type(field[1]) is str):
                    known = check_field(field)  # what only equals a field that is remembered is refused, too
                line, mark = known
            except TypeError:
                check_field(field)  # says better what is wrong than the dictionary that could not look it up
                raise
            if mark is None:
                lines.append(line)
            else:
                self._take_marked(field, line, mark, hop_by_hop)

    def _take_field(self, field: tuple[str, str], hop_by_hop: HopByHopFields) -> None:
        """Take a field that the compiled form leaves to this one."""
        line, mark = check_field(field)
        if mark is None:
            self.lines.append(line)
        else:
            self._take_marked(field, line, mark, hop_by_hop)

    def _take_marked(self, field: tuple[str, str], line: bytes, mark: int, hop_by_hop: HopByHopFields) -> None:
        if mark >= 0:
            if self.content_length is not None and self.content_length != mark:
                raise ValueError("two different values of Content-Length")
            self.content_length = mark
            self.length_line = line
        elif mark == HOP_BY_HOP:
            self._take_hop_by_hop(*field, line, hop_by_hop)
        else:
            self.has_own(date=mark == DATE, server=mark == SERVER, request_id=mark == REQUEST_ID)
            self.lines.append(line)

    def _take_hop_by_hop(self, name: str, value: str, line: bytes, fields: HopByHopFields) -> None:
        lower = name.lower()
        if fields.is_sent(lower, self.status):
            self.lines.append(line)
        elif fields.asks_to_close(lower, value):
            self.force_close()

    @property
    def length(self) -> int | None:
        """Content-Length in bytes, None as long as there is none."""
        return self.content_length

    def send_body(self, body: bytes) -> None:
        """Send head and body, where `send_whole()` cannot; a missing Content-Length is added.

        Raises:
            ResponseError: Content-Length is another one than the body's.
            ClientDisconnectedError: the client is gone.
        """
        self.begin(len(body))
        if body:
            self.write(body)
        self.end()

    def begin(self, size: int | None) -> None:
        """Send the head.

        Args:
            size: of the body in bytes, when all of it is known; a missing Content-Length is then added.
        """
        if size is not None:
            self._add_length(size)
        self.send_headers()

    def _add_length(self, size: int) -> None:
        """Add Content-Length for a body of `size` bytes, where there is none and there has to be one."""
        if self.content_length is not None or self.status in BODILESS:
            return
        exchange = self.exchange
        if size or exchange is None or exchange.request.method != "HEAD":
            self.set_length(size)


def send_hints(exchange: Exchange, fields: Fields) -> None:
    """Send `103 Early Hints` (RFC 8297), unless the client speaks HTTP/1.0 or the response has begun."""
    request, wire = exchange.request, exchange.wire
    if wire.exchange is not exchange or request.version < HttpVersion11 or wire.response is not None:
        return
    hints = Response(wire, 103, http_version=request.version)
    for name, value in fields:
        hints.add_header(name, value)
    hints.send_headers()
    wire.flush()
