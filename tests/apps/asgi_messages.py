"""An ASGI app that uses every message and extension, for the end-to-end tests: a path for each."""

from __future__ import annotations

import asyncio
import os
from typing import Any

LINKS = [b"</style.css>; rel=preload; as=style"]


def start(status: int = 200, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")], **more}


def body(data: bytes, more_body: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more_body}


MESSAGES: dict[str, list[dict[str, Any]]] = {
    "/trailers": [
        start(trailers=True),
        body(b"summed", more_body=True),
        body(b" up"),
        {"type": "http.response.trailers", "headers": [(b"x-sum", b"42")]},
    ],
    "/hint": [{"type": "http.response.early_hint", "links": LINKS}, start(), body(b"hinted")],
    "/file": [start(), {"type": "http.response.pathsend", "path": __file__}],
    "/descriptor": [start(), {"type": "http.response.pathsend", "path": 0}],
    "/text": [start(), body("text")],  # type: ignore[arg-type]  # an app's mistake
    "/exit-in-the-background": [start(), body(b"answered")],
    "/pid": [start(), body(b"%d" % os.getpid())],
    "/denied": [
        {"type": "websocket.http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Basic")]},
        {"type": "websocket.http.response.body", "body": b"who ", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"are you?"},
    ],
    "/closed": [{"type": "websocket.close"}],
}


keep: list[asyncio.Task[None]] = []


def leave() -> None:
    raise SystemExit(3)


async def leave_later() -> None:
    leave()


async def echo(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    print(f"websocket {message['code']} {message['reason']}", flush=True)


async def keys(receive: Any, send: Any) -> None:
    """Say what each message has in it."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": " ".join(sorted(message))})


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
    if scope["path"] == "/echo":
        await echo(receive, send)
        return
    if scope["path"] == "/keys":
        await keys(receive, send)
        return
    if scope["path"] == "/exit":
        leave()
    if scope["path"] == "/exit-in-a-task":
        await asyncio.create_task(leave_later())
    if scope["path"] == "/exit-in-the-background":
        keep.append(asyncio.create_task(leave_later()))
    for message in MESSAGES[scope["path"]]:
        await send(message)
