"""An ASGI app with all that a proxy may break: who the client is, an event stream, a WebSocket, an upload."""

from __future__ import annotations

import asyncio
import json
from typing import Any

go = asyncio.Event()


async def body(receive: Any) -> int:
    size = 0
    while True:
        message = await receive()
        size += len(message["body"])
        if not message["more_body"]:
            return size


async def echo(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    if scope["type"] == "websocket":
        await echo(receive, send)
        return
    events = scope["path"] == "/events"
    kind = b"text/event-stream" if events else b"application/json"
    if scope["path"] == "/go":
        go.set()
    size = 0 if events else await body(receive)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    if events:
        await send({"type": "http.response.body", "body": b"data: first\n\n", "more_body": True})
        await go.wait()
        await send({"type": "http.response.body", "body": b"data: second\n\n"})
        return
    said = {"client": scope["client"][0], "scheme": scope["scheme"], "size": size, "root": scope["root_path"]}
    said["headers"] = {name.decode(): value.decode() for name, value in scope["headers"]}
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})
