"""The frames that a WebSocket sends: messages, the control frames of the library `websockets`, and the transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

from preforkd.workers.gateways.websocket.plain import COMPRESSED, message_frame

if TYPE_CHECKING:
    from websockets.server import ServerProtocol

    from preforkd.workers.gateways.websocket.deflate import Deflater
    from preforkd.workers.http.exchange import Tunnel


class Outbound:
    """The way out of one WebSocket.

    Args:
        tunnel: the bytes of its connection.
        server: the library's protocol, which knows what may be sent.
        deflater: compresses messages; None: they are sent as they are.

    Attributes:
        tunnel, server: as given.
    """

    __slots__ = ("_deflater", "server", "tunnel")

    def __init__(self, tunnel: Tunnel, server: ServerProtocol, deflater: Deflater | None) -> None:
        self.tunnel = tunnel
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
            self.tunnel.write(message_frame(payload, is_text))
        else:
            self.tunnel.write(message_frame(deflater.deflate(payload), is_text, COMPRESSED))

    def flush(self) -> None:
        """Write what the library has to send."""
        self.tunnel.write(b"".join(self.server.data_to_send()))  # it marks the end by b""
