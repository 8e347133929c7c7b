"""The limit: a bare uvloop protocol that writes fixed bytes and parses nothing.

`python -m tests.benchmarks.apps.bare NAME PORT [CERTIFICATE KEY]` serves until it is killed, with uvloop's TLS if it
gets a certificate.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import cast

import uvloop

from tests.benchmarks.apps.bodies import HELLO, LARGE, PIECE, PIECES, UPLOAD

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n%s: %s\r\nDate: Mon, 23 Nov 2026 02:19:57 GMT\r\n"
    b"Server: preforkd\r\nConnection: %s\r\n\r\n"
)


def fixed(body: bytes, connection: bytes = b"keep-alive") -> bytes:
    """Return the bytes of a complete response."""
    return _HEAD % (b"Content-Length", b"%d" % len(body), connection) + body


class Hello(asyncio.Protocol):
    """Answers each read."""

    answer = fixed(HELLO)
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.answer)


class Large(Hello):
    """1 MB."""

    answer = fixed(LARGE)


class Stream(Hello):
    """The same bytes as the streamed response, in one piece."""

    answer = (
        _HEAD % (b"Transfer-Encoding", b"chunked", b"keep-alive") + b"2000\r\n%s\r\n" % PIECE * PIECES + b"0\r\n\r\n"
    )


class Upload(Hello):
    """Counts the bytes of a request and answers when all have come."""

    answer = fixed(b"%d" % UPLOAD)
    missing = 0

    def data_received(self, data: bytes) -> None:
        if not self.missing:
            self.missing = data.index(b"\r\n\r\n") + 4 + UPLOAD
        self.missing -= len(data)
        if not self.missing:
            self.transport.write(self.answer)


class Once(Hello):
    """Closes behind each response."""

    answer = fixed(HELLO, b"close")

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.answer)
        self.transport.close()


LIMITS: dict[str, type[asyncio.Protocol]] = {"large": Large, "stream": Stream, "upload": Upload, "once": Once}


async def main(name: str, port: int, *pair: str) -> None:
    """Serve until killed."""
    factory = LIMITS.get(name, Hello)
    context = None
    if pair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", port, backlog=1024, ssl=context)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
