"""The routes of tests/frameworks in FastAPI, with its own dependencies, models and background tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import (
    BackgroundTasks,
    Depends,
    FastAPI,
    Form,
    HTTPException,
    Request,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
)
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel

events: list[str] = []


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    yield {"started": "yes"}
    print("shut down", flush=True)


app = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    name: str
    price: float


async def opened() -> AsyncIterator[str]:
    yield "open"
    events.append("dependency closed")


@app.get("/hello")
def hello(name: str) -> PlainTextResponse:  # a plain function: FastAPI runs it in a thread
    return PlainTextResponse(f"hello {name}")


@app.post("/form")
async def form(name: Annotated[str, Form()], size: Annotated[str, Form()]) -> dict[str, str]:
    return {"name": name, "size": size}


@app.post("/json")
async def json(item: Item, request: Request, dependency: Annotated[str, Depends(opened)]) -> dict[str, Any]:
    return {"got": item.model_dump(), "started": request.state.started}


@app.post("/upload")
async def upload(request: Request) -> PlainTextResponse:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return PlainTextResponse(str(size))


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def lines() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"%d\n" % number
            await asyncio.sleep(0.005)

    return StreamingResponse(lines(), media_type="text/plain")


@app.get("/endless")
async def endless() -> StreamingResponse:
    async def ticks() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick\n"
                await asyncio.sleep(0.01)
        finally:
            events.append("left")

    return StreamingResponse(ticks(), media_type="text/plain")


@app.get("/events")
async def quiet_events() -> StreamingResponse:
    async def quiet() -> AsyncIterator[bytes]:
        try:
            yield b"data: first\n\n"
            await asyncio.sleep(3600)
        finally:
            events.append("left the events")

    return StreamingResponse(quiet(), media_type="text/event-stream")


@app.get("/error")
async def error() -> None:
    raise LookupError("a bug in the app")


@app.get("/background")
async def background(tasks: BackgroundTasks) -> PlainTextResponse:
    async def work() -> None:
        await asyncio.sleep(0.5)
        events.append("worked")

    tasks.add_task(work)
    return PlainTextResponse("answered")


@app.get("/told")
async def told() -> list[str]:
    return events


@app.websocket("/closed")
async def closed(websocket: WebSocket) -> None:
    await websocket.close()


def somebody() -> str:
    raise HTTPException(401)


@app.websocket("/forbidden")
async def forbidden(websocket: WebSocket, user: Annotated[str, Depends(somebody)]) -> None:
    await websocket.accept()


def a_policy() -> str:
    raise WebSocketException(1008)


@app.websocket("/violating")
async def violating(websocket: WebSocket, user: Annotated[str, Depends(a_policy)]) -> None:
    await websocket.accept()


@app.websocket("/denied")
async def denied(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("not now", 429))


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text(await websocket.receive_text())
