"""WSGI apps (PEP 3333): `WsgiGateway` is the app in one worker, and the service of all its exchanges.

With threads, a call runs in one of them and its response is written in the event loop, which stays live. Without, the
call runs in the loop itself: less work, for apps that never wait.
"""

from __future__ import annotations

import asyncio
import logging
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from preforkd.workers import log
from preforkd.workers.gateways.hop_by_hop import HopByHopFields
from preforkd.workers.gateways.streams import StreamDrain, Told, comes_back
from preforkd.workers.gateways.wsgi.answer import Answer
from preforkd.workers.gateways.wsgi.draining import DrainingFlag
from preforkd.workers.gateways.wsgi.environ import EnvironSource, connection_environ, error_stream
from preforkd.workers.gateways.wsgi.file import FileWrapper
from preforkd.workers.gateways.wsgi.input import READ_AT_ONCE, READ_FIRST, streamed_input
from preforkd.workers.gateways.wsgi.loop_call import serve_buffered, serve_now
from preforkd.workers.gateways.wsgi.thread_call import ThreadCall
from preforkd.workers.gateways.wsgi.threads import ThreadPool
from preforkd.workers.http.connections import connections_of
from preforkd.workers.http.errors import ClientDisconnectedError
from preforkd.workers.http.payload import EMPTY_PAYLOAD
from preforkd.workers.http.protocol import connections_for

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextvars import Context

    from preforkd.workers.gateways.wsgi.call import WsgiApp
    from preforkd.workers.gateways.wsgi.environ import Address
    from preforkd.workers.gateways.wsgi.response import WsgiResponse
    from preforkd.workers.http.exchange import Carrier, Exchange
    from preforkd.workers.settings import WorkerSettings

LOGGER = logging.getLogger("preforkd.wsgi")
SHARED_MAX = 64
"""Addresses of ours whose connections share what their environs are made of: a socket bound to all may have many."""


class _Prepared(NamedTuple):
    """What the calls of a connection have in common.

    Attributes:
        environs: makes what the app is called with.
        client: who has opened the connection.
        answer: takes what threads post; None: there are no threads.
    """

    environs: EnvironSource
    client: Address | None
    answer: Answer | None


