"""The routes of tests/frameworks in Litestar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from litestar import Litestar, MediaType, Request, WebSocket, get, post, websocket
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, WebSocketDisconnect
from litestar.handlers import BaseRouteHandler
from litestar.response import ServerSentEvent, Stream

events: list[str] = []


@get("/hello", media_type=MediaType.TEXT)
async def hello(name: str) -> str:
    return f"hello {name}"


@post("/form", status_code=200)
async def form(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return dict(await request.form())


@post("/json", status_code=200)
async def json(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return {"got": await request.json()}


@post("/upload", status_code=200, media_type=MediaType.TEXT, request_max_body_size=None)
async def upload(request: Request[Any, Any, Any]) -> str:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return str(size)


@get("/stream")
async def stream() -> Stream:
    async def lines() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"%d\n" % number
            await asyncio.sleep(0.005)

    return Stream(lines(), media_type="text/plain")


@get("/endless")
async def endless() -> Stream:
    async def ticks() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick\n"
                await asyncio.sleep(0.01)
        finally:
            events.append("left")

    return Stream(ticks(), media_type="text/plain")


@get("/events")
async def quiet_events() -> ServerSentEvent:
    async def quiet() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.sleep(3600)
        finally:
            events.append("left the events")

    return ServerSentEvent(quiet())


@get("/told")
async def told() -> list[str]:
    return events


@get("/error")
async def error() -> None:
    raise LookupError("a bug in the app")


@websocket("/echo")
async def echo(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        return


@websocket("/closed")
async def closed(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.close()


async def nobody(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    raise NotAuthorizedException


@websocket("/forbidden", guards=[nobody])
async def forbidden(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()


app = Litestar([hello, form, json, upload, stream, endless, quiet_events, told, error, echo, closed, forbidden])
