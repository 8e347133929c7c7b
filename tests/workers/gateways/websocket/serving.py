"""A client for WebSockets, and an app that sends back what it gets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.workers.gateways.asgi.serving import Receive, Scope, Send, Served


class Echo:
    """Sends back what comes; keeps what it has received."""

    def __init__(self, **accept: Any) -> None:
        self.accept = accept
        self.scopes: list[Scope] = []
        self.events: list[dict[str, Any]] = []
        self.raised: list[BaseException] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket", scope["type"]
        self.scopes.append(scope)
        self.events.append(await receive())
        await send({"type": "websocket.accept", **self.accept})
        try:
            while True:
                event = await receive()
                self.events.append(event)
                if event["type"] == "websocket.disconnect":
                    return
                await send({**event, "type": "websocket.send"})
        except BaseException as exc:
            self.raised.append(exc)
            raise

    @property
    def end(self) -> tuple[int, str]:
        """Code and reason of the last event."""
        return self.events[-1]["code"], self.events[-1]["reason"]


@contextlib.contextmanager
def client(server: Served, path: str = "/", **options: Any) -> Iterator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{server.port}{path}", close_timeout=2, **options) as connection:
        yield connection


def ended(server: Served, app: Echo) -> tuple[int, str]:
    server.until(lambda: bool(app.events) and app.events[-1]["type"] == "websocket.disconnect", "the app is told")
    return app.end
