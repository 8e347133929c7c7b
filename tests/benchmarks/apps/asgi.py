"""The apps as ASGI 3, and echo over WebSocket."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.benchmarks.apps.bodies import HELLO, LARGE, PIECE, PIECES


def start(length: int | None) -> dict[str, Any]:
    """Return the message that starts a response; None: of an unknown length."""
    fields = [(b"content-type", b"text/html")]
    if length is not None:
        fields.append((b"content-length", b"%d" % length))
    return {"type": "http.response.start", "status": 200, "headers": fields}


async def hello(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A few bytes of a known length."""
    refuse_lifespan(scope)
    await send(start(len(HELLO)))
    await send({"type": "http.response.body", "body": HELLO})


async def post(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Reads the body, then answers."""
    refuse_lifespan(scope)
    while (await receive()).get("more_body"):
        pass
    await send(start(len(HELLO)))
    await send({"type": "http.response.body", "body": HELLO})


async def wait(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Lets the loop turn once before it answers."""
    refuse_lifespan(scope)
    await asyncio.sleep(0)
    await send(start(len(HELLO)))
    await send({"type": "http.response.body", "body": HELLO})


async def large(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """1 MB."""
    refuse_lifespan(scope)
    await send(start(len(LARGE)))
    await send({"type": "http.response.body", "body": LARGE})


async def stream(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """64 kB in eight parts of an unknown length in all."""
    refuse_lifespan(scope)
    await send(start(None))
    for _ in range(PIECES):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def upload(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Counts the bytes of a body, part by part."""
    refuse_lifespan(scope)
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    text = b"%d" % size
    await send(start(len(text)))
    await send({"type": "http.response.body", "body": text})


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Sends each message back."""
    refuse_lifespan(scope)
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def refuse_lifespan(scope: dict[str, Any]) -> None:
    """Have a server serve an app without a lifespan."""
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
