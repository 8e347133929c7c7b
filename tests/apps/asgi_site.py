"""An ASGI app for the end-to-end tests of drains, reloads and lifespans."""

from __future__ import annotations

import asyncio
import os
from typing import Any

VERSION = "1"


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    print(f"starting {VERSION}", flush=True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print(f"stopping {VERSION}", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    if scope["path"] == "/never-accepts":
        print(f"websocket {(await receive())['code']} before it was accepted", flush=True)
        return
    if scope["path"] == "/listens-to-nobody":
        await asyncio.sleep(60)
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": f"{VERSION} {message['text']}"})
    print(f"websocket {message['code']}", flush=True)


async def ticks(scope: Any, receive: Any, send: Any) -> None:
    """Stream until told to end, by `http.disconnect` or by the draining event, and then end in order."""
    await receive()
    draining = scope["preforkd.draining"]
    by_event = scope["path"] == "/ticks-by-event"

    async def told() -> None:
        if by_event:
            await draining
        else:
            await receive()

    ending = asyncio.ensure_future(told())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    while not ending.done():
        await send({"type": "http.response.body", "body": b"tick\n", "more_body": True})
        await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": b"end in order\n"})


async def answer(send: Any, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await echo(scope, receive, send)
    elif scope["path"].startswith("/ticks"):
        await ticks(scope, receive, send)
    else:
        if scope["path"] == "/slow":
            await asyncio.sleep(1.0)
        await answer(send, f"{VERSION} {os.getpid()}".encode())
        if scope["path"] == "/background":
            await asyncio.sleep(1.0)
            print("background work is done", flush=True)
