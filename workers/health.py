"""Health on the traffic port: one path that the worker answers before the app, for load balancers that ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from preforkd.workers.http.response import Response
from preforkd.workers.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from preforkd.workers.http.exchange import Exchange, Service
    from preforkd.workers.http.protocol import ServerHttpProtocol


@dataclass(slots=True)
class Health:
    """What is said of this worker: whether new requests should come to this daemon."""

    ready: bool = True
    """False from the moment of a stop. A worker that makes room for its successor says ready: the daemon is."""


class HealthPath:
    """A `Service` that answers one path itself and leaves everything else to another one.

    The answer is 200 `ready` or 503 `draining`, without an entry in the access log.

    Args:
        path: of the request target, compared without its query.
        health: what to answer.
        service: the app.
    """

    def __init__(self, path: str, health: Health, service: Service) -> None:
        self._path = path
        self._health = health
        self._serve = service.serve
        self.decodes_bodies = service.decodes_bodies
        self.outlives_cancellation = service.outlives_cancellation
        self.context = service.context

    def serve(self, exchange: Exchange) -> Awaitable[None]:
        """Answer a request."""
        # No coroutine around the app's: that would cost every request 0.1 us.
        if exchange.request.path.partition("?")[0] == self._path:
            return self._answer(exchange)
        return self._serve(exchange)

    async def _answer(self, exchange: Exchange) -> None:
        ready = self._health.ready
        body = b"ready\n" if ready else b"draining\n"
        exchange.keep_alive = ready
        exchange.is_logged = True  # by nobody: an override of log_access() would slow every request down
        response = Response(exchange.wire, 200 if ready else 503, http_version=exchange.request.version)
        response.add_header("Content-Type", "text/plain; charset=utf-8")
        response.add_header("Content-Length", str(len(body)))
        response.add_header("Cache-Control", "no-store")
        response.send_headers()
        response.write(body)
        await response.write_eof()


def with_health_path(
    handler: Callable[..., ServerHttpProtocol], path: str, health: Health
) -> Callable[..., ServerHttpProtocol]:
    """Return what makes connections as `handler` does, on which one path is answered as `HealthPath` does.

    Args:
        handler: makes a connection.
        path, health: as for `HealthPath`.
    """

    def make(**arguments: object) -> ServerHttpProtocol:
        connection = handler(**arguments)
        connection.serve_with(HealthPath(path, health, connection.served_by()))
        return connection

    return make
