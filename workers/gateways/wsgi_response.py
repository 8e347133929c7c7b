"""The response of a WSGI app, written in the event loop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from preforkd.workers.gateways.sendfile import can_send, send_by_kernel
from preforkd.workers.http.errors import ResponseError
from preforkd.workers.http.head import length_line
from preforkd.workers.http.message import HttpVersion11
from preforkd.workers.http.response import Response

if TYPE_CHECKING:
    from preforkd.workers.gateways.wsgi_file import Range
    from preforkd.workers.gateways.wsgi_headers import Fields, Head
    from preforkd.workers.http.protocol import ServerHttpProtocol

# Responses without a body: their length is not that of what the app has returned (RFC 9110 section 8.6).
_BODILESS = frozenset((204, 304))

_READ = 65536  # bytes of a file at a time, where the kernel cannot send it


class WsgiResponse(Response):
    """A `Response` whose head was checked by `wsgi_headers.py` already.

    Args:
        protocol: the connection; its current request is answered.
        head: what the app has said.
    """

    def __init__(self, protocol: ServerHttpProtocol, head: Head) -> None:
        super().__init__(protocol.writer, head.code)
        # Not by add_header(), which would check each field again (0.5 us a response).
        self._request = protocol.request
        self._lines = head.lines
        if head.length is not None:
            self._length = head.length
            self._length_line = head.length_line
        if head.reason is not None or head.has_date or head.has_server:
            self._plain = False
            self._reason, self._has_date, self._has_server = head.reason, head.has_date, head.has_server
        protocol.keep_alive_wish = True

    def send_whole(self, body: bytes) -> None:
        """Send head and body; a missing Content-Length is added.

        Raises:
            ResponseError: Content-Length is another one than the body's.
            ClientDisconnectedError: the client is gone.
        """
        writer = self._writer
        request = self._request
        if (
            request is not None
            and request.method == "GET"
            and (self._length is None or self._length == len(body))
            and self.status not in _BODILESS
            and writer.flushed_by_caller
            and writer.response is None
        ):
            # The usual case, flat: what the four methods below would do takes 0.4 us more.
            self._left = 0
            self._lines.append(self._length_line or length_line(len(body)))
            self.headers_sent = self.ended = self.head_is_due = writer.due = True
            if self._length is None:
                self._length = len(body)
            writer.response = self
            if body:
                writer.parts.append(body)
            return
        self.add_length(len(body))
        self.send_headers()
        if body:
            self.write(body)
        self.end()

    def end(self) -> None:
        """End the response, without waiting for the client.

        Raises:
            ResponseError: less than Content-Length was written.
        """
        if not self.ended:
            self._finish()

    def add_length(self, size: int) -> None:
        """Add Content-Length for a body of `size` bytes, where there is none and there has to be one."""
        if self._length is not None or self.status in _BODILESS:
            return
        request = self._request
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


def begin_response(protocol: ServerHttpProtocol, head: Head, size: int | None) -> WsgiResponse:
    """Send the head of a response.

    Args:
        protocol: the connection.
        head: what the app has said.
        size: of the body in bytes, when all of it is known; a missing Content-Length is then added.
    """
    response = WsgiResponse(protocol, head)
    if size is not None:
        response.add_length(size)
    response.send_headers()
    return response


def send_hints(protocol: ServerHttpProtocol, fields: Fields) -> None:
    """Send `103 Early Hints` (RFC 8297), unless the client speaks HTTP/1.0 or the response has begun."""
    request = protocol.request
    if request is None or request.version < HttpVersion11 or protocol.writer.response is not None:
        return
    hints = Response(protocol.writer, 103, http_version=request.version)
    for name, value in fields:
        hints.add_header(name, value)
    hints.send_headers()
    protocol.writer.flush()


async def send_range(response: WsgiResponse, protocol: ServerHttpProtocol, file: Range) -> None:
    """Send a part of a file as the body of a response whose head has been sent.

    Raises:
        ResponseError: the file is shorter than Content-Length.
        ClientDisconnectedError: the client is gone.
        OSError: the file cannot be read.
    """
    if can_send(protocol):
        await send_by_kernel(response, protocol, file.descriptor, file.offset)
        return
    offset = file.offset
    while left := response.body_left():
        data = os.pread(file.descriptor, min(left, _READ), offset)
        if not data:
            raise ResponseError(f"the file ended {left} bytes before the end of Content-Length")
        offset += len(data)
        response.write(data)
        await response.drain()
