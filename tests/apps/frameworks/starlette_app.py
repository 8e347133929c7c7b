"""The routes of tests/frameworks in Starlette, and what only Starlette has."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

events: list[str] = []
FILE = Path(tempfile.gettempdir()) / f"starlette-file-{id(events)}"


async def hello(request: Request) -> Response:
    return PlainTextResponse(f"hello {request.query_params['name']}")


async def form(request: Request) -> Response:
    async with request.form() as fields:
        return JSONResponse(dict(fields))


async def json(request: Request) -> Response:
    return JSONResponse({"got": await request.json(), "started": request.state.started})


async def upload(request: Request) -> Response:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return PlainTextResponse(str(size))


async def stream(request: Request) -> Response:
    async def lines() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"%d\n" % number
            await asyncio.sleep(0.005)

    return StreamingResponse(lines(), media_type="text/plain")


async def error(request: Request) -> Response:
    raise LookupError("a bug in the app")


async def endless(request: Request) -> Response:
    async def ticks() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick\n"
                await asyncio.sleep(0.01)
        finally:
            events.append("left")

    return StreamingResponse(ticks(), media_type="text/plain")


async def quiet_events(request: Request) -> Response:
    async def quiet() -> AsyncIterator[bytes]:
        try:
            yield b"data: first\n\n"
            await asyncio.sleep(3600)
        finally:
            events.append("left the events")

    return StreamingResponse(quiet(), media_type="text/event-stream")


async def waits(request: Request) -> Response:
    events.append("waiting")
    while not await request.is_disconnected():  # noqa: ASYNC110 -- how Starlette has it done
        await asyncio.sleep(0.01)
    events.append("left while the app worked")
    return PlainTextResponse("nobody reads this")


async def told(request: Request) -> Response:
    return JSONResponse(events)


async def file(request: Request) -> Response:
    FILE.write_bytes(b"0123456789" * 100_000)
    return FileResponse(FILE)


async def background(request: Request) -> Response:
    async def work() -> None:
        await asyncio.sleep(0.5)
        events.append("worked")

    return PlainTextResponse("answered", background=BackgroundTask(work))


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect as exc:
        events.append(f"websocket {exc.code}")


async def closed(websocket: WebSocket) -> None:
    await websocket.close()


async def forbidden(websocket: WebSocket) -> None:
    raise HTTPException(401)


async def denied(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("not now", 429))


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
    yield {"started": "yes"}
    FILE.unlink(missing_ok=True)
    print("shut down", flush=True)


app = Starlette(
    routes=[
        Route("/hello", hello),
        Route("/form", form, methods=["POST"]),
        Route("/json", json, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/stream", stream),
        Route("/error", error),
        Route("/endless", endless),
        Route("/waits", waits),
        Route("/events", quiet_events),
        Route("/told", told),
        Route("/file", file),
        Route("/background", background),
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/closed", closed),
        WebSocketRoute("/forbidden", forbidden),
        WebSocketRoute("/denied", denied),
    ],
    lifespan=lifespan,
)
