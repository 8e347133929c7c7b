"""An app with a path for each behaviour that the end-to-end tests need; answers name their version and process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

from preforkd.workers import HttpProcessingError, PayloadStream, RequestMessage, Response, ServerHttpProtocol

VERSION = "1"


class Site(ServerHttpProtocol):
    """`/NAME/ARGUMENT` calls the method `on_NAME(payload, ARGUMENT)`."""

    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:
        name, _, argument = message.path.partition("?")[0].strip("/").partition("/")
        method = getattr(self, f"on_{name or 'who'}", None)
        if method is None:
            raise HttpProcessingError(404)
        self.keep_alive(name != "close")
        self.asked = message
        await method(payload, argument)

    async def answer(self, text: str) -> None:
        response = Response(self.writer, 200, http_version=self.asked.version)
        response.add_header("Content-Type", "text/plain")
        response.add_header("Content-Length", str(len(text)))
        response.send_headers()
        response.write(text.encode())
        await response.write_eof()

    async def on_who(self, payload: PayloadStream, argument: str) -> None:
        """Who answers."""
        await self.answer(f"{VERSION} {os.getpid()}")

    async def on_close(self, payload: PayloadStream, argument: str) -> None:
        """The same, without asking for keep-alive: the seed's default is to close."""
        await self.answer(f"{VERSION} {os.getpid()}")

    async def on_slow(self, payload: PayloadStream, seconds: str) -> None:
        """The same, later."""
        await asyncio.sleep(float(seconds))
        await self.answer(f"{VERSION} {os.getpid()}")

    async def on_until(self, payload: PayloadStream, path: str) -> None:
        """The same, when a file of that absolute path is there."""
        while not Path("/", path).exists():  # noqa: ASYNC110, ASYNC240 - the file is another process's; a look takes microseconds
            await asyncio.sleep(0.01)
        await self.answer(f"{VERSION} {os.getpid()}")

    async def on_block(self, payload: PayloadStream, seconds: str) -> None:
        """The same, later, and nothing else in this worker meanwhile."""
        time.sleep(float(seconds))  # noqa: ASYNC251 - blocking the loop is what this is for
        await self.answer(f"{VERSION} {os.getpid()}")

    async def on_upload(self, payload: PayloadStream, argument: str) -> None:
        """How many bytes came."""
        size = 0
        async for chunk in payload:
            size += len(chunk)
        await self.answer(f"{VERSION} {os.getpid()} {size}")

    async def on_chunks(self, payload: PayloadStream, argument: str) -> None:
        """`COUNT/SECONDS`: who answers, then so many chunks, one every so many seconds."""
        count, _, seconds = argument.partition("/")
        response = Response(self.writer, 200, http_version=self.asked.version)
        response.send_headers()
        response.write(f"{VERSION} {os.getpid()}\n".encode())
        for number in range(int(count)):
            await asyncio.sleep(float(seconds))
            response.write(f"{number}\n".encode())
            await response.drain()
        await response.write_eof()

    async def on_large(self, payload: PayloadStream, size: str) -> None:
        """So many bytes."""
        await self.answer("x" * int(size))

    async def on_fail(self, payload: PayloadStream, argument: str) -> None:
        """A bug in the app."""
        raise RuntimeError("a bug in the app")

    async def on_kill(self, payload: PayloadStream, argument: str) -> None:
        """The worker is killed in the middle of the request."""
        os.kill(os.getpid(), signal.SIGKILL)

    async def on_exit(self, payload: PayloadStream, code: str) -> None:
        """The app ends the process in the middle of the request."""
        os._exit(int(code))

    async def on_orphans(self, payload: PayloadStream, count: str) -> None:
        """So many processes that nobody waits for, with an exit code that means nothing to the daemon."""
        orphan = "(sleep 0.2; exit 3) &"
        shell = await asyncio.create_subprocess_exec("sh", "-c", orphan * int(count))
        await shell.wait()
        await self.answer(f"{VERSION} {os.getpid()}")

    async def on_environment(self, payload: PayloadStream, argument: str) -> None:
        """What a worker sees."""
        await self.answer(json.dumps(dict(os.environ)))
