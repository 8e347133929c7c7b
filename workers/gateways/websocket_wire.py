"""The frames that a WebSocket sends: the protocol without I/O of the library `websockets`, and the transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

from preforkd.workers.gateways.websocket_plain import plain_frame

if TYPE_CHECKING:
    from websockets.server import ServerProtocol

    from preforkd.workers.gateways.asgi import AsgiProtocol


class Wire:
    """The way out of one WebSocket.

    Args:
        connection: the HTTP connection that it comes by.
        server: the library's protocol, which knows what may be sent.

    Attributes:
        connection, server: as given.
    """

    __slots__ = ("connection", "server")

    def __init__(self, connection: AsgiProtocol, server: ServerProtocol) -> None:
        self.connection = connection
        self.server = server

    def send(self, payload: bytes, is_text: bool) -> None:
        """Write a whole message.

        Args:
            payload: what it says, any number of bytes.
            is_text: it is UTF-8, not binary.
        """
        server = self.server
        if not server.extensions:
            self.write(plain_frame(payload, is_text))
            return
        if is_text:
            server.send_text(payload)
        else:
            server.send_binary(payload)
        self.flush()

    def flush(self) -> None:
        """Write what the library has to send."""
        self.write(b"".join(self.server.data_to_send()))  # it marks the end by b""

    def write(self, data: bytes) -> None:
        """Write bytes of frames; to a client that is gone, nothing."""
        connection = self.connection
        transport = connection.transport
        if data and transport is not None and not transport.is_closing():
            connection.writer.sent += len(data)
            transport.write(data)
