"""An ASGI app for the tests of the logs: it sets a time zone, as Django does, and fails in every way that is logged."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

os.environ["TZ"] = "America/Chicago"
time.tzset()


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """`/NAME/ARGUMENT` is what `on_NAME` does."""
    if scope["type"] != "http":
        raise ValueError("no lifespan, no WebSocket")
    name, _, argument = scope["path"].strip("/").partition("/")
    await globals()[f"on_{name or 'who'}"](receive, send, argument)


async def answer(send: Send, status: int = 200, body: bytes = b"ok\n") -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def on_who(receive: Receive, send: Send, argument: str) -> None:
    await answer(send)


async def on_slow(receive: Receive, send: Send, seconds: str) -> None:
    await asyncio.sleep(float(seconds))
    await answer(send)


async def on_deaf(receive: Receive, send: Send, argument: str) -> None:
    """Streams, then waits for something else than its client, for longer than any test."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first\n", "more_body": True})
    await asyncio.sleep(3600)


async def on_chunks(receive: Receive, send: Send, argument: str) -> None:
    """`COUNT/SECONDS`: so many chunks, one every so many seconds."""
    count, _, seconds = argument.partition("/")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(int(count)):
        await send({"type": "http.response.body", "body": b"%d\n" % number, "more_body": True})
        await asyncio.sleep(float(seconds))
    await send({"type": "http.response.body", "body": b""})


async def on_large(receive: Receive, send: Send, size: str) -> None:
    await answer(send, body=b"x" * int(size))


async def on_boom(receive: Receive, send: Send, argument: str) -> None:
    """As behind an exception handler of Starlette: answered, then raised for the server to log."""
    await asyncio.sleep(0)
    await answer(send, 500)
    raise RuntimeError("boom")
