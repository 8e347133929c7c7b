"""Streams that are told of nothing but in the way that their path says; `/live` says how many of them there are."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]
TEXT = [(b"content-type", b"text/plain")]
live: dict[str, int] = {}


async def part(send: Any, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def listens(scope: Any, receive: Any, send: Any) -> None:
    """Quiet: waits for `http.disconnect`, and does not end its response."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def cancels(scope: Any, receive: Any, send: Any) -> None:
    """As `listens`, and cancels what it streams with, and so itself."""
    waiting = asyncio.ensure_future(asyncio.sleep(3600))
    listening = asyncio.ensure_future(listens(scope, receive, send))
    listening.add_done_callback(lambda _: waiting.cancel())
    await waiting


async def quits(scope: Any, receive: Any, send: Any) -> None:
    """As `cancels`, but its listener cancels the task of the request."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.ensure_future(listens(scope, receive, send)).add_done_callback(lambda _: task.cancel())
    await asyncio.sleep(3600)


async def closes(scope: Any, receive: Any, send: Any) -> None:
    """As `listens`, and then sends an empty last part, as middleware does."""
    await listens(scope, receive, send)
    await send({"type": "http.response.body", "body": b""})


async def sends(scope: Any, receive: Any, send: Any) -> None:
    """Waits for an `OSError` of `send()`, and lets it out."""
    while True:
        await part(send, b"data: tick\n\n")
        await asyncio.sleep(0.02)


async def knows(scope: Any, receive: Any, send: Any) -> None:
    """Asks for the drain itself, and has last words; its listener would take them from it."""
    listening = asyncio.ensure_future(listens(scope, receive, send))
    draining = asyncio.ensure_future(scope["preforkd.draining"].wait())
    await asyncio.wait([listening, draining], return_when=asyncio.FIRST_COMPLETED)
    if not listening.done():
        await part(send, b"data: bye\n\n")
        listening.cancel()


async def deaf(scope: Any, receive: Any, send: Any) -> None:
    """Quiet, and listens to nobody."""
    await asyncio.sleep(3600)


WAYS = {
    "listens": listens,
    "cancels": cancels,
    "quits": quits,
    "closes": closes,
    "sends": sends,
    "knows": knows,
    "deaf": deaf,
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await asyncio.sleep(3600)
        finally:
            print("the WebSocket has ended", flush=True)
    assert scope["type"] == "http", "there is no lifespan"
    _, kind, *way = scope["path"].split("/")
    headers = EVENTS if kind == "events" else TEXT
    if kind == "length":
        headers = [*EVENTS, (b"content-length", b"1000")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if kind in ("live", "extensions"):
        said = {"live": sum(live.values()), "pid": os.getpid()} if kind == "live" else scope["extensions"]
        await send({"type": "http.response.body", "body": json.dumps(said).encode()})
        return
    live[way[0]] = live.get(way[0], 0) + 1
    try:
        await part(send, b"data: first\n\n")
        await WAYS[way[0]](scope, receive, send)
    finally:
        live[way[0]] -= 1
        print(f"{way[0]} has ended", flush=True)
