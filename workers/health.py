"""Health on the traffic port: one path that the worker answers before the app, for load balancers that ask."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from preforkd.workers.http.message import RequestMessage
from preforkd.workers.http.payload import PayloadStream
from preforkd.workers.http.protocol import ServerHttpProtocol
from preforkd.workers.http.response import Response
from preforkd.workers.records import dataclass


@dataclass(slots=True)
class Health:
    """What is said of this worker: whether new requests should come to this daemon."""

    ready: bool = True
    """False from the moment of a stop. A worker that makes room for its successor says ready: the daemon is."""


def with_health_path(handler: type[ServerHttpProtocol], path: str, health: Health) -> type[ServerHttpProtocol]:
    """Return a handler that answers `path` itself and leaves everything else to `handler`.

    The answer is 200 `ready` or 503 `draining`, without an entry in the access log.

    Args:
        handler: the app.
        path: of the request target, compared without its query.
        health: what to answer.
    """

    class Handler(handler):  # type: ignore[misc, valid-type]  # a class made from a value is beyond mypy
        def handle_request(self, message: RequestMessage, payload: PayloadStream) -> Coroutine[Any, Any, None]:
            # No coroutine of its own around the app's: that would cost every request 0.1 us.
            if message.path.partition("?")[0] == path:
                return answer(self, message)
            request: Coroutine[Any, Any, None] = super().handle_request(message, payload)
            return request

    async def answer(protocol: ServerHttpProtocol, message: RequestMessage) -> None:
        body = b"ready\n" if health.ready else b"draining\n"
        protocol.keep_alive(health.ready)
        protocol.access_was_logged = True  # by nobody: an override of log_access() would slow every request down
        response = Response(protocol.writer, 200 if health.ready else 503, http_version=message.version)
        response.add_header("Content-Type", "text/plain; charset=utf-8")
        response.add_header("Content-Length", str(len(body)))
        response.add_header("Cache-Control", "no-store")
        response.send_headers()
        response.write(body)
        await response.write_eof()

    Handler.__name__ = handler.__name__
    Handler.__qualname__ = handler.__qualname__
    return Handler
