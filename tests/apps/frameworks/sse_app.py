"""Event streams of sse-starlette and of FastAPI itself, alone and through Starlette's `BaseHTTPMiddleware`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse as FastapiEvents
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

events: list[str] = []


async def quiet() -> AsyncIterator[dict[str, str]]:
    try:
        yield {"data": "first"}
        await asyncio.sleep(3600)
    finally:
        events.append("left the events")


async def text() -> AsyncIterator[str]:
    async for event in quiet():
        yield json.dumps(event)


async def sse(request: Request) -> Response:
    return EventSourceResponse(quiet())


async def plain(request: Request) -> Response:
    return StreamingResponse(text())


async def told(request: Request) -> Response:
    return JSONResponse(events)


def memory() -> int:
    """Resident, in kilobytes."""
    return 4 * int(Path("/proc/self/statm").read_text().split()[1])


async def load(request: Request) -> Response:
    return JSONResponse({"tasks": len(asyncio.all_tasks()), "kilobytes": memory()})


class Through(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


fastapi = FastAPI()


@fastapi.get("/events", response_class=FastapiEvents)
async def fastapi_events() -> AsyncIterator[dict[str, Any]]:
    async for event in quiet():
        yield event


routes = [Route("/sse", sse), Route("/plain", plain)]
through = Starlette(routes=routes, middleware=[Middleware(Through)])
app = Starlette(
    routes=[
        *routes,
        Route("/told", told),
        Route("/load", load),
        Mount("/through", through),
        Mount("/fastapi", fastapi),
    ]
)
