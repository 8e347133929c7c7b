"""A WebSocket client that sends any bytes and sees every frame that comes back."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from websockets.frames import Frame, Opcode

from tests.e2e.client import HANDSHAKE, Connection

DEFLATE = ("Sec-WebSocket-Extensions", "permessage-deflate")
TAIL = b"\x00\x00\xff\xff"


class Reply(NamedTuple):
    """A frame of the server: its opcode and its payload, inflated; of a Close code and reason."""

    opcode: int
    payload: bytes | tuple[int, str]


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0) -> bytes:
    """A masked frame; `rsv` are its three reserved bits as a number, 4 the first of them."""
    data = Frame(Opcode.TEXT, payload, fin=fin).serialize(mask=True)
    return bytes([data[0] & 0x80 | rsv << 4 | opcode]) + data[1:]


class RawWebSocket:
    """A WebSocket whose frames the test makes.

    Args:
        port, path: of the server.
        extra: fields of the handshake, as `DEFLATE`.
    """

    def __init__(self, port: int, path: str = "/echo", *extra: tuple[str, str]) -> None:
        self.connection = Connection(port)
        self.connection.ask(path, headers=(*HANDSHAKE, *extra))
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self._receive()
        self.head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        assert self.head.startswith(b"HTTP/1.1 101 "), self.head
        self._inflater = zlib.decompressobj(-15)

    def __enter__(self) -> RawWebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def _receive(self) -> bool:
        data = self.connection.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def send(self, data: bytes, *, by_the_byte: bool = False) -> None:
        """Send bytes, all at once or one after the other; what the server does not take any more is left."""
        try:
            for at in range(0, len(data), 1 if by_the_byte else len(data)):
                self.connection.socket.sendall(data[at : at + 1] if by_the_byte else data)
        except OSError:
            pass  # it has closed: its replies say why

    def reply(self) -> Reply | None:
        """The server's next frame; None: the end.

        Raises:
            TimeoutError: nothing comes.
        """
        while (size := self._size()) is None or len(self.buffer) < size:
            if not self._receive():
                assert not self.buffer, f"cut off: {self.buffer!r}"
                return None
        first, payload = self.buffer[0], self.buffer[2 if size < 128 else 4 : size]
        self.buffer = self.buffer[size:]
        if first & 0x40:
            payload = self._inflater.decompress(payload + TAIL)
        assert first & 0xB0 == 0x80, "whole, and without the reserved bits that nobody has asked for"
        if first & 0x0F != Opcode.CLOSE:
            return Reply(first & 0x0F, payload)
        code = struct.unpack("!H", payload[:2])[0] if payload else 1005
        return Reply(Opcode.CLOSE, (code, payload[2:].decode()))

    def _size(self) -> int | None:
        if len(self.buffer) < 4:
            return 2 if self.buffer[1:2] == b"\0" else 2 + self.buffer[1] if len(self.buffer) > 1 else None
        size = self.buffer[1]
        return 2 + size if size < 126 else 4 + int.from_bytes(self.buffer[2:4])

    def replies(self) -> list[Reply]:
        """All that still comes, to the end of the connection."""
        return list(iter(self.reply, None))
