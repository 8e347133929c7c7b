"""ASGI 3 apps: `AsgiGateway` is the app in one worker, and the service of all its exchanges.

The app runs in the connection's own task: a request that is answered at once costs no task and no turn of the loop.
When the app has waited for something, or goes on after its response (a background task), the connection lets that task
go and takes another for the next request.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from preforkd.workers.gateways.asgi.draining import DrainingEvent
from preforkd.workers.gateways.asgi.failures import error_of
from preforkd.workers.gateways.asgi.http_call import COMPLETE, HttpCall
from preforkd.workers.gateways.asgi.lifespan import Lifespan
from preforkd.workers.gateways.asgi.options import AsgiOptions
from preforkd.workers.gateways.asgi.outcome import app_has_failed, conclude
from preforkd.workers.gateways.asgi.scope import Templates, server_of
from preforkd.workers.gateways.hop_by_hop import HopByHopFields
from preforkd.workers.gateways.streams import StreamDrain
from preforkd.workers.gateways.websocket.handshake import serve_websocket, wants_websocket
from preforkd.workers.http.connections import connections_of
from preforkd.workers.http.errors import ClientDisconnectedError
from preforkd.workers.http.exchange import ANSWERED
from preforkd.workers.http.payload import EMPTY_PAYLOAD
from preforkd.workers.http.protocol import connections_for

if TYPE_CHECKING:
    from preforkd.workers.gateways.asgi.scope import Address, AsgiApp
    from preforkd.workers.gateways.websocket.session import WebSocket
    from preforkd.workers.http.exchange import Carrier, Exchange

LOGGER = logging.getLogger("preforkd.asgi")
TEMPLATES_MAX = 64
"""Addresses of ours whose connections share their templates: a socket bound to all addresses may have many."""


class AsgiGateway:
    """An ASGI app in one worker; without the daemon too: `loop.create_server(AsgiGateway(app).handler, host, port)`.

    Args:
        app: the application.
        options: see `AsgiOptions`.
        logger: where the app's errors are reported.

    Attributes:
        app, options: as given.
        handler: makes a connection that it serves; takes the arguments of `ServerHttpProtocol`.
        draining: the event `scope["preforkd.draining"]`.
        streams: which of its streams have been told that the worker leaves.
        lifespan: its startup and shutdown.
        hop_by_hop: what is done with fields of its responses that are the server's.
        websockets: from their handshake on until their connection is closed.
        context: what the contexts of requests are copies of.
    """

    decodes_bodies = False  # an ASGI app gets the bytes of the wire
    outlives_cancellation = True  # of a request that has cancelled its own task and has ended

    def __init__(self, app: AsgiApp, options: AsgiOptions | None = None, logger: logging.Logger = LOGGER) -> None:
        self.app = app
        self.options = options or AsgiOptions()
        self.logger = logger
        self.lifespan = Lifespan(app, logger)
        self.hop_by_hop = HopByHopFields(logger)
        self.draining = DrainingEvent()
        self.websockets: set[WebSocket] = set()
        self.drained_by: float | None = None
        self.streams = StreamDrain(self.options.drain_streams, self._tell_streams)
        # What the gateway's own code sets in context variables would be seen by all requests: there is none of it.
        self.context: contextvars.Context | None = contextvars.Context()
        self.handler = connections_for(self)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._templates: dict[tuple[object, ...], Templates] = {}

    async def startup(self) -> None:
        """Start the app.

        Raises:
            StartupError: its lifespan has failed.
        """
        self.context = contextvars.copy_context()
        await self.lifespan.startup()

    async def serve(self, exchange: Exchange) -> None:
        """Have the app answer a request."""
        # Flat: every request passes here.
        templates, client = exchange.wire.prepared or self._prepare(exchange)
        message = exchange.request
        if message.has_upgrade and wants_websocket(message):
            await serve_websocket(self, exchange, templates.websocket(message, client))
            return
        scope = templates.http(message, client)
        exchange.keep_alive = exchange.keeps_task = True
        call = exchange.observer = HttpCall(self, exchange)
        try:
            await self.app(scope, call.receive, call.send)
        except BaseException as exc:  # noqa: BLE001 -- raised again there, when it is not dealt with
            app_has_failed(call, error_of(exc))
        if call.is_detached:
            return
        if exchange.carrier.may_have_left():
            exchange.needs_no_answer = call.was_told
        exchange.observer = ANSWERED
        if call.phase != COMPLETE or call.listener is not None or exchange.body is not EMPTY_PAYLOAD:
            conclude(call)

    def _prepare(self, exchange: Exchange) -> tuple[Templates, Address | None]:
        """Make what the scopes of all requests of a connection have in common, and ask who its client is."""
        carrier = exchange.carrier
        if carrier.transport is None:
            raise ClientDisconnectedError("the client is gone")
        prepared = exchange.wire.prepared = self._templates_of(carrier, carrier.transport), carrier.peer_address
        return prepared

    def _templates_of(self, carrier: Carrier, transport: asyncio.BaseTransport) -> Templates:
        """Connections to one address share theirs, if they speak the same TLS: nothing in it is the client's own."""
        server = server_of(transport)
        tls, proxied = transport.get_extra_info("ssl_object"), carrier.proxy_header
        key: tuple[object, ...] | None = None
        if proxied is None and (tls is None or tls.getpeercert(binary_form=True) is None):
            key = server, None if tls is None else (tls.version(), tls.cipher())
        templates = None if key is None else self._templates.get(key)
        if templates is None:
            templates = Templates(server, tls, self.options.root_path, self.draining, self.lifespan.state, proxied)
            if key is not None and len(self._templates) < TEMPLATES_MAX:
                self._templates[key] = templates
        return templates

    def calls(self) -> Iterator[HttpCall]:
        """The requests that are being handled and whose client is still there."""
        for exchange in connections_of(asyncio.get_running_loop()).exchanges():
            call = exchange.observer
            if isinstance(call, HttpCall):
                yield call

    def drain(self, deadline: float) -> None:
        """Tell the app that the worker leaves, and begin to close its WebSockets.

        Args:
            deadline: when what is left is cut, seconds of the loop's clock.
        """
        loop = asyncio.get_running_loop()
        self.drained_by = deadline
        self.draining.set()
        self.streams.begin(deadline, app_knows=self.draining.is_used)
        left = max(deadline - loop.time(), 0.0)
        for number, websocket in enumerate(list(self.websockets)):
            # Over the first half, so that they do not all come back at once; a few need no more than a second each.
            loop.call_later(number * min(1.0, left / 2 / len(self.websockets)), self._send_away, websocket)

    def _tell_streams(self) -> None:
        """Have the apps that stream end it. What begins to stream from now on is told when it does: `HttpCall`."""
        told = 0
        for call in self.calls():
            if not call.leaves and call.is_to_leave():
                call.leave()
                told += 1
        if told:
            self.logger.info("told %d stream%s that this worker leaves", told, "s" if told > 1 else "")

    def _send_away(self, websocket: WebSocket) -> None:
        if self.drained_by is not None:
            websocket.go_away()

    def resume(self) -> None:
        """The worker serves on after all: its successor was not good."""
        self.drained_by = None
        self.draining.clear()
        self.streams.end()

    def keep(self, task: asyncio.Task[Any] | None) -> None:
        """Hold on to a task that has outlived its response or its connection; asyncio does not."""
        if task is not None and not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self, deadline: float) -> None:
        """Wait for what the app does behind its responses, and cancel it at the deadline.

        Args:
            deadline: seconds of the loop's clock.
        """
        loop = asyncio.get_running_loop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(deadline - loop.time(), 0.0))
        if self._tasks:
            self.logger.warning("%d tasks of the app are still at work: cancelled", len(self._tasks))
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=1.0)

    async def shutdown(self, seconds: float) -> None:
        """Have the app shut down.

        Args:
            seconds: that it gets.
        """
        await self.lifespan.shutdown(seconds)
