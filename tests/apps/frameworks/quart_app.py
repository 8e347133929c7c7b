"""The routes of tests/frameworks in Quart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from quart import Quart, Response, request, websocket

app = Quart(__name__)
app.config["MAX_CONTENT_LENGTH"] = None
events: list[str] = []


@app.get("/hello")
async def hello() -> Response:
    return Response(f"hello {request.args['name']}", content_type="text/plain")


@app.post("/form")
async def form() -> dict[str, Any]:
    return dict(await request.form)


@app.post("/json")
async def json() -> dict[str, Any]:
    return {"got": await request.get_json()}


@app.post("/upload")
async def upload() -> str:
    size = 0
    async for chunk in request.body:
        size += len(chunk)
    return str(size)


@app.get("/stream")
async def stream() -> Response:
    async def lines() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"%d\n" % number
            await asyncio.sleep(0.005)

    return Response(lines(), content_type="text/plain")


@app.get("/endless")
async def endless() -> Response:
    async def ticks() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick\n"
                await asyncio.sleep(0.01)
        finally:
            events.append("left")

    return Response(ticks(), content_type="text/plain")


@app.get("/events")
async def quiet_events() -> Response:
    async def quiet() -> AsyncIterator[bytes]:
        try:
            yield b"data: first\n\n"
            await asyncio.sleep(3600)
        finally:
            events.append("left the events")

    response = Response(quiet(), content_type="text/event-stream")
    response.timeout = None
    return response


@app.get("/told")
async def told() -> list[str]:
    return events


@app.get("/error")
async def error() -> None:
    raise LookupError("a bug in the app")


@app.websocket("/echo")
async def echo() -> None:
    while True:
        await websocket.send(await websocket.receive())