class WsgiGateway:
    """A WSGI app in one worker; without the daemon too: `loop.create_server(WsgiGateway(app).handler, host, port)`.

    Args:
        app: the application.
        threads: calls at a time; 0: they run in the event loop itself.
        root_path: where the app is mounted (SCRIPT_NAME), without a slash at its end.
        drain_streams: when event streams are ended in a drain: "auto" or "all": at its beginning, "late": shortly
            before they would be cut.
        logger: where trouble is reported.
        queue_time: seconds that a call may wait for a thread; 0: for ever.

    Attributes:
        app, threads, root_path: as given.
        handler: makes a connection that it serves; takes the arguments of `ServerHttpProtocol`.
        hop_by_hop: what is done with fields of its responses that are the server's.
        draining: the event `environ["preforkd.draining"]`.
        streams: which streams are to end, for the worker leaves.
    """

    decodes_bodies = False  # the app reads what was sent, and its Content-Encoding
    outlives_cancellation = False
    context: Context | None = None

    def __init__(
        self,
        app: WsgiApp,
        threads: int = 1,
        root_path: str = "",
        drain_streams: str = "auto",
        logger: logging.Logger = LOGGER,
        queue_time: float = 0.0,
    ) -> None:
        self.app = app
        self._queue_time = queue_time
        self._logger = logger
        self.draining = DrainingFlag()
        self.streams = StreamDrain(drain_streams, self._end_streams)
        self.threads = threads
        self.root_path = root_path.rstrip("/").encode().decode("latin-1")
        self.handler = connections_for(self)
        self.hop_by_hop = HopByHopFields(logger)
        self._pool: ThreadPool | None = None
        self._environs: dict[object, EnvironSource] = {}

    @classmethod
    def from_settings(cls, app: WsgiApp, settings: WorkerSettings) -> WsgiGateway:
        """Return that of a worker."""
        return cls(
            app, settings.threads, settings.root_path, settings.drain_streams, log.LOGGER, settings.limit_queue_time
        )

    def pool(self, loop: asyncio.AbstractEventLoop) -> ThreadPool:
        """Return the threads, which serve one loop; started when first asked for, so never before a fork."""
        if self._pool is None:
            self._pool = ThreadPool(self.threads, loop, self._queue_time)
        elif self._pool.loop is not loop:
            raise RuntimeError("a WsgiGateway serves one event loop")
        return self._pool

    async def startup(self) -> None:
        """Start the threads."""
        if self.threads:
            self.pool(asyncio.get_running_loop())

    def drain(self, deadline: float) -> None:
        """The worker leaves: have the event streams end. Other responses are finished.

        Args:
            deadline: when what is left is cut, seconds of the loop's clock.
        """
        self.draining.set()
        self.streams.begin(deadline, app_knows=self.draining.is_used)

    def resume(self) -> None:
        """The worker serves on after all."""
        self.draining.clear()
        self.streams.end()

    def _end_streams(self) -> None:
        """End those that threads have; on the loop (`loop_call.py`) they end before their next part."""
        observers = [exchange.observer for exchange in connections_of(asyncio.get_running_loop()).exchanges()]
        ended = sum(answer.end_stream() for answer in observers if isinstance(answer, Answer))
        if ended:
            self._logger.info("ended %d event stream%s, for this worker leaves", ended, "s" if ended > 1 else "")

    async def finish(self, deadline: float) -> None:
        """Wait for calls whose clients have left: what they do may matter to others.

        Args:
            deadline: seconds of the loop's clock.
        """
        if self._pool is None:
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._pool.wait_finished()
        except TimeoutError:
            self._logger.warning(
                "%d calls of the app are still at work: they end with this process", self._pool.unfinished
            )

    async def shutdown(self, timeout: float) -> None:  # noqa: ASYNC109, ARG002 -- the gateways' common signature
        """Let the threads end."""
        if self._pool is not None:
            self._pool.end()

    # The requests.

    def serve(self, exchange: Exchange) -> Awaitable[None]:
        """Have the app answer a request. No coroutine: one around each call costs 0.2 us."""
        # Flat: every request passes here.
        environs, client, answer = exchange.wire.prepared or self._prepare(exchange)
        payload = exchange.body
        exchange.keep_alive = True
        if answer is not None:
            call = ThreadCall(self.app, environs, client, exchange, answer)
            if payload is EMPTY_PAYLOAD:
                return answer.of(call)
            if payload.is_complete:
                call.input = BytesIO(payload.take_arrived())
                return answer.of(call)
            return self._serve_upload(call, exchange, answer)
        environ = environs.environ(exchange.request, client)
        if payload is EMPTY_PAYLOAD:
            environ["wsgi.input"] = BytesIO()
        elif payload.is_complete:
            environ["wsgi.input"] = BytesIO(payload.take_arrived())
        else:
            return serve_buffered(self, exchange, environ)
        return serve_now(self, exchange, environ, exchange.carrier.loop)

    def _prepare(self, exchange: Exchange) -> _Prepared:
        """Make what the calls of a connection have in common."""
        carrier, wire = exchange.carrier, exchange.wire
        if carrier.transport is None:
            raise ClientDisconnectedError("the client is gone")
        answer = Answer(self, wire, self.pool(carrier.loop)) if self.threads else None
        environs = self._environs_of(carrier, carrier.transport)
        prepared = wire.prepared = _Prepared(environs, carrier.peer_address, answer)
        return prepared

    def _environs_of(self, carrier: Carrier, transport: asyncio.BaseTransport) -> EnvironSource:
        """Plain connections to one address share theirs: nothing is said in it of the client."""
        local, proxied = transport.get_extra_info("sockname"), carrier.proxy_header
        is_plain = proxied is None and transport.get_extra_info("sslcontext") is None
        environs = self._environs.get(local) if is_plain else None
        if environs is None or environs.errors is not error_stream():
            base = connection_environ(transport, proxied, threads=self.threads)
            base["wsgi.file_wrapper"] = FileWrapper
            base["preforkd.draining"] = self.draining
            environs = EnvironSource(base, self.root_path)
            if is_plain and (local in self._environs or len(self._environs) < SHARED_MAX):
                self._environs[local] = environs
        return environs

    def stream_is_over(self, exchange: Exchange, response: WsgiResponse) -> bool:
        """Whether a response is an event stream that has to end, for the worker leaves."""
        return self.streams.told is not Told.NONE and comes_back(exchange.request, response)

    async def _serve_upload(self, call: ThreadCall, exchange: Exchange, answer: Answer) -> None:
        """Call the app when its body has come, or a part that is worth a thread: a slow form must not hold one.

        With a thread to spare, or a client that waits for `100 Continue`, which the app's first read sends, at once.
        """
        payload = exchange.body
        first: list[bytes] = []
        size = 0
        if not exchange.request.expect_continue and answer.pool.spare < 2:
            try:
                while size < READ_FIRST and not payload.at_eof():
                    first.append(await payload.readany())
                    size += len(first[-1])
                while READ_FIRST <= size < READ_AT_ONCE and not payload.at_eof():
                    await asyncio.sleep(0)
                    if not (arrived := payload.take_arrived()):
                        break
                    first.append(arrived)
                    size += len(arrived)
            except ClientDisconnectedError:
                pass  # half-closed: the app's read says it again, and its answer can still be read
        begin = b"".join(first)
        call.input = BytesIO(begin) if payload.at_eof() else streamed_input(begin, call.receive_body)
        await answer.of(call, payload)
