"""One connection: bytes in, state. What is done with a request is `processing.py`, how it ends `closing.py`."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.tasks import _enter_task, _leave_task
from contextvars import Context, copy_context
from time import monotonic
from typing import TYPE_CHECKING, cast
from weakref import ref

from preforkd.workers import offspring
from preforkd.workers.http.closing import BODY, DISCARD, DRAIN, HEAD, HOLD, RAW, ClosingConnection
from preforkd.workers.http.connections import connections_of
from preforkd.workers.http.decoding import DecodedPayload
from preforkd.workers.http.done import DONE
from preforkd.workers.http.errors import BadRequestError, ClientDisconnectedError, ResponseError
from preforkd.workers.http.parser import RequestParser
from preforkd.workers.http.payload import EMPTY_PAYLOAD, PayloadStream
from preforkd.workers.http.rules import refused_request
from preforkd.workers.http.states import ConnectionEvent, ConnectionState, following
from preforkd.workers.http.waiter import Rest, Wakeup, raising
from preforkd.workers.http.writer import ResponseWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from preforkd.workers.http.exchange import Exchange, Service
    from preforkd.workers.http.message import RequestMessage
    from preforkd.workers.http.waiter import Deferred, Steps

UNREAD_BODY_MAX = 65536  # bytes of a body nobody read that are worth keeping the connection for
LINGER_BYTES = 16 * 1024 * 1024  # bytes discarded in a lingering close


class HttpConnection(ClosingConnection):
    """The transport's side of `ServerHttpProtocol`."""

    __slots__ = ()

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
    def deferred(self) -> Deferred | None:
        """What its handler has returned, if callbacks do its work."""
        exchange = self.writer.exchange
        return exchange.deferred if exchange is not None else None

    @property
    def handler_task(self) -> asyncio.Task[None] | None:
        """The task in whose name handlers run; None when there is none now."""
        return self._task

    @property
    def is_taken_over(self) -> bool:
        """Whether the bytes belong to another protocol."""
        return self._receiver is not None

    # What `processing.py` adds.

    def served_by(self) -> Service:
        """Return what serves the requests."""
        raise NotImplementedError

    async def start(self) -> None:
        """Process the requests."""
        raise NotImplementedError

    def process_request(self, context: Context) -> Rest | None:
        """Process the request that has come, or answer what is wrong with it; return what has to wait."""
        raise NotImplementedError

    # The transport's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport (asyncio's call)."""
        self.transport = cast("asyncio.Transport", transport)
        self.loop = loop = self._given_loop or asyncio.get_running_loop()
        self.reader = RequestParser(self.limits)
        self.writer = ResponseWriter(self, self.transport, loop)
        self._wakeup = Wakeup(loop)
        context = self.served_by().context
        self._context = copy_context() if context is None else context.copy()
        self._marks.head = monotonic()
        self.connections = connections_of(loop)
        self._edge = self.connections.edge
        self._has_guard = self.connections.limit_concurrency > 0 or self.connections.queue_time is not None
        self.connections.add(self, loop, self._allowed.sweep_interval())

    def data_received(self, data: bytes) -> None:
        """Take bytes (asyncio's call)."""
        # Flat: every request passes here.
        intake = self._intake
        if intake == HEAD:
            self._receive_head(data)
        elif intake == BODY:
            self._receive_body(data)
        elif intake == HOLD:
            self._keep(data)
        elif intake == DRAIN:
            self._receive_unread(data)
        elif intake == DISCARD:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.abort()
        elif self._receiver is not None:
            self._receiver.data_received(data)

    def _receive_head(self, data: bytes) -> None:
        parser = self.reader
        try:
            message = parser.feed_head(data)
        except BadRequestError as exc:
            self._refuse(exc, data)
            return
        if message is None:
            if not self._marks.head:
                self._marks.head = monotonic()
            return
        if self._edge is not None:
            self._edge.take(self, message)
        self._marks.head = 0.0
        self._message = message
        self._intake = HOLD
        if parser.in_body:
            body = None if self._decodes(message) else parser.whole_body(data)
            if body is not None:
                self._payload = PayloadStream.whole(body, self.loop)
            else:
                self._expect_body(message)
        if parser.consumed != len(data):
            self.data_received(data[parser.consumed :])
        self.proceed()

    def _decodes(self, message: RequestMessage) -> bool:
        return message.compression is not None and self.served_by().decodes_bodies

    def _expect_body(self, message: RequestMessage) -> None:
        self._intake = BODY
        if self._decodes(message):
            self._payload = DecodedPayload(self, self.loop, message.compression or "", self.limits.limit_body)
        else:
            self._payload = PayloadStream(self, self.loop)
        self.continue_is_due = message.expect_continue
        self.rest_may_be_long = message.content_length is None or message.content_length > UNREAD_BODY_MAX
        self._marks.body = 0.0

    def _receive_body(self, data: bytes) -> None:
        parser = self.reader
        payload = self._payload
        self.continue_is_due = False
        try:
            parser.feed_body(data)
        except BadRequestError as exc:
            payload.set_exception(exc.with_traceback(None))
            self._intake = DISCARD
            self.persistent = False
            return
        for part in parser.body:
            payload.feed(part, not parser.in_body)
        parser.body.clear()
        if self.rest_may_be_long:
            left = parser.body_left()
            self.rest_may_be_long = parser.in_body and (left is None or left > UNREAD_BODY_MAX)
        if not parser.in_body:
            self._intake = HOLD
            payload.feed_eof()
            if parser.consumed != len(data):
                self._keep(data[parser.consumed :])

    def _drain_body(self) -> None:
        """The handler is done and has not read all of the body; the head has said keep-alive, so the rest is short."""
        self._intake = DRAIN
        self.resume_reading()

    def _receive_unread(self, data: bytes) -> None:
        """The rest of a body that the handler did not read, `UNREAD_BODY_MAX` at most: thrown away."""
        parser = self.reader
        parser.feed_body(data)
        parser.body.clear()
        if not parser.in_body:
            self._intake = HEAD
            if parser.consumed != len(data):
                self.data_received(data[parser.consumed :])

    def _keep(self, data: bytes) -> None:
        """Bytes of a later request: kept unparsed, and no more of them are read until it is their turn."""
        self._tail = self._tail + data if self._tail else data
        self.pause_reading()

    def take_tail(self) -> None:
        """It is the turn of what was kept."""
        tail, self._tail = self._tail, b""
        self._waited_for_others = True
        self.resume_reading()
        self.data_received(tail)
        if self.client_finished and not self._tail:
            self.persistent = False

    def pause_reading(self) -> None:
        """Read nothing of the socket until `resume_reading()`."""
        if not self.reading_paused and self.transport is not None and not self.transport.is_closing():
            self.reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read the socket again, if it was paused."""
        if self.reading_paused:
            self.reading_paused = False
            if self.transport is not None and not self.transport.is_closing():
                self.transport.resume_reading()

    def _refuse(self, exc: BadRequestError, data: bytes = b"") -> None:
        """A head is no valid request: answer that, and parse nothing more."""
        self._marks.head = 0.0
        if exc.request is None:
            exc.request = refused_request(bytes(self.reader.partial or data), exc.code == 414)
        if exc.request is not None and self._edge is not None:
            self._edge.take(self, exc.request)
        self._bad = exc.with_traceback(None)  # its frames would keep this connection alive
        self._intake = DISCARD
        self.persistent = False
        self.proceed()

    def proceed(self) -> None:
        """A request is there: process it now, in the name of the connection's task, until it has to wait for something.

        Most requests never do. They cost no step of the task, which is 0.5 us: `asyncio.current_task()` is that task
        all the same (by the way that asyncio documents for its extensions), but it goes on waiting meanwhile.
        """
        task = self._task
        wakeup = self._wakeup
        if task is not None and wakeup.callback is not None and not wakeup.held:
            loop = self.loop
            try:
                _enter_task(loop, task)
            except RuntimeError:  # called from within another task
                pass
            else:
                wakeup.held = True
                try:
                    self.go_on()
                except BaseException as exc:  # noqa: BLE001 -- raised again where the task's own exceptions are
                    self._rest = raising(exc)
                finally:
                    wakeup.held = False
                    _leave_task(loop, task)
                if self._rest is not None or self._intake >= DISCARD:
                    wakeup.wake()
                return
        if task is None:
            # Made with the first request: a connection that stays silent costs no task.
            self._new_task()
        elif wakeup.callback is not None:
            self.loop.call_soon(wakeup.wake)

    def go_on(self) -> None:
        """Process a request until it has to wait for something; then the rest is for the task to await."""
        writer = self.writer
        writer.corked = True
        context = self._context.copy()
        try:
            rest = context.run(self.process_request, context)
        finally:
            writer.corked = False
            if writer.due:
                writer.flush()
        if rest is not None:
            if offspring.strayed:
                offspring.end()
            self._rest = rest
            self._handler_waits()

    def step(self, exchange: Exchange, run: Callable[..., object], steps: Steps, error: BaseException | None) -> object:
        """Make a step of a handler that has waited; what it has written is flushed behind it.

        Args:
            exchange: whose handler it is.
            run: of its context.
            steps: the iterator.
            error: to be raised in it.

        Returns:
            What it waits for; DONE at its end.
        """
        writer = self.writer
        is_current = writer.exchange is exchange and self._intake != RAW and self.transport is not None
        if is_current:
            writer.corked = True
        try:
            waiting = run(next, steps, DONE) if error is None else run(steps.throw, error)
        except StopIteration:  # out of throw(), which has no default
            waiting = DONE
        except BaseException:
            if is_current:
                writer.corked = False  # flushed when it is clear what comes of it: the head says it, perhaps
            raise
        finally:
            error = None  # a frame and an exception that hold each other wait for the collector
        if is_current:
            writer.corked = False
            if writer.due:
                writer.flush()
            if waiting is not DONE:
                self._handler_waits()
        if offspring.strayed:
            offspring.end()
        return waiting

    def _handler_waits(self) -> None:
        exchange = self.writer.exchange
        if exchange is not None:
            exchange.has_waited = True
            exchange.observer.handler_waits()

    def _new_task(self) -> None:
        self._task = self.loop.create_task(self.start(), context=self._context)
        self._task.add_done_callback(self._task_is_done)

    def let_task_go(self) -> None:
        """The connection goes on without its task, which is in the rest of a request; the next one gets another."""
        if self._task is not None:
            self._task.remove_done_callback(self._task_is_done)
            self._task = None
            self.connections.active -= 1
            if self.transport is None:
                self._release()

    def _task_is_done(self, task: asyncio.Task[None]) -> None:
        """`start()` has ended: as it should, or by an exception or too early, which ends the connection."""
        self._task = None
        exc = asyncio.CancelledError() if task.cancelled() else task.exception()
        early = self.transport is not None and self.state in (
            ConnectionState.NEW, ConnectionState.ACTIVE, ConnectionState.IDLE
        )  # fmt: skip
        if self.served_by().outlives_cancellation and task.cancelled() and self.state is not ConnectionState.ACTIVE:
            early = False
        if isinstance(exc, Exception) or (exc is not None and task.cancelled() and not task.cancelling()):
            self.report_error("Error in start()", exc=exc)
        elif early and exc is None:
            self.report_error("start() has returned while its connection was open")
        if early or (exc is not None and self.state is ConnectionState.UPGRADED):
            self.abort()
            self.cancel_handler()  # a gateway's may not wait in the task
        rest, self._rest = self._rest, None
        if rest is not None:  # nobody has awaited it
            with contextlib.suppress(Exception):
                rest.close()
        if self.transport is None:
            self._release()
        elif self._message is not None or self._bad is not None:
            self.proceed()  # it came meanwhile, in a pipeline for instance

    def _release(self) -> None:
        """Nothing happens any more: undo the cycle of references, so that the connection is freed here and now."""
        self.writer.connection = None
        self.service = None

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
        if self.state is not ConnectionState.ACTIVE or self._intake != HOLD:
            raise ResponseError("a connection is taken over by the handler of a complete request")
        response = self.writer.response
        if response is None or response.sent_status != 101:
            raise ResponseError("a connection is taken over after its 101 response was sent")
        self.writer.flush()
        self.state = following(self.state, ConnectionEvent.UPGRADE)
        self._intake = RAW
        self._receiver = receiver
        early, self._tail = self._tail, b""
        self.resume_reading()
        return early

    def eof_received(self) -> bool:
        """The client will send no more (asyncio's call); what it has asked for is still answered.

        Not over TLS: there a half-close (a close_notify) ends the connection, as asyncio's TLS transports cannot keep
        one side open.
        """
        if self._receiver is not None:
            return bool(self._receiver.eof_received())
        self.client_finished = True
        intake = self._intake
        if intake == BODY:
            self._payload.set_exception(ClientDisconnectedError("the request body was cut"))
            self._intake = DISCARD
        if not self._tail:
            self.persistent = False
        if not self.client_has_closed():
            return False
        if self.state is ConnectionState.ACTIVE or self._message is not None or self._bad is not None:
            # A half-close; asyncio's TLS transports cannot keep one open and warn when they are asked to.
            return self.transport is not None and self.transport.can_write_eof()
        if self._may_leave_much() and self.untaken():
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

    def _give_up_later(self) -> None:
        self.loop.call_later(self.limits.disconnect_timeout, _give_up, ref(self))

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone (asyncio's call): the one teardown, from every exit."""
        if self.state is ConnectionState.CLOSED:
            return
        was = self.state
        self.state = following(was, ConnectionEvent.LOST)
        self._intake = DISCARD
        self.transport = None
        self._message = self._bad = None
        self._tail = b""
        self.connections.discard(self)
        self._payload.set_exception(ClientDisconnectedError("the client is gone"))
        self._payload = EMPTY_PAYLOAD
        self.writer.lose()
        exchange = self.writer.exchange
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.connection_lost(exc)
        if self._task is None:
            self._release()
        if (exchange is not None and exchange.observer.client_is_gone()) or receiver is not None:
            return  # what becomes of the handler's task is their business
        if self._task is None:
            return
        if (
            was is ConnectionState.ACTIVE
            or self._wakeup.callback is None
            or self._wakeup.held
            or self.deferred is not None  # aborted by us: not ACTIVE any more, and yet in a request
        ):
            self.cancel_handler()
        else:
            self._wakeup.wake()

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

    # The payload's calls.

    def pause_body(self) -> None:
        """The handler reads slower than the client sends."""
        self.pause_reading()

    def resume_body(self) -> None:
        """The handler has read."""
        if self._intake == BODY:
            self.resume_reading()

    def body_wanted(self) -> None:
        """The handler waits for the body: now the client may send it (RFC 9110 section 10.1.1)."""
        if self.continue_is_due:
            self.continue_is_due = False
            if self.writer.response is None:
                self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    @property
    def remote(self) -> str:
        """The client's address for the logs; `-` when it has none (a unix socket) or nobody knows it.

        Behind a trusted proxy it is the one that the proxy tells for the current request.
        """
        if self._remote is None:
            self._ask_client()
        return self._remote or "-"

    @property
    def peer_address(self) -> tuple[str, int] | None:
        """Address and port of whoever has opened the connection, as the socket or a PROXY header says; None: no such.

        With a proxy that speaks for its clients that is the proxy; `remote` and `message.forwarded` know the client.
        """
        if self._remote is None:
            self._ask_client()
        return self._client

    @property
    def peer_scheme(self) -> str:
        """How the client speaks to us, "http" or "https"; a trusted proxy may know better (`message.forwarded`)."""
        if not self._scheme:
            is_tls = self.transport is not None and self.transport.get_extra_info("sslcontext") is not None
            self._scheme = "https" if is_tls else "http"
        return self._scheme

    def _ask_client(self) -> None:
        self.remember_client(self.transport.get_extra_info("peername") if self.transport is not None else None)

    def remember_client(self, address: object) -> None:
        """Take the address of whoever has opened the connection, as sockets have it."""
        self._client = (str(address[0]), int(address[1])) if isinstance(address, tuple | list) and address else None
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
