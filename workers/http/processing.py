"""What is done with a request: its handler, what the handler raises, and what becomes of the connection behind it."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from time import monotonic
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from preforkd.workers import offspring
from preforkd.workers.http.access_log_format import NOT_SENT
from preforkd.workers.http.closing import BODY, DISCARD, HEAD, HOLD
from preforkd.workers.http.connection import HttpConnection
from preforkd.workers.http.done import DONE
from preforkd.workers.http.error_page import FINAL_STATUSES
from preforkd.workers.http.errors import ClientDisconnectedError, HttpProcessingError, ResponseError, overloaded
from preforkd.workers.http.exchange import Exchange
from preforkd.workers.http.payload import EMPTY_PAYLOAD
from preforkd.workers.http.states import ACTIVE, IDLE, ON_REQUEST, ConnectionEvent, ConnectionState, following
from preforkd.workers.http.tunnel import ConnectionTunnel
from preforkd.workers.http.waiter import Deferred, Ending, Rest, raising

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from preforkd.workers.http.access_log import AccessLog
    from preforkd.workers.http.deadlines import Allowance
    from preforkd.workers.http.errors import HeaderPairs
    from preforkd.workers.http.limits import Limits
    from preforkd.workers.http.message import RequestMessage
    from preforkd.workers.http.payload import PayloadStream
    from preforkd.workers.http.response import Response
    from preforkd.workers.http.waiter import Steps

# How a request gets into the access log. LINE and TIMED_LINE are what log_access() does, without its call.
NO_LOG, LINE, TIMED_LINE, CALL = range(4)

# An override of a log method that fails must not reach the client, nor end the connection. It does not wait, so a
# CancelledError out of it is its own.
LOG_MAY_FAIL = contextlib.suppress(Exception, asyncio.CancelledError)


class ProcessingConnection(HttpConnection):
    """A connection whose requests are processed.

    Attributes:
        access_log, allowed_methods: see `ServerHttpProtocol`.
    """

    __slots__ = (
        "_count_request", "_last_request", "_logging", "_times_requests", "access_log", "allowed_methods",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None,
        limits: Limits,
        allowed: Allowance,
        *,
        allowed_methods: frozenset[str],
        access_log: AccessLog | logging.Logger | None,
    ) -> None:
        super().__init__(loop, limits, allowed)
        self.allowed_methods = allowed_methods
        self.access_log = access_log
        self._last_request = limits.keep_alive_requests
        self._logging = NO_LOG
        self._times_requests = False
        self._count_request: Callable[[str, int, float], None] | None = None

    logger: logging.Logger

    # What `protocol.py` adds.

    def serve(self, exchange: Exchange) -> Awaitable[None]:
        """Answer a request."""
        raise NotImplementedError

    async def handle_error(
        self,
        status: int,
        message: RequestMessage | None,
        payload: PayloadStream,
        exc: BaseException | None,
        headers: HeaderPairs | None = None,
        reason: str | None = None,
    ) -> None:
        """Answer with an error."""
        raise NotImplementedError

    def _log_request(self, exchange: Exchange, response: Response | None) -> None:
        """Write a line to the access log, if there is one and it has not been written."""
        raise NotImplementedError

    def log_debug(self, *args: object) -> None:
        """Log for debugging."""
        raise NotImplementedError

    def _log_failure(self, text: str) -> None:
        """Log with the traceback of the current exception."""
        raise NotImplementedError

    @property
    def access_was_logged(self) -> bool:
        """Whether the current request needs no line of the access log any more; set by overrides of `log_access()`."""
        exchange = self.writer.exchange
        return exchange is not None and exchange.is_logged

    @access_was_logged.setter
    def access_was_logged(self, value: bool) -> None:
        exchange = self.writer.exchange
        if exchange is not None:
            exchange.is_logged = value

    # The requests.

    async def start(self) -> None:
        """Process the requests of this connection, one after the other, until it closes.

        Reads request line, headers and payload, calls `handle_request()`, and answers what it raises. The connection
        closes after the response unless `keep_alive(True)` was called for that request.
        """
        # What comes while this waits is processed at once, in its name (`serve()`); the rest of what has to wait, and
        # what could not be processed at once, is for this loop.
        task = self._task = asyncio.current_task()
        connections = self.connections
        while True:
            rest = self._rest
            if rest is not None:
                self._rest = None
                connections.active += 1
                try:
                    await rest
                finally:
                    if self._task is task:
                        connections.active -= 1
                if self._task is not task:
                    return  # another one has taken the connection over meanwhile
            elif self._message is not None or self._bad is not None:
                self.go_on()
                if self._message is not None:
                    await asyncio.sleep(0)  # a pipeline must not keep the loop from the other connections
            elif self._intake >= DISCARD:
                return
            else:  # not in a coroutine of its own, whose frame each idle connection would keep
                try:
                    await self._wakeup
                except asyncio.CancelledError as exc:
                    if not isinstance(self._rest, Rest):
                        raise
                    self._rest.error = exc  # a request has begun meanwhile: it is the one that is cancelled

    def process_request(self, context: Context) -> Rest | None:
        """Process the request that has come, or answer what is wrong with it, until it is over or has to wait.

        Args:
            context: that this is called in, the request's own.

        Returns:
            What is left; None when it is over, or goes on by itself.
        """
        # Flat: every request passes here, and each call saved is 1 % of the cost of a small one.
        message = self._message
        if self.state is not IDLE and ON_REQUEST[self.state] is None:  # closed before this had its turn
            self._message = self._bad = None
            return None
        self.state = ACTIVE
        self._message = None
        payload = self._payload
        writer = self.writer
        exchange = writer.exchange = Exchange()
        exchange.request = message  # type: ignore[assignment]  # None is refused below
        exchange.body = payload
        exchange.wire = writer
        exchange.carrier = self
        self.requests += 1
        if self.requests == self._last_request:
            self.persistent = False
        if self._times_requests:
            exchange.began = monotonic()
        try:
            if message is None or payload is not EMPTY_PAYLOAD or self.allowed_methods or self._has_guard:
                if message is None and self._bad is not None:
                    message = exchange.request = self._bad.request  # type: ignore[assignment]  # as above
                self._check_request(message, payload)
            service = self.service
            handling = self.serve(exchange) if service is None else service.serve(exchange)
            if handling is not DONE:
                if handling.__class__ is CoroutineType:
                    steps = handling.__await__()
                elif isinstance(handling, Deferred):
                    exchange.deferred = handling
                    self.connections.active += 1
                    return None
                else:
                    steps = _awaited(handling).__await__()
                waiting = next(steps, DONE)
                if waiting is not DONE:
                    return Rest(self, exchange, steps, waiting, context, partial(self._after_handler, exchange))
        except BaseException as exc:  # noqa: BLE001 -- raised again there if it is for the loop
            return self._begun(exchange, self._after_handler(exchange, exc), context)
        return self._begun(exchange, self._after_handler(exchange, None), context)

    def _begun(self, exchange: Exchange, steps: Steps | None, context: Context) -> Rest | None:
        """Make the first of these steps, in the current context, which is `context`; return what is left then."""
        if steps is None:
            return None
        waiting = next(steps, DONE)
        return None if waiting is DONE else Rest(self, exchange, steps, waiting, context)

    def _after_handler(self, exchange: Exchange, exc: BaseException | None) -> Steps | None:
        """The handler has returned, or raised `exc`: end its request.

        Returns:
            The steps that are left to do so; None: it is over.

        Raises:
            BaseException: `exc`, when it is for the loop.
        """
        if offspring.strayed:
            offspring.end(exc)
        writer = self.writer
        if exc is not None:
            if writer.exchange is not exchange or self._is_for_the_loop(exc, exchange):
                try:
                    raise exc
                finally:
                    del exc  # a frame and an exception that hold each other wait for the collector
            return self._finish_failed(exc, exchange).__await__()
        if writer.exchange is not exchange:  # the connection has gone on without this handler
            return None
        if exchange.has_waited and exchange.keeps_task and self.transport is not None:
            self.let_task_go()  # what knows it, as a timer that cancels it, has nothing to do with the next request
        response = writer.response
        if writer.due:
            writer.flush()
        if (
            response is None
            or not (response.ended and response.keeps and exchange.keep_alive)
            or self._intake != HOLD
            or self.client_finished
            or not self.persistent
            or writer.paused
        ):
            return self._finish_request(exchange).__await__()
        # A complete response on a connection that stays open: the same as _finish_request() does, in less.
        if response.sent_status >= 300:
            self.connections.count_other(response.sent_status)
        count = self._count_request
        if count is not None:
            count(exchange.request.method, response.sent_status, monotonic() - exchange.began)
        logging_way = self._logging
        if logging_way == NO_LOG:
            pass
        elif logging_way == CALL or exchange.is_logged:
            self._log_request(exchange, response)
        else:
            seconds = monotonic() - exchange.began if logging_way == TIMED_LINE else 0.0
            log: Any = self.access_log
            try:
                log.log(exchange.request, response, None, seconds, self._remote or self.remote)
            except Exception:  # noqa: BLE001 -- a broken log must not reach the client
                self._log_failure("Error in the access log")
        writer.response = writer.exchange = None
        self.state = IDLE
        self._intake = HEAD
        if exchange.body is not EMPTY_PAYLOAD:
            self._payload = EMPTY_PAYLOAD
        if self._tail:
            self.take_tail()
        return None

    async def _finish_failed(self, exc: BaseException, exchange: Exchange) -> None:
        """End a request whose handler has raised."""
        traceback = exc.__traceback__
        try:
            raise exc  # noqa: TRY301 -- an override of handle_error() may want to know what is being handled
        except BaseException:  # noqa: BLE001 -- as above
            exc.__traceback__ = traceback  # without this frame
            answered = await self._answer_failure(exc, exchange)
        finally:
            del exc, traceback  # a frame and an exception that hold each other wait for the collector
        if not answered:
            self._count(self.writer.response)
            self.abandon(exchange)
            if self.writer.exchange is exchange:
                self.writer.exchange = None
        if self.writer.exchange is not exchange:
            return
        if self.writer.due:
            self.writer.flush()
        await self._finish_request(exchange)

    # A request that goes on without the task.

    def end_deferred(self, exchange: Exchange, error: BaseException | None) -> None:
        """What a service has returned instead of a coroutine has come to its end.

        Args:
            exchange: what it answers.
            error: what it has raised; None: nothing.
        """
        if exchange is not self.writer.exchange or exchange.deferred is None:
            raise AssertionError("there is no deferred request")
        exchange.deferred = None
        self.connections.active -= 1
        try:
            steps = self._after_handler(exchange, error)
        except BaseException as exc:  # noqa: BLE001 -- raised again where the task's own exceptions are
            self._rest = raising(exc)
        else:
            if steps is None:
                return
            self._rest = Ending(self, exchange, steps, None, self._context.copy())
        self._wakeup.wake()

    def cancel_handler(self) -> None:
        """Cancel the handler of the current request, if there is one."""
        exchange = self.writer.exchange
        deferred = exchange.deferred if exchange is not None else None
        if exchange is not None and deferred is not None:
            # The task has to wait for it like for any other, to be cancelled.
            exchange.deferred = None
            self.connections.active -= 1
            then = partial(self._after_handler, exchange)
            steps = deferred.__await__()
            self._rest = Rest(self, exchange, steps, next(steps), self._context.copy(), then)
            deferred.abandon()  # the task may be cancelled before it waits for it
            self._wakeup.wake()
        super().cancel_handler()

    def _check_request(self, message: RequestMessage | None, payload: PayloadStream) -> None:
        """Raise what a request is refused for before its handler is called."""
        bad = self._bad or payload.exception()
        self._bad = None
        if bad is not None:
            self._count_rejected(getattr(bad, "code", 400))
            try:
                raise bad
            finally:
                del bad  # a frame and an exception that hold each other wait for the collector
        connections = self.connections
        if 0 < connections.limit_concurrency <= connections.active:
            self._count_rejected(503)
            raise overloaded()
        waited_for_others, self._waited_for_others = self._waited_for_others, False
        if connections.queue_time is not None and not waited_for_others and connections.queue_time.is_over(self):
            self._count_rejected(503)
            raise overloaded()
        if message is not None and self.allowed_methods and message.method not in self.allowed_methods:
            self._count_rejected(405)
            raise HttpProcessingError(405, headers={"Allow": ", ".join(sorted(self.allowed_methods))})

    def _count_rejected(self, status: int) -> None:
        if self.connections.counters is not None:
            self.connections.counters.rejected(status)

    def _is_for_the_loop(self, exc: BaseException, exchange: Exchange) -> bool:
        """Whether an exception of a handler ends the connection's task: the loop's own cancellation, KeyboardInterrupt.

        Nothing is raised here: a frame and an exception that hold each other wait for the collector.
        """
        if isinstance(exc, asyncio.CancelledError):
            if self.transport is None or self.state is not ConnectionState.ACTIVE or exchange.has_expired:
                return False
            if self._task is None or not self._task.cancelling():
                return False
        elif isinstance(exc, Exception):
            return False
        self._count(self.writer.response)
        self.abandon(exchange)
        self.abort()
        self.writer.exchange = None  # nobody will end it
        return True

    async def _answer_failure(self, exc: BaseException, exchange: Exchange) -> bool:
        """Answer what a handler raised; false: there is nobody to answer."""
        if self.state is ConnectionState.UPGRADED:
            if not isinstance(exc, ClientDisconnectedError | asyncio.CancelledError):
                self.report_error(
                    "Error in the handler that has taken over the connection of %s", exchange.request, exc=exc
                )
            self.abort()
            return True
        if self.transport is None or self.state is not ConnectionState.ACTIVE:
            return False
        if exchange.has_expired and isinstance(exc, asyncio.CancelledError) and self._task is not None:
            self._task.uncancel()
            exc = HttpProcessingError(503, "The request took too long")
        if isinstance(exc, ClientDisconnectedError):
            with LOG_MAY_FAIL:
                self.log_debug("The client is gone: %s", exc)
        elif isinstance(exc, HttpProcessingError) and exc.code in FINAL_STATUSES:
            await self._handle_error(exchange, exc.code, exc, exc.headers, exc.message or None)
        else:
            await self._handle_error(exchange, 500, exc)
        return True

    async def _handle_error(self, exchange: Exchange, status: int, *args: object) -> None:
        """Call `handle_error()`, which a subclass may have overridden and which may fail in turn."""
        exchange.keep_alive = False  # said in a head that is still to be written, whatever the override waits for
        try:
            await self.handle_error(status, exchange.request, exchange.body, *args)  # type: ignore[arg-type]  # passed on as they came
        except Exception:  # noqa: BLE001 -- a subclass's own: the connection closes whatever it did
            self._log_failure("Error in handle_error()")
        except asyncio.CancelledError:
            if self._task is None or self._task.cancelling():
                raise
            self._log_failure("Error in handle_error()")
        exchange.keep_alive = False

    async def _answer_nothing(self, exchange: Exchange) -> Response | None:
        """The handler left without a complete response."""
        response = self.writer.response
        if exchange.needs_no_answer:
            if response is None:
                return None
            exchange.keep_alive = False
        if response is None and self.transport is not None and exchange.body.exception() is None:
            await self._handle_error(exchange, 500, ResponseError("the handler has not answered"))
            self.writer.flush()
            response = self.writer.response
        elif response is not None and exchange.keep_alive is not False:
            self.report_error("The handler has not finished its response to %s", exchange.request)
        if response is not None and not response.is_complete:
            response.fail()
        self._count(response)
        return response if response is not None and response.headers_sent else None

    def _count(self, response: Response | None) -> None:
        status = response.sent_status if response is not None else NOT_SENT
        if not 200 <= status < 300:
            self.connections.count_other(status)
        if self._count_request is not None:
            method = "" if self.request is None else self.request.method
            self._count_request(method, 0 if response is None else status, monotonic() - self.request_began)

    async def _finish_request(self, exchange: Exchange) -> None:
        """End a request, whatever has become of it."""
        response = self.writer.response
        if response is None or not response.is_complete:
            response = await self._answer_nothing(exchange)
        else:
            self._count(response)
            if self.writer.paused:
                await self._wait_until_read(response)
        self._end_request(exchange, response)

    async def _wait_until_read(self, response: Response) -> None:
        """The next request has to wait: a client that sends and does not read must not fill the memory.

        If there is to be none it is the line of the access log that waits: it says what of the response has gone out.
        """
        try:
            await self.writer.drain()
        except ClientDisconnectedError:
            response.cut_short(self.writer.lost)
        except asyncio.CancelledError:
            response.cut_short(self.writer.lost or self.writer.unsent())
            if self.transport is not None:
                self.abort()  # and the task ends, as it was told to

    def abandon(self, exchange: Exchange) -> None:
        """Write the line of a request that ends without the rest of its response: its client has left, or it was cut.

        Whatever is done with the request later, it has had its line.
        """
        writer = self.writer
        if writer.exchange is not exchange:
            return
        response = writer.response
        if response is not None and response.head_is_due:
            response = writer.response = None  # it has not been sent, and will not be
        if response is not None and (writer.paused or not response.is_complete):
            response.cut_short(writer.lost or writer.unsent())
        if self._logging != NO_LOG:
            self._log_request(exchange, response)
            exchange.is_logged = True

    def _end_request(self, exchange: Exchange, response: Response | None) -> None:
        """Go on to the next request, or close; what was to be sent has been written."""
        if response is not None and not response.is_complete:
            response.cut = True
        if self._logging != NO_LOG:
            self._log_request(exchange, response)
        self.writer.response = self.writer.exchange = None
        if self.state is not ConnectionState.ACTIVE:  # closed meanwhile, or taken over by another protocol
            return
        if response is not None and response.is_complete:
            response.ended = True  # whoever still has it must not write into the next one
        payload = self._payload
        if payload is not EMPTY_PAYLOAD and not payload.is_complete and payload.exception() is None:
            payload.set_exception(ClientDisconnectedError("the request is over"))  # a task may still wait for it
        if response is not None and response.ends_with_connection and not response.is_complete:
            self.reset()
            return
        is_over = self._intake == DISCARD or (self.client_finished and not self._tail)
        if is_over or response is None or not (response.keeps and response.is_complete and exchange.keep_alive):
            # Lingering costs a turn more: not when the client has said that it sends nothing more, and has not.
            message = exchange.request
            self.close(linger=self._intake != HOLD or bool(self._tail) or message is None or not message.should_close)
            return
        self.state = following(self.state, ConnectionEvent.KEPT)
        self._payload = EMPTY_PAYLOAD
        if self._intake == BODY:
            self._drain_body()
        else:
            self._intake = HEAD
            if self._tail:
                self.take_tail()
        if self._marks.cut:
            self.close_when_idle()  # closing() came when the head had already said keep-alive

    def detach(self, exchange: Exchange) -> bool:
        """End an exchange whose response is complete: its handler goes on in its task without it.

        Returns:
            False: it cannot be ended yet, for the task has not taken over what the handler waits for.
        """
        if self._rest is not None or self.writer.exchange is not exchange:
            return False
        self.let_task_go()
        response = self.writer.response
        self._count(response)
        self._end_request(exchange, response)
        return True

    def expire(self, exchange: Exchange) -> None:
        """An exchange takes too long, by its service's own clock."""
        if exchange is self.writer.exchange:
            self.expire_request()

    def tunnel(self, exchange: Exchange) -> ConnectionTunnel:  # noqa: ARG002 -- HTTP/2 would have one for each
        """Return the way past HTTP; closed until it is opened."""
        return ConnectionTunnel(self)

    def expire_request(self) -> None:
        """The request takes too long: cancel the handler and answer 503; abort when it does not end even then."""
        exchange = self.writer.exchange
        if exchange is not None:
            if exchange.has_expired:
                self.cut()
            exchange.has_expired = True
        self.persistent = False  # also when the handler answers in spite of its cancellation
        self.cancel_handler()


async def _awaited(awaitable: Awaitable[None]) -> None:
    """Await what is no coroutine, as one."""
    await awaitable
