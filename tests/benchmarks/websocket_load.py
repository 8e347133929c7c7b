"""Load for WebSocket echo: `python -m tests.benchmarks.websocket_load PORT SECONDS CONNECTIONS`; prints a count."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop
from websockets.frames import Frame, Opcode

TEXT = b"a message of a chat, not long, not short"
FRAME = Frame(Opcode.TEXT, TEXT).serialize(mask=True)
ECHO = len(Frame(Opcode.TEXT, TEXT).serialize(mask=False))
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Client(asyncio.Protocol):
    """Sends a message when the one before has come back; parses nothing but the length."""

    count = 0

    def __init__(self) -> None:
        self._head = b""
        self._open = False
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(HANDSHAKE)

    def data_received(self, data: bytes) -> None:
        if not self._open:
            self._head += data
            if b"\r\n\r\n" not in self._head:
                return
            if b" 101 " not in self._head:
                raise SystemExit(f"no WebSocket: {self._head!r}")
            self._open = True
        else:
            self._missing -= len(data)
            if self._missing > 0:
                return
            Client.count += 1
        self._missing = ECHO
        self._transport.write(FRAME)


async def main(port: int, seconds: float, connections: int) -> None:
    """Connect, and count what comes back."""
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(Client, "127.0.0.1", port)
    await asyncio.sleep(seconds)
    print(Client.count)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
