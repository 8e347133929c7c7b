"""The ASGI app that the servers are compared with: hello, with a body or a wait before it, and echo over WebSocket."""

from __future__ import annotations

import asyncio
from typing import Any

BODY = b"<h1>It Works!</h1>"
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/html"), (b"content-length", str(len(BODY)).encode())],
}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Hello, or echo."""
    if scope["type"] == "http":
        if scope["method"] == "POST":
            while (await receive())["more_body"]:
                pass
        if scope["path"] == "/wait":
            await asyncio.sleep(0)
        await send(START)
        await send({"type": "http.response.body", "body": BODY})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text") is not None:
                await send({"type": "websocket.send", "text": message["text"]})
            else:
                await send({"type": "websocket.send", "bytes": message["bytes"]})
    else:
        raise RuntimeError("no lifespan here")
