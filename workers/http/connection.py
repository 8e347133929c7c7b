"""A connection of HTTP/1.1: the transport's calls, and the parts that it is made of.

* `Intake` (`intake.py`): whose the bytes are that arrive; it makes requests of them.
* `Runner` (`running.py`): runs a handler at once, and in a task when it has to wait.
* `Handling` (`handling.py`): what is done with a request, from its head to its line in the log.
* `ResponseWriter` (`writer.py`): the way out.
* `Closer` (`closing.py`): the end, and the deadlines.

The parts know each other, and their connection; it lets go of them at its end, so that all is freed here and now.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from contextvars import copy_context
from io import BytesIO
from time import monotonic
from typing import TYPE_CHECKING, cast
from weakref import ref

from preforkd.workers import offspring
from preforkd.workers.http import compiled
from preforkd.workers.http.closing import Closer
from preforkd.workers.http.connections import connections_of
from preforkd.workers.http.deadlines import Allowance, Times
from preforkd.workers.http.errors import ResponseError
from preforkd.workers.http.exchange import UNOBSERVED
from preforkd.workers.http.handling import Handling, steps_of
from preforkd.workers.http.intake import FOREIGN, HEAD, KEEP, Intake, Phase
from preforkd.workers.http.names import TELLS
from preforkd.workers.http.payload import EMPTY_PAYLOAD, PayloadStream
from preforkd.workers.http.running import Runner
from preforkd.workers.http.states import IDLE, ConnectionEvent, ConnectionState, following
from preforkd.workers.http.tunnel import ConnectionTunnel
from preforkd.workers.http.waiter import raising
from preforkd.workers.http.writer import ResponseWriter

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from preforkd.workers.http.connections import Connections
    from preforkd.workers.http.exchange import Exchange, Pending, Service
    from preforkd.workers.http.host import Host
    from preforkd.workers.http.limits import Limits
    from preforkd.workers.http.message import Address, RequestMessage
    from preforkd.workers.http.parser import RequestParser
    from preforkd.workers.proxy_protocol import ProxyHeader


@compiled.in_both_forms
class HttpConnection(asyncio.Protocol):
    """The transport's side of `ServerHttpProtocol`.

    Attributes:
        state: where the connection is in its life.
        transport: None when it is gone.
        reader: the parser of requests.
        writer: the way out.
        connections: the table of the loop's connections that this one is in.
        requests: how many there were, with the current one.
        persistent: whether the connection may stay open after this request at all; not any more when it drains.
        limits: what the client may cost.
        loop: the event loop.
        client_finished: the client has closed its side.
        proxy_header: what a PROXY header has said of the connection; None: there was none.
        peer_is_trusted: whether the peer's word on its clients counts; None: nobody has asked yet.
        speaks_for_others: the peer has spoken for a client of its own.
    """

    # Slots: an instance's dictionary would make every attribute slower. Subclasses of ServerHttpProtocol get one as
    # usual.
    __slots__ = (
        "__weakref__", "_allowed", "_client", "_closer", "_given_loop", "_handling", "_intake", "_receiver", "_remote",
        "_runner", "_scheme", "_service", "_times", "client_finished", "connections", "limits", "loop",
        "peer_is_trusted", "persistent", "proxy_header", "reader", "requests", "speaks_for_others", "state",
        "transport", "writer",
    )  # fmt: skip

    connections: Connections
    loop: asyncio.AbstractEventLoop
    reader: RequestParser
    writer: ResponseWriter
    _closer: Closer
    _handling: Handling
    _intake: Intake
    _runner: Runner

    def __init__(self, loop: asyncio.AbstractEventLoop | None, limits: Limits, allowed: Allowance) -> None:
        self._given_loop = loop
        self._allowed = allowed
        self.limits = limits
        self._service: Service | None = None
        self.state = ConnectionState.NEW
        self.transport: asyncio.Transport | None = None
        self.requests = 0
        self.persistent = True
        self.client_finished = False
        self._remote: str | None = None
        self._client: Address | None = None
        self._scheme = ""
        self.proxy_header: ProxyHeader | None = None
        self.peer_is_trusted: bool | None = None
        self.speaks_for_others = False
        self._receiver: asyncio.Protocol | None = None
        self._times = Times()

    def serve_with(self, service: Service) -> None:
        """Have a service answer the requests, and not `handle_request()`; before the connection is made."""
        self._service = service

    # The transport's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport (asyncio's call)."""
        self.transport = transport  # type: ignore[assignment]  # asyncio's signature; each cast is a call
        self.loop = loop = self._given_loop or asyncio.get_running_loop()
        self.connections = connections = connections_of(loop)
        host: Host = self  # type: ignore[assignment]  # its one subclass is one: checked in `protocol.py`
        context = host.served_by().context
        times = self._times
        times.head = monotonic()
        intake = self._intake = Intake(host, self.limits, times, connections.edge)
        self.reader = intake.parser
        writer = self.writer = ResponseWriter(self, intake, transport, loop)  # type: ignore[arg-type]  # as above
        context = copy_context() if context is None else context.copy()
        runner = self._runner = Runner(loop, context, intake, writer, connections)
        closer = self._closer = Closer(host, intake, writer, self._allowed, times)
        self._handling = runner.work = Handling(host, intake, writer, runner, closer, self.limits.keep_alive_requests)
        connections.add(host, loop, self._allowed.sweep_interval)

    def data_received(self, data: bytes) -> None:
        """Take bytes (asyncio's call)."""
        # Flat: every request passes here.
        intake = self._intake
        phase = intake.phase
        if phase is HEAD:
            if intake.take_head(data):
                self._runner.proceed()
        elif phase is FOREIGN:
            if self._receiver is not None:
                self._receiver.data_received(data)
        elif intake.take(data):
            self._runner.proceed()

    def eof_received(self) -> bool:
        """The client will send no more (asyncio's call); what it has asked for is still answered.

        Not over TLS: there a half-close (a close_notify) ends the connection, as asyncio's TLS transports cannot keep
        one side open.
        """
        if self._receiver is not None:
            return bool(self._receiver.eof_received())
        self.client_finished = True
        self._intake.finish()
        if not self.client_has_closed():
            return False
        if self.state is ConnectionState.ACTIVE or self._intake.has_request:
            # A half-close; asyncio's TLS transports cannot keep one open and warn when they are asked to.
            return self.transport is not None and self.transport.can_write_eof()
        if self._closer.may_leave_much() and self.untaken():
            self.close()  # but keep an eye on whether the client takes the response: the kernel would not
            return self.transport is not None and self.transport.can_write_eof()
        return False

    def client_has_closed(self) -> bool:
        """The client will send nothing behind what it has sent by now: mostly it is gone.

        Returns:
            Whether what it has asked for can still be answered: it may have closed its side only (RFC 9112 section
            9.6).
        """
        if self.limits.disconnect_timeout:
            self._give_up_later()
        exchange = self.writer.exchange
        return exchange is None or exchange.observer.client_has_finished()

    def may_have_left(self) -> bool:
        """Whether the client has closed its side, be it in what was read or behind it."""
        return self.client_finished or self._times.left == self.requests

    def _give_up_later(self) -> None:
        self.loop.call_later(self.limits.disconnect_timeout, _give_up, ref(self))

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone (asyncio's call): the one teardown, from every exit."""
        if self.state is ConnectionState.CLOSED:
            return
        was = self.state
        self.state = following(was, ConnectionEvent.LOST)
        self.transport = None
        self.connections.discard(cast("Host", self))
        self._intake.lose()
        self.writer.lose()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.connection_lost(exc)
        exchange, runner = self.writer.exchange, self._runner
        ends_by_itself = exchange is not None and exchange.observer.client_is_gone()
        if runner.task is None:
            self.release()
        elif receiver is not None or ends_by_itself:
            pass  # what becomes of the handler's task is their business
        elif was is ConnectionState.ACTIVE or runner.is_busy or self.deferred is not None:
            # That is: also when it was aborted by us, and is not ACTIVE any more, and yet in a request.
            self.cancel_handler()
        else:
            runner.wakeup.wake()

    def release(self) -> None:
        """Let go of the parts: nothing happens any more, and all is to be freed here and now."""
        if self.writer.connection is None:
            return
        self.writer.release()
        self._service = None
        del self._runner.work
        del self._intake, self._runner, self._closer, self._handling

    def pause_writing(self) -> None:
        """The client reads slower than we write (asyncio's call)."""
        self.writer.pause()
        if self._receiver is not None:
            self._receiver.pause_writing()

    def resume_writing(self) -> None:
        """The client has read (asyncio's call)."""
        self.writer.resume()
        if self._receiver is not None:
            self._receiver.resume_writing()
        elif self.writer.exchange is not None:
            self.writer.exchange.observer.can_write()

    # The requests.

    @property
    def request(self) -> RequestMessage | None:
        """The head of the request that is being handled; None between two."""
        exchange = self.writer.exchange
        return exchange.request if exchange is not None else None

    @property
    def request_began(self) -> float:
        """When it did, seconds of the monotonic clock; 0.0 when nobody wants to know, or there is none."""
        exchange = self.writer.exchange
        return exchange.began if exchange is not None else 0.0

    @property
    def deferred(self) -> Pending | None:
        """What its handler has returned, if callbacks do its work."""
        exchange = self.writer.exchange
        return exchange.deferred if exchange is not None else None

    @property
    def handler_task(self) -> asyncio.Task[None] | None:
        """The task in whose name handlers run; None when there is none now."""
        return None if self.writer.connection is None else self._runner.task

    def start(self) -> Coroutine[Any, Any, None]:
        """Process the requests of this connection, one after the other, until it closes.

        Reads request line, headers and payload, calls `handle_request()`, and answers what it raises. The connection
        closes after the response unless `keep_alive(True)` was called for that request.
        """
        return self._runner.run()

    def proceed(self) -> None:
        """A request has come, or what is wrong with one: process it."""
        self._runner.proceed()

    def cancel_handler(self) -> None:
        """Cancel the handler of the current request, if there is one."""
        if self.writer.connection is not None:
            self._handling.cancel_handler()

    def expire_request(self) -> None:
        """The request takes longer than `request_timeout`: cancel its handler, and answer 503."""
        self._handling.expire_request()

    # As a `Carrier`.

    def abandon(self, exchange: Exchange) -> None:
        """Nobody waits for the rest of an exchange: whatever its handler does, it is over for the access log."""
        self._handling.abandon(exchange)

    def detach(self, exchange: Exchange) -> bool:
        """End an exchange whose response is complete: its handler goes on in its task without it.

        Returns:
            False: it cannot be ended yet, for the task has not taken over what the handler waits for.
        """
        return self._handling.detach(exchange)

    def end_deferred(self, exchange: Exchange, error: BaseException | None) -> None:
        """What a service has returned instead of a coroutine has come to its end.

        Args:
            exchange: what it answers.
            error: what it has raised; None: nothing.
        """
        self._handling.end_deferred(exchange, error)

    def expire(self, exchange: Exchange) -> None:
        """An exchange takes too long, by its service's own clock."""
        if exchange is self.writer.exchange:
            self._handling.expire_request()

    def tunnel(self, exchange: Exchange) -> ConnectionTunnel:  # noqa: ARG002 -- HTTP/2 would have one for each
        """Return the way past HTTP; closed until it is opened."""
        return ConnectionTunnel(self)

    def take_over(self, receiver: asyncio.Protocol) -> bytes:
        """Hand the connection over to another protocol: the way out of HTTP for a gateway (WebSocket).

        Called by the handler of a request whose `message.upgrade` is true, after its 101 response was sent. From then
        on `receiver` gets `data_received`, `eof_received`, `pause_writing`, `resume_writing` and `connection_lost`; it
        writes to `self.transport`. The handler may go on running (as the session) or return; what it raises is logged
        and aborts the connection. A handler that answers such a request without calling this simply stays in HTTP.

        Args:
            receiver: gets the transport's calls; its `connection_made` is not called.

        Returns:
            Bytes that came behind the request already.

        Raises:
            ResponseError: there is no request, its body has not been read, or no 101 was sent.
        """
        if self.state is not ConnectionState.ACTIVE or self._intake.phase is not KEEP:
            raise ResponseError("a connection is taken over by the handler of a complete request")
        response = self.writer.response
        if response is None or response.sent_status != 101:
            raise ResponseError("a connection is taken over after its 101 response was sent")
        self.writer.flush()
        self.state = following(self.state, ConnectionEvent.UPGRADE)
        intake = self._intake
        intake.phase = FOREIGN
        self._receiver = receiver
        early, intake.tail = intake.tail, b""
        intake.resume_reading()
        return early

    # The way in.

    @property
    def reading_paused(self) -> bool:
        """Whether the socket is not read for now."""
        return self.transport is not None and self._intake.paused

    def pause_reading(self) -> None:
        """Read nothing of the socket until `resume_reading()`."""
        if self.transport is not None:
            self._intake.pause_reading()

    def resume_reading(self) -> None:
        """Read the socket again, if it was paused."""
        if self.transport is not None:
            self._intake.resume_reading()

    def send_continue(self) -> None:
        """Send `100 Continue` (RFC 9110 section 10.1.1), unless the response has begun."""
        if self.writer.response is None:
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # The end.

    def close(self, linger: bool = True) -> None:
        """Close after what was written has gone out.

        Args:
            linger: half-close first and discard what comes for a while, so that the response is not destroyed by a
                reset (RFC 9112 section 9.6).
        """
        if self.state is not ConnectionState.CLOSED:
            self._closer.close(linger)

    def closing(self, timeout: float = 15.0) -> None:
        """The worker is about to exit (the seed's contract).

        An idle connection closes now, unless bytes of a request have arrived; one in a request finishes it, and is cut
        by `cancel_slow_request()` after `timeout`.

        Args:
            timeout: seconds.
        """
        self.persistent = False
        if self.state is not ConnectionState.CLOSED:
            self._closer.closing(timeout)

    def cancel_slow_request(self) -> None:
        """Cancel the handler and close the transport (the seed's contract)."""
        self.cancel_handler()
        self.cut()

    def cut(self) -> None:
        """End for a deadline, and leave nothing in the kernel for a client that does not read."""
        if self.state is not ConnectionState.CLOSED:
            self._closer.cut()

    def reset(self) -> None:
        """Close at once by a reset: the client sees that something is missing, and the kernel keeps nothing."""
        if self.state is not ConnectionState.CLOSED:
            self._closer.reset()

    def abort(self) -> None:
        """Close at once, whatever was written."""
        if self.state is not ConnectionState.CLOSED:
            self._closer.abort()

    def check_deadlines(self, now: float) -> None:
        """Act on what has run out; called by the sweep.

        Args:
            now: seconds of the monotonic clock.
        """
        self._closer.check_deadlines(now)

    def untaken(self) -> int:
        """Bytes written that the client's system has not acknowledged; costs a system call only if there may be any."""
        return 0 if self.state is ConnectionState.CLOSED else self._closer.untaken()

    # The client.

    @property
    def remote(self) -> str:
        """The client's address for the logs; `-` when it has none (a unix socket) or nobody knows it.

        Behind a trusted proxy it is the one that the proxy tells for the current request.
        """
        self.ask_client()
        return self._remote or "-"

    @property
    def peer_address(self) -> tuple[str, int] | None:
        """Address and port of whoever has opened the connection, as the socket or a PROXY header says; None: no such.

        With a proxy that speaks for its clients that is the proxy; `remote` and `message.forwarded` know the client.
        """
        self.ask_client()
        return self._client

    @property
    def peer_scheme(self) -> str:
        """How the client speaks to us, "http" or "https"; a trusted proxy may know better (`message.forwarded`)."""
        if not self._scheme:
            is_tls = self.transport is not None and self.transport.get_extra_info("sslcontext") is not None
            self._scheme = "https" if is_tls else "http"
        return self._scheme

    def ask_client(self) -> None:
        """Ask the transport for the client's address, if nobody has told it."""
        if self._remote is not None:
            return
        self.remember_client(self.transport.get_extra_info("peername") if self.transport is not None else None)

    def remember_client(self, address: object) -> None:
        """Take the address of whoever has opened the connection, as sockets have it."""
        self._client = (str(address[0]), int(address[1])) if isinstance(address, (tuple, list)) and address else None
        self.client_is(self._client)

    def client_is(self, client: tuple[str, int] | None) -> None:
        """Take the address of the current request's client."""
        self._remote = client[0] if client is not None else "-"


def _give_up(connection: ref[HttpConnection]) -> None:
    """The client has left `disconnect_timeout` ago, as far as one can tell, and its request still goes on."""
    protocol = connection()
    if protocol is None or protocol.state is not ConnectionState.ACTIVE:
        return
    if protocol.writer.unsent():
        protocol._give_up_later()  # one that had left would have reset what it gets: this one is slow to read
    else:
        protocol.cancel_slow_request()


compiled.setup_flow(
    tuple(Phase), ConnectionState.NEW, IDLE, EMPTY_PAYLOAD, PayloadStream.whole, UNOBSERVED,
    vars(offspring), _enter_task, _leave_task, monotonic, raising, steps_of, BytesIO, TELLS,
)  # fmt: skip
