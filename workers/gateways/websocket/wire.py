"""The frames that a WebSocket sends: messages, the control frames of the library `websockets`, and the transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

from preforkd.workers.gateways.websocket.plain import COMPRESSED, message_frame

if TYPE_CHECKING:
    from websockets.server import ServerProtocol

    from preforkd.workers.gateways.asgi.gateway import AsgiProtocol
    from preforkd.workers.gateways.websocket.deflate import Deflater


class Wire:
    """The way out of one WebSocket.

    Args:
        connection: the HTTP connection that it comes by.
        server: the library's protocol, which knows what may be sent.
        deflater: compresses messages; None: they are sent as they are.

    Attributes:
        connection, server: as given.
    """

    __slots__ = ("_deflater", "connection", "server")

    def __init__(self, connection: AsgiProtocol, server: ServerProtocol, deflater: Deflater | None) -> None:
        self.connection = connection
        self.server = server
        self._deflater = deflater

    def send(self, payload: bytes, is_text: bool) -> None:
        """Write a whole message.

        Args:
            payload: what it says, any number of bytes.
            is_text: it is UTF-8, not binary.
        """
        deflater = self._deflater
        if deflater is None:
            self.write(message_frame(payload, is_text))
        else:
            self.write(message_frame(deflater.deflate(payload), is_text, COMPRESSED))

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
