"""The routes of tests/frameworks in Falcon over ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import falcon
import falcon.asgi

events: list[str] = []


class Hello:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.content_type = falcon.MEDIA_TEXT
        resp.text = f"hello {req.get_param('name')}"


class Form:
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = await req.get_media()


class Json:
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = {"got": await req.get_media()}


class Upload:
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        size = 0
        async for chunk in req.stream:
            size += len(chunk)
        resp.text = str(size)


class Stream:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        async def lines() -> AsyncIterator[bytes]:
            for number in range(5):
                yield b"%d\n" % number
                await asyncio.sleep(0.005)

        resp.content_type = falcon.MEDIA_TEXT
        resp.stream = lines()


class Endless:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        async def ticks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"tick\n"
                    await asyncio.sleep(0.01)
            finally:
                events.append("left")

        resp.content_type = falcon.MEDIA_TEXT
        resp.stream = ticks()


class Told:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = events


class Error:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        raise LookupError("a bug in the app")


class Events:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        async def ticks() -> AsyncIterator[falcon.asgi.SSEvent]:
            try:
                while True:  # Falcon looks whether its client is there behind each event
                    yield falcon.asgi.SSEvent(text="first")
                    await asyncio.sleep(0.02)
            finally:
                events.append("left the events")

        resp.sse = ticks()


class Echo:
    async def on_websocket(self, req: falcon.asgi.Request, ws: falcon.asgi.WebSocket) -> None:
        await ws.accept()
        try:
            while True:
                await ws.send_text(await ws.receive_text())
        except falcon.WebSocketDisconnected:
            events.append("websocket")


class Closed:
    async def on_websocket(self, req: falcon.asgi.Request, ws: falcon.asgi.WebSocket) -> None:
        await ws.close()


class Forbidden:
    async def on_websocket(self, req: falcon.asgi.Request, ws: falcon.asgi.WebSocket) -> None:
        raise falcon.HTTPUnauthorized


app = falcon.asgi.App()
for path, resource in {
    "/hello": Hello(), "/form": Form(), "/json": Json(), "/upload": Upload(), "/stream": Stream(),
    "/endless": Endless(), "/events": Events(), "/told": Told(), "/error": Error(), "/echo": Echo(),
    "/closed": Closed(), "/forbidden": Forbidden(),
}.items():  # fmt: skip
    app.add_route(path, resource)
