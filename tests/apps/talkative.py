"""An ASGI and a WSGI app that wait, block, print and log; for the tests of the logs."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from typing import Any

LOGGER = logging.getLogger("shop")
print("imported")
sys.stderr.write("half a ")
sys.stderr.write("line\nanother\n")


async def deep(seconds: float) -> None:
    await asyncio.sleep(seconds)


class Through:
    """What frameworks do: an awaitable of their own, a generator, a task."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __await__(self) -> Generator[Any, None, None]:
        return (yield from deep(self.seconds).__await__())


async def parts(seconds: float) -> AsyncIterator[bytes]:
    await Through(seconds)
    yield b"x"


async def view(seconds: float) -> None:
    async for _ in parts(seconds):
        pass


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError("none")
    path = scope["path"]
    if path.startswith("/slow"):
        await asyncio.create_task(view(3))
    if path.startswith("/block"):
        time.sleep(2.5)  # noqa: ASYNC251 - to block is what it is for
    if path.startswith("/print"):
        print(f"printed {path}")
    if path.startswith("/log"):
        LOGGER.warning("logged %s", path)
    if path.startswith("/boom"):
        raise ValueError("boom")
    await send({"type": "http.response.start", "status": 404 if path == "/none" else 200, "headers": []})
    await send({"type": "http.response.body", "body": b"yes"})


def think(seconds: float) -> None:
    time.sleep(seconds)


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/slow":
        think(3)
    start_response("200 OK", [])
    return [b"yes"]
