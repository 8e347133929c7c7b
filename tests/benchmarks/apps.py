"""What is measured: each app as a factory of protocols, and the bare protocol that is the limit of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from preforkd.workers import Response, ServerHttpProtocol
from preforkd.workers.gateways.asgi import AsgiGateway
from preforkd.workers.http.access_log import AccessLog
from tests.benchmarks import asgi_app

BODY_16K = b"x" * 16384
BODY_1M = b"x" * (1 << 20)
PIECE = b"x" * 8192


class Hello(ServerHttpProtocol):
    """The seed's handler with keep-alive."""

    async def handle_request(self, message: Any, payload: Any) -> None:
        self.keep_alive(True)
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Type", "text/html")
        response.add_header("Content-Length", "18")
        response.send_headers()
        response.write(b"<h1>It Works!</h1>")
        await response.write_eof()


class HelloOnce(Hello):
    """One request a connection: nobody asks for more."""

    async def handle_request(self, message: Any, payload: Any) -> None:
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Type", "text/html")
        response.add_header("Content-Length", "18")
        response.send_headers()
        response.write(b"<h1>It Works!</h1>")
        await response.write_eof()


class Sized(ServerHttpProtocol):
    """A body of a known size."""

    body = b""

    async def handle_request(self, message: Any, payload: Any) -> None:
        self.keep_alive(True)
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Type", "application/octet-stream")
        response.add_header("Content-Length", str(len(self.body)))
        response.send_headers()
        response.write(self.body)
        await response.write_eof()


class Sized16K(Sized):
    """16 kB."""

    body = BODY_16K


class Sized1M(Sized):
    """1 MB."""

    body = BODY_1M


class Streamed(ServerHttpProtocol):
    """64 kB in eight chunks, with drain() after each."""

    async def handle_request(self, message: Any, payload: Any) -> None:
        self.keep_alive(True)
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Type", "application/octet-stream")
        response.send_headers()
        for _ in range(8):
            response.write(PIECE)
            await response.drain()
        await response.write_eof()


class Upload(ServerHttpProtocol):
    """Reads a body of 100 kB."""

    async def handle_request(self, message: Any, payload: Any) -> None:
        self.keep_alive(True)
        size = 0
        while part := await payload.readany():
            size += len(part)
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Type", "text/plain")
        text = b"%d" % size
        response.add_header("Content-Length", str(len(text)))
        response.send_headers()
        response.write(text)
        await response.write_eof()


_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n%s: %s\r\nDate: Mon, 23 Nov 2026 02:19:57 GMT\r\n"
    b"Server: preforkd\r\nConnection: %s\r\n\r\n"
)


def fixed(body: bytes, connection: bytes = b"keep-alive") -> bytes:
    """Return the bytes of a complete response."""
    return _HEAD % (b"Content-Length", b"%d" % len(body), connection) + body


class Bare(asyncio.Protocol):
    """The limit: writes fixed bytes for each read, parses nothing."""

    answer = fixed(b"<h1>It Works!</h1>")
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a transport of a stream

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.answer)


class Bare16K(Bare):
    """16 kB."""

    answer = fixed(BODY_16K)


class Bare1M(Bare):
    """1 MB."""

    answer = fixed(BODY_1M)


class BareStreamed(Bare):
    """The same bytes as the streamed response in one piece."""

    answer = _HEAD % (b"Transfer-Encoding", b"chunked", b"keep-alive") + b"2000\r\n%s\r\n" % PIECE * 8 + b"0\r\n\r\n"


class BareUpload(Bare):
    """Counts the bytes of a request and answers when all have come."""

    answer = fixed(b"102400")
    missing = 0

    def data_received(self, data: bytes) -> None:
        if not self.missing:
            self.missing = data.index(b"\r\n\r\n") + 4 + 102400
        self.missing -= len(data)
        if not self.missing:
            self.transport.write(self.answer)


class BareOnce(Bare):
    """Closes after each response."""

    answer = fixed(b"<h1>It Works!</h1>", b"close")

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.answer)
        self.transport.close()


def _logged() -> Callable[[], asyncio.Protocol]:
    log = AccessLog("/dev/null")
    return lambda: Hello(access_log=log)


def _asgi() -> Callable[[], asyncio.Protocol]:
    return AsgiGateway(asgi_app.app).handler


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        limit: the bare protocol that it is compared with.
        make: returns the factory of protocols; called in the server's process.
        target: the ratio to stay below; None: none was set.
        lua: what wrk is told to send, if it is not a plain GET.
    """

    limit: type[asyncio.Protocol]
    make: Callable[[], Callable[[], asyncio.Protocol]]
    target: float | None = None
    lua: str = ""


_UPLOAD = 'wrk.method = "POST"\nwrk.body = string.rep("x", 102400)\n'
POST = 'wrk.method = "POST"\nwrk.body = string.rep("x", 100)\n'
_CLOSE = 'wrk.headers["Connection"] = "close"\n'
_VARIED = """
local n = 0
request = function()
  n = n + 1
  wrk.headers["Cookie"] = "session=" .. n .. "; theme=dark"
  return wrk.format("GET", "/item/" .. n)
end
"""

CASES: dict[str, Case] = {
    "hello": Case(Bare, lambda: Hello, 1.5),
    "hello, access log": Case(Bare, _logged, 1.8),
    "hello, no two heads alike": Case(Bare, lambda: Hello, None, _VARIED),
    "hello, ASGI": Case(Bare, _asgi, 1.8),
    "POST of 100 bytes, ASGI": Case(Bare, _asgi, None, POST),
    "ASGI, a handler that waits": Case(Bare, _asgi, None, 'wrk.path = "/wait"\n'),
    "16 kB": Case(Bare16K, lambda: Sized16K),
    "1 MB": Case(Bare1M, lambda: Sized1M, 1.15),
    "64 kB streamed": Case(BareStreamed, lambda: Streamed),
    "upload of 100 kB": Case(BareUpload, lambda: Upload, None, _UPLOAD),
    "connection per request": Case(BareOnce, lambda: HelloOnce, None, _CLOSE),
}
