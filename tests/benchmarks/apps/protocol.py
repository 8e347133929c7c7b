"""The apps as the seed's class: a handler for each kind of request."""

from __future__ import annotations

import asyncio

from preforkd.workers import PayloadStream, RequestMessage, Response, ServerHttpProtocol
from tests.benchmarks.apps.bodies import HELLO, LARGE, PIECE, PIECES


class Hello(ServerHttpProtocol):
    """A few bytes of a known length."""

    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:
        await self.answer(message, HELLO)

    async def answer(self, message: RequestMessage, body: bytes) -> None:
        """Send a body of a known length."""
        self.keep_alive(True)
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Type", "text/html")
        response.add_header("Content-Length", str(len(body)))
        response.send_headers()
        response.write(body)
        await response.write_eof()


class Post(Hello):
    """Reads the body at once."""

    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:
        await payload.read()
        await self.answer(message, HELLO)


class Wait(Hello):
    """Lets the loop turn once before it answers."""

    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:
        await asyncio.sleep(0)
        await self.answer(message, HELLO)


class Large(Hello):
    """1 MB."""

    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:
        await self.answer(message, LARGE)


class Stream(ServerHttpProtocol):
    """64 kB in eight parts of an unknown length in all."""

    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:
        self.keep_alive(True)
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Type", "application/octet-stream")
        response.send_headers()
        for _ in range(PIECES):
            response.write(PIECE)
            await response.drain()
        await response.write_eof()


class Upload(Hello):
    """Counts the bytes of a body, part by part."""

    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:
        size = 0
        while part := await payload.readany():
            size += len(part)
        await self.answer(message, b"%d" % size)
