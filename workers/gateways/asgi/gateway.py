"""ASGI 3 apps on the HTTP protocol: `AsgiGateway` is the app in one worker, `AsgiProtocol` a connection.

The app runs in the connection's own task: a request that is answered at once costs no task and no turn of the loop.
When the app has waited for something, or goes on after its response (a background task), the connection lets that task
go and takes another for the next request.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from preforkd.workers.gateways.asgi.draining import DrainingEvent
from preforkd.workers.gateways.asgi.failures import error_of, gives_up, is_disconnect
from preforkd.workers.gateways.asgi.http_call import COMPLETE, HttpExchange
from preforkd.workers.gateways.asgi.lifespan import Lifespan
from preforkd.workers.gateways.asgi.scope import Templates
from preforkd.workers.gateways.hop_by_hop import HopByHopFields
from preforkd.workers.gateways.streams import StreamDrain
from preforkd.workers.gateways.websocket.handshake import serve_websocket, wants_websocket
from preforkd.workers.http.connections import connections_of
from preforkd.workers.http.errors import ClientDisconnectedError, HttpProcessingError
from preforkd.workers.http.payload import EMPTY_PAYLOAD
from preforkd.workers.http.processing import LOG_MAY_FAIL
from preforkd.workers.http.protocol import ServerHttpProtocol
from preforkd.workers.http.states import ConnectionState

if TYPE_CHECKING:
    from preforkd.workers.gateways.asgi.scope import AsgiApp
    from preforkd.workers.gateways.websocket.session import WebSocket
    from preforkd.workers.http.message import RequestMessage
    from preforkd.workers.http.payload import PayloadStream
    from preforkd.workers.settings import WorkerSettings

LOGGER = logging.getLogger("preforkd.asgi")


@dataclass(frozen=True, slots=True)
class AsgiOptions:
    """What the gateway acts on; names and units are those of the daemon's options.

    Attributes:
        root_path: where the app is mounted; a proxy in front has stripped it from the paths.
        drain_streams: when streams are told of a drain: "auto", "all" or "late"; see `streams.py`.
        limit_websocket_message: bytes of a message; 0: no limit.
        websocket_ping: seconds between two pings; 0: none.
        websocket_ping_timeout: seconds that a client gets to answer one; 0: for ever.
        websocket_compression: accept permessage-deflate.
    """

    root_path: str = ""
    drain_streams: str = "auto"
    limit_websocket_message: int = 16 * 1024 * 1024
    websocket_ping: float = 20.0
    websocket_ping_timeout: float = 20.0
    websocket_compression: bool = True

    @classmethod
    def from_settings(cls, settings: WorkerSettings) -> AsgiOptions:
        """Return those of a worker."""
        values = {name: getattr(settings, name) for name in cls.__dataclass_fields__}
        return cls(**{**values, "root_path": settings.root_path.rstrip("/")})


class AsgiGateway:
    """An ASGI app in one worker; without the daemon too: `loop.create_server(AsgiGateway(app).handler, host, port)`.

    Args:
        app: the application.
        options: see `AsgiOptions`.
        logger: where the app's errors are reported.

    Attributes:
        app, options: as given.
        handler: the protocol class of its connections.
        draining: the event `scope["preforkd.draining"]`.
        streams: which of its streams have been told that the worker leaves.
        lifespan: its startup and shutdown.
        hop_by_hop: what is done with fields of its responses that are the server's.
        websockets: from their handshake on until their connection is closed.
    """

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
        self.context = contextvars.Context()
        self.handler: type[AsgiProtocol] = type("AsgiHandler", (AsgiProtocol,), {"gateway": self, "__slots__": ()})
        self._tasks: set[asyncio.Task[Any]] = set()

    async def startup(self) -> None:
        """Start the app.

        Raises:
            StartupError: its lifespan has failed.
        """
        self.context = contextvars.copy_context()
        await self.lifespan.startup()

    def exchanges(self) -> Iterator[HttpExchange]:
        """The requests that are being handled and whose client is still there."""
        for connection in connections_of(asyncio.get_running_loop()):
            exchange = getattr(connection, "exchange", None)
            if exchange is not None:
                yield exchange

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
        """Have the apps that stream end it. What begins to stream from now on is told when it does: `HttpExchange`."""
        told = 0
        for exchange in self.exchanges():
            if not exchange.leaves and exchange.is_to_leave():
                exchange.leave()
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


class AsgiProtocol(ServerHttpProtocol):
    """A connection of an ASGI app.

    Attributes:
        gateway: the app; set in the class that `AsgiGateway` makes.
        exchange: the request that is being handled; None between two, and for WebSocket.
        websocket: the one that this connection has become, from its handshake on.
    """

    __slots__ = ("_templates", "exchange", "websocket")

    gateway: ClassVar[AsgiGateway]
    decodes_bodies = False  # an ASGI app gets the bytes of the wire
    outlives_cancellation = True  # of a request that has cancelled its own task and has ended

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.exchange: HttpExchange | None = None
        self.websocket: WebSocket | None = None
        self._templates: Templates | None = None

    @property
    def templates(self) -> Templates:
        """What the scopes of this connection's requests have in common; made with the first."""
        if self._templates is None:
            gateway = self.gateway
            if self.transport is None:
                raise ClientDisconnectedError("the client is gone")
            self._templates = Templates(
                self.transport,
                gateway.options.root_path,
                gateway.draining,
                gateway.lifespan.state,
                self.peer_address,
                self.proxy_header,
            )
        return self._templates

    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:
        """Have the app answer a request."""
        # Flat: every request passes here.
        templates = self._templates or self.templates
        if message.has_upgrade and wants_websocket(message):
            await serve_websocket(self, message, templates.websocket(message))
            return
        scope = templates.http(message)
        self.writer.exchange.keep_alive = True  # type: ignore[union-attr]  # there is one while it is handled
        exchange = self.exchange = HttpExchange(self, message, payload)
        try:
            await self.gateway.app(scope, exchange.receive, exchange.send)
        except BaseException as exc:  # noqa: BLE001 -- _app_has_failed() raises again what is not dealt with there
            self._app_has_failed(exchange, error_of(exc))
        if exchange.is_detached:
            return
        if self.may_have_left() and self.writer.exchange is not None:
            self.writer.exchange.needs_no_answer = exchange.was_told
        self.exchange = None
        if exchange.phase != COMPLETE or payload is not EMPTY_PAYLOAD or exchange.listener is not None:
            fault = exchange.payload_fault if exchange.response is None else None
            exchange.end()
            if exchange.phase != COMPLETE and (exchange.leaves or self.gateway.drained_by is not None):
                self._end_left_stream(exchange)
            if fault is not None:  # the app was told that its client is gone, but it is there, and sent a bad body
                try:
                    raise fault
                finally:
                    del fault  # a frame and an exception that hold each other wait for the collector
        if exchange.has_waited and self.transport is not None:
            self.let_task_go()  # what knows it, as a timer that cancels it, has nothing to do with the next request

    def _app_has_failed(self, exchange: HttpExchange, exc: BaseException) -> None:
        """Deal with an exception of the app; what the core answers better is raised again.

        Raises:
            BaseException: the app has not finished its response: the core answers 500, or cuts the connection.
        """
        if exchange.is_detached:
            if not isinstance(exc, Exception):
                raise exc
            self.report_error("Error in the app behind its response to %s", exchange.message, exc=exc)
            return
        self.exchange = None
        exchange.end()
        if exchange.leaves and exchange.phase != COMPLETE and self._ends_told_stream(exc):
            return
        if not isinstance(exc, Exception):
            raise exc
        if self.may_have_left() and (gives_up(exc) if exchange.was_told else is_disconnect(exc)):
            exchange.was_told = True
            return
        if exchange.phase == COMPLETE:
            if not (exchange.is_gone and is_disconnect(exc)):  # the client left while the last part waited for it
                self.report_error("The app has answered %s and then raised", exchange.message, exc=exc)
            return
        if exchange.is_gone:
            if not gives_up(exc):
                self.report_error("Error in the app for %s, whose client is gone", exchange.message, exc=exc)
            raise ClientDisconnectedError("the client is gone") from exc
        fault = exchange.payload_fault
        if fault is not None and exchange.response is None:
            raise fault  # the app has only told us that its body was bad: 400, 408 or 413 says it better than 500
        raise exc

    def _ends_told_stream(self, exc: BaseException) -> bool:
        """Whether an app has raised because it was told to end its stream, in one of the ways that apps have."""
        exchange = self.writer.exchange
        if exchange is None or not exchange.is_open or exchange.has_expired:
            return False  # the client is gone, or it is cut
        task = asyncio.current_task()
        if isinstance(exc, asyncio.CancelledError) and task is not None:
            while task.cancelling():
                task.uncancel()  # what it has been told by has cancelled it
            return True
        return gives_up(exc)

    def _end_left_stream(self, exchange: HttpExchange) -> None:
        """The app has ended its stream because it was told that its worker leaves, as it should, or knew it itself."""
        if self.state is not ConnectionState.ACTIVE or self.transport is None:
            return
        if exchange.end_stream() or not exchange.leaves:
            return
        if self.writer.response is None:
            raise HttpProcessingError(503, headers={"Retry-After": "1"})
        self.keep_alive(False)  # nobody is to blame for an unfinished response
        with LOG_MAY_FAIL:
            self.logger.warning("The response to %s is cut: its app ends it, for its worker leaves", exchange.message)

    # An app that goes on after its response.

    def request_waits(self) -> None:
        """The app waits for something; behind its response, perhaps."""
        exchange = self.exchange
        if exchange is not None:
            exchange.has_waited = True
            if exchange.phase == COMPLETE:
                self.response_is_complete(exchange)

    def response_is_complete(self, exchange: HttpExchange) -> None:
        """The app has sent all of its response. Mostly it returns right then; else the connection goes on alone."""
        if not self.writer.corked:  # else request_waits() will tell, or it returns
            self.loop.call_soon(self._look_whether_app_goes_on, exchange, context=self.gateway.context)

    def resume_writing(self) -> None:
        """The client has read (asyncio's call)."""
        super().resume_writing()
        if self.exchange is not None and self.exchange.phase == COMPLETE:
            self.response_is_complete(self.exchange)

    def _look_whether_app_goes_on(self, exchange: HttpExchange) -> None:
        if self.exchange is not exchange or self.writer.paused:
            return
        if not self.is_handed_over():
            self.response_is_complete(exchange)
            return
        self.exchange = None
        exchange.is_detached = True
        exchange.end()
        self.gateway.keep(self.handler_task)
        self.detach()

    # The client comes, and goes.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport (asyncio's call)."""
        super().connection_made(transport)
        self._context = self.gateway.context.copy()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone (asyncio's call): the app is told."""
        exchange, websocket = self.exchange, self.websocket
        super().connection_lost(exc)
        if exchange is not None:
            self.keep_alive(False)  # nobody is to blame for an unfinished response
            if self.writer.exchange is not None:
                self.log_abandoned(self.writer.exchange)  # now: the app may go on for as long as it likes
            exchange.lose()
        elif websocket is not None:
            websocket.lose()
        task = self.handler_task
        if task is not None and (exchange is not None or websocket is not None):
            self.gateway.keep(task)
            if self.limits.disconnect_timeout and (exchange is None or exchange.phase != COMPLETE):
                self.loop.call_later(self.limits.disconnect_timeout, task.cancel)

    def lose_handler(self) -> None:
        """An app is told when its client is gone, and cancelled only after `disconnect_timeout`."""

    def client_has_closed(self) -> None:
        """The client will send nothing behind what it has sent by now: the app is told."""
        super().client_has_closed()
        if self.exchange is not None:
            self.exchange.disconnect()

    def eof_received(self) -> bool:
        """The client will send no more (asyncio's call).

        Mostly it is gone: the app is told. If it has only closed its side (RFC 9112 section 9.6), it still gets what
        the app sends, as with Go's net/http.
        """
        stays = super().eof_received()
        if self.exchange is None and self.websocket is not None and not self.is_taken_over:
            if self.writer.exchange is not None:
                self.writer.exchange.needs_no_answer = True
            self.websocket.lose()
            return False  # WebSocket has no half-close (RFC 6455 section 7.1.1): who ends before it has begun is gone
        return stays
