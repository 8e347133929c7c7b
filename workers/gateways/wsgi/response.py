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
from preforkd.workers.http.fields import BODILESS, status_line
from preforkd.workers.http.head import length_line
from preforkd.workers.http.message import HttpVersion11
from preforkd.workers.http.response import Response

if TYPE_CHECKING:
    from preforkd.workers.gateways.wsgi.gateway import WsgiProtocol
    from preforkd.workers.gateways.wsgi.headers import Fields


class WsgiResponse(Response):
    """A `Response` as an app begins it with `start_response`; nothing is sent by that. It may be made in any thread.

    Args:
        protocol: the connection; its current request is answered.
        status: code and reason.
        headers: pairs of name and value.

    Raises:
        TypeError: something has not the type that PEP 3333 wants.
        ValueError: something has a value that would break the response.
    """

    def __init__(self, protocol: WsgiProtocol, status: str, headers: Fields) -> None:
        # Flat, with both memos: every request passes here.
        code, reason = (known_status(status) if type(status) is str else None) or parse_status(status)
        Response.__init__(self, protocol.writer, code)  # super() costs 0.05 us
        self._protocol = protocol
        if reason is not None:
            self._reason = reason
            self._first_line = status_line(code, reason)
        if not isinstance(headers, list):
            raise TypeError(f"the headers must be a list, not {type(headers).__name__}")
        lines = self._lines
        for field in headers:
            try:
                line, mark = known_field(field) or check_field(field)
            except TypeError:
                check_field(field)  # says better what is wrong than the dictionary that could not look it up
                raise
            if mark is None:
                lines.append(line)
            elif mark >= 0:
                if self._length is not None and self._length != mark:
                    raise ValueError("two different values of Content-Length")
                self._length = mark
                self._length_line = line
            elif mark == HOP_BY_HOP:
                self._take_hop_by_hop(*field, line)
            else:
                self._plain = False
                self._has_date |= mark == DATE
                self._has_server |= mark == SERVER
                self._has_id |= mark == REQUEST_ID
                lines.append(line)

    def _take_hop_by_hop(self, name: str, value: str, line: bytes) -> None:
        fields, lower = self._protocol.gateway.hop_by_hop, name.lower()
        if fields.is_sent(lower, self.status):
            self._lines.append(line)
        elif fields.asks_to_close(lower, value):
            self.force_close()

    @property
    def length(self) -> int | None:
        """Content-Length in bytes, None as long as there is none."""
        return self._length

    def send_whole(self, body: bytes) -> None:
        """Send head and body; a missing Content-Length is added.

        Raises:
            ResponseError: Content-Length is another one than the body's.
            ClientDisconnectedError: the client is gone.
        """
        writer = self._writer
        protocol = self._protocol
        request = protocol.request
        if (
            request is not None
            and request.method != "HEAD"
            and (self._length is None or self._length == len(body))
            and self.status not in BODILESS
            and writer.flushed_by_caller
            and writer.response is None
        ):
            # The usual case, flat: what the methods below would do takes 0.4 us more.
            protocol.keep_alive_wish = True
            self._left = 0
            self._lines.append(self._length_line or length_line(len(body)))
            self.headers_sent = self.ended = self.head_is_due = writer.due = True
            if self._length is None:
                self._length = len(body)
            writer.response = self
            if body:
                writer.parts.append(body)
            return
        self.begin(len(body))
        if body:
            self.write(body)
        self.end()

    def begin(self, size: int | None) -> None:
        """Send the head.

        Args:
            size: of the body in bytes, when all of it is known; a missing Content-Length is then added.
        """
        self._protocol.keep_alive_wish = True
        if size is not None:
            self._add_length(size)
        self.send_headers()

    def end(self) -> None:
        """End the response, without waiting for the client.

        Raises:
            ResponseError: less than Content-Length was written.
        """
        if not self.ended:
            self._finish()

    def _add_length(self, size: int) -> None:
        """Add Content-Length for a body of `size` bytes, where there is none and there has to be one."""
        if self._length is not None or self.status in BODILESS:
            return
        request = self._protocol.request
        if size or request is None or request.method != "HEAD":
            self._length = size
            self._length_line = length_line(size)

    def body_left(self) -> int | None:
        """Bytes of Content-Length that have not been sent; None: there is no Content-Length."""
        return self._left

    def takes_body(self) -> bool:
        """Whether body bytes are sent at all; known once the headers are sent."""
        return not self._no_body

    def count_sent(self, size: int) -> None:
        """Account for bytes of the body that the kernel has sent, of a body with Content-Length."""
        if self._left is not None:
            self._left -= size


def send_hints(protocol: WsgiProtocol, fields: Fields) -> None:
    """Send `103 Early Hints` (RFC 8297), unless the client speaks HTTP/1.0 or the response has begun."""
    request = protocol.request
    if request is None or request.version < HttpVersion11 or protocol.writer.response is not None:
        return
    hints = Response(protocol.writer, 103, http_version=request.version)
    for name, value in fields:
        hints.add_header(name, value)
    hints.send_headers()
    protocol.writer.flush()
