"""What is done with a request: its handler, what the handler raises, and what becomes of the connection behind it."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from time import monotonic
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from preforkd.workers import offspring
from preforkd.workers.http import compiled
from preforkd.workers.http.done import DONE
from preforkd.workers.http.errors import ClientDisconnectedError, HttpProcessingError, ResponseError, overloaded
from preforkd.workers.http.exchange import Exchange
from preforkd.workers.http.failing import answer_error, answer_failure, is_for_the_loop
from preforkd.workers.http.intake import DISCARD, HEAD, KEEP
from preforkd.workers.http.payload import EMPTY_PAYLOAD
from preforkd.workers.http.reporting import Reporting
from preforkd.workers.http.states import ACTIVE, IDLE, ON_REQUEST, ConnectionEvent, ConnectionState, following
from preforkd.workers.http.waiter import Continuation, Deferred, Epilogue, InSteps, raising

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine
    from contextvars import Context

    from preforkd.workers.http.closing import Closer
    from preforkd.workers.http.host import Host
    from preforkd.workers.http.intake import Intake
    from preforkd.workers.http.message import RequestMessage
    from preforkd.workers.http.payload import PayloadStream
    from preforkd.workers.http.response import Response
    from preforkd.workers.http.running import Runner
    from preforkd.workers.http.waiter import Resumable
    from preforkd.workers.http.writer import ResponseWriter

_OPEN = (ConnectionState.NEW, ConnectionState.ACTIVE, ConnectionState.IDLE)


@compiled.in_both_forms
class Handling:
    """Handles the requests of one connection.

    Args:
        connection: whose requests they are.
        intake: where they come from.
        writer: where their responses go.
        runner: runs their handlers.
        closer: ends the connection.
        last_request: the number of the request behind which the connection closes; 0: none.
    """

    __slots__ = (
        "_closer", "_connection", "_connections", "_has_guard", "_intake", "_last_request", "_reporting", "_runner",
        "_writer",
    )  # fmt: skip

    def __init__(
        self,
        connection: Host,
        intake: Intake,
        writer: ResponseWriter,
        runner: Runner,
        closer: Closer,
        last_request: int,
    ) -> None:
        connections = connection.connections
        self._connection = connection
        self._connections = connections
        self._intake = intake
        self._writer = writer
        self._runner = runner
        self._closer = closer
        self._last_request = last_request
        self._has_guard = connections.limit_concurrency > 0 or connections.queue_time is not None
        self._reporting = Reporting(connection)

    # What the runner asks for.

    def start(self) -> Coroutine[Any, Any, None]:
        """Process requests, from the first one on, or with another task than before."""
        connection = self._connection
        if not connection.requests:
            self._reporting.begin()
        return connection.start()

    def handler_waits(self) -> None:
        """The handler of the current request waits for something."""
        exchange = self._writer.exchange
        if exchange is not None:
            exchange.has_waited = True
            exchange.observer.handler_waits()

    def task_was_let_go(self) -> None:
        """What the task has in hand goes on without the connection."""
        self._connections.active -= 1
        if self._connection.transport is None:
            self._connection.release()

    def task_is_done(self, task: asyncio.Task[None]) -> None:
        """The task has ended: as it should, or by an exception or too early, which ends the connection."""
        connection, runner = self._connection, self._runner
        runner.task = None
        state = connection.state
        exc = asyncio.CancelledError() if task.cancelled() else task.exception()
        early = connection.transport is not None and state in _OPEN
        if connection.served_by().outlives_cancellation and task.cancelled() and state is not ConnectionState.ACTIVE:
            early = False
        if isinstance(exc, Exception) or (exc is not None and task.cancelled() and not task.cancelling()):
            connection.report_error("Error in start()", exc=exc)
        elif early and exc is None:
            connection.report_error("start() has returned while its connection was open")
        if early or (exc is not None and state is ConnectionState.UPGRADED):
            connection.abort()
            self.cancel_handler()  # a gateway's may not wait in the task
        rest, runner.rest = runner.rest, None
        if rest is not None:  # nobody has awaited it
            with contextlib.suppress(Exception):
                rest.close()
        if connection.transport is None:
            connection.release()
        elif self._intake.has_request:
            runner.proceed()  # it came meanwhile, in a pipeline for instance

    # The requests.

    def process_request(self, context: Context) -> Continuation | None:
        """Process the request that has come, or answer what is wrong with it, until it is over or has to wait.

        Args:
            context: that this is called in, the request's own.

        Returns:
            What is left; None when it is over, or goes on by itself.
        """
        # Flat: every request passes here, and each call saved is 1 % of the cost of a small one.
        exchange = self._begin()
        if exchange is None:
            return None
        try:
            handling = self._serve(exchange)
            if handling is not DONE:
                if isinstance(handling, Deferred):
                    exchange.deferred = handling
                    self._connections.active += 1
                    return None
                steps = steps_of(handling)
                waiting = next(steps, DONE)
                if waiting is not DONE:
                    return self._rest_of(exchange, steps, waiting, context)
        except BaseException as exc:  # noqa: BLE001 -- raised again there if it is for the loop
            return self._begun(exchange, self._after_handler(exchange, exc), context)
        return self._begun(exchange, self._after_handler(exchange, None), context)

    async def process_alone(self) -> None:
        """Process the request that has come in a task of its own; what the task does.

        If its handler does not wait after all, the task is the connection's from then on, as any other.
        """
        runner = self._runner
        task = runner.task
        exchange = self._begin()
        runner.expects_wait = False
        if exchange is not None:
            error: BaseException | None = None
            self._connections.active += 1
            try:
                try:
                    handling = self._serve(exchange)
                    if handling is not DONE:
                        await InSteps(runner.steps_of(exchange, steps_of(handling)))
                except BaseException as exc:  # noqa: BLE001 -- raised again there if it is for the loop
                    error = exc
                steps = self._after_handler(exchange, error)
                if steps is not None:
                    await InSteps(runner.steps_of(exchange, steps))
            finally:
                error = None  # a frame and an exception that hold each other wait for the collector
                if runner.task is task:
                    self._connections.active -= 1
        if runner.task is not task:
            return
        if task is not None and task.cancelling():
            raise asyncio.CancelledError  # of this request: the next one gets another task
        await runner.run()

    def _begin(self) -> Exchange | None:
        """Make an exchange of the request that has come; None: the connection was closed before it had its turn."""
        connection, intake = self._connection, self._intake
        message = intake.message
        if connection.state is not IDLE and ON_REQUEST[connection.state] is None:
            intake.message = intake.bad = None
            return None
        connection.state = ACTIVE
        intake.message = None
        payload = intake.payload
        writer = self._writer
        # None is refused before it is served.
        exchange = writer.exchange = Exchange(message, payload, writer, connection)  # type: ignore[arg-type]
        connection.requests += 1
        if connection.requests == self._last_request:
            connection.persistent = False
        if self._reporting.wants_time:
            exchange.began = monotonic()
        return exchange

    def _serve(self, exchange: Exchange) -> Awaitable[None]:
        """Have a request answered, or refuse it."""
        connection = self._connection
        message: RequestMessage | None = exchange.request
        if message is None or exchange.body is not EMPTY_PAYLOAD or connection.allowed_methods or self._has_guard:
            if message is None and self._intake.bad is not None:
                message = exchange.request = self._intake.bad.request  # type: ignore[assignment]  # it is refused
            self._check_request(message, exchange.body)
        service = connection._service
        return connection.serve(exchange) if service is None else service.serve(exchange)

    def _rest_of(self, exchange: Exchange, steps: Resumable, waiting: object, context: Context) -> Continuation:
        """Return what is left of a handler that has made its first step, in `context`, and waits for something."""
        return Continuation(self._runner, exchange, steps, waiting, context, partial(self._after_handler, exchange))

    def _failed(self, exchange: Exchange, exc: BaseException, context: Context) -> Continuation | None:
        """Do what `process_request()` does where a handler has raised, which is being handled meanwhile."""
        traceback = exc.__traceback__
        try:
            raise exc  # noqa: TRY301 -- so that it is what is being handled
        except BaseException:  # noqa: BLE001 -- as above
            exc.__traceback__ = traceback  # without this frame
            return self._begun(exchange, self._after_handler(exchange, exc), context)
        finally:
            del exc, traceback  # a frame and an exception that hold each other wait for the collector

    def _begun(self, exchange: Exchange, steps: Resumable | None, context: Context) -> Continuation | None:
        """Make the first of these steps, in the current context, which is `context`; return what is left then."""
        if steps is None:
            return None
        waiting = next(steps, DONE)
        return None if waiting is DONE else Continuation(self._runner, exchange, steps, waiting, context)

    def _after_handler(self, exchange: Exchange, exc: BaseException | None) -> Resumable | None:
        """The handler has returned, or raised `exc`: end its request.

        Returns:
            The steps that are left to do so; None: it is over.

        Raises:
            BaseException: `exc`, when it is for the loop.
        """
        if offspring.strayed:
            offspring.end(exc)
        writer = self._writer
        if exc is not None:
            if writer.exchange is not exchange or self._gives_up(exc, exchange):
                try:
                    raise exc
                finally:
                    del exc  # a frame and an exception that hold each other wait for the collector
            return self._finish_failed(exc, exchange).__await__()
        if writer.exchange is not exchange:  # the connection has gone on without this handler
            return None
        connection, intake = self._connection, self._intake
        if exchange.has_waited and exchange.keeps_task and connection.transport is not None:
            # What knows it, as a timer that cancels it, has nothing to do with the next request.
            self._runner.let_task_go()
        response = writer.response
        if writer.due:
            writer.flush(is_last=True)
        if (
            response is None
            or not (response.ended and response.keeps and exchange.keep_alive)
            or intake.phase is not KEEP
            or connection.client_finished
            or not connection.persistent
            or writer.paused
        ):
            if response is None or not response.is_complete or writer.paused:
                return self._finish_request(exchange).__await__()
            self._reporting.count(exchange, response)
            self._end_request(exchange, response)
            return None
        # A complete response on a connection that stays open: the same as _finish_request() does, in less.
        self._reporting.complete(exchange, response)
        writer.response = writer.exchange = None
        connection.state = IDLE
        intake.phase = HEAD
        if exchange.body is not EMPTY_PAYLOAD:
            intake.payload = EMPTY_PAYLOAD
        if intake.tail and intake.take_tail():
            self._runner.proceed()
        return None

    async def _finish_failed(self, exc: BaseException, exchange: Exchange) -> None:
        """End a request whose handler has raised."""
        traceback = exc.__traceback__
        try:
            raise exc  # noqa: TRY301 -- an override of handle_error() may want to know what is being handled
        except BaseException:  # noqa: BLE001 -- as above
            exc.__traceback__ = traceback  # without this frame
            answered = await answer_failure(exc, self._connection, self._runner, exchange)
        finally:
            del exc, traceback  # a frame and an exception that hold each other wait for the collector
        if not answered:
            self._reporting.count(exchange, self._writer.response)
            self.abandon(exchange)
            if self._writer.exchange is exchange:
                self._writer.exchange = None
        if self._writer.exchange is not exchange:
            return
        if self._writer.due:
            self._writer.flush()
        await self._finish_request(exchange)

    # A request that goes on without the task.

    def end_deferred(self, exchange: Exchange, error: BaseException | None) -> None:
        """What a service has returned instead of a coroutine has come to its end.

        Args:
            exchange: what it answers.
            error: what it has raised; None: nothing.
        """
        if exchange is not self._writer.exchange or exchange.deferred is None:
            raise AssertionError("there is no deferred request")
        exchange.deferred = None
        self._connections.active -= 1
        try:
            steps = self._after_handler(exchange, error)
        except BaseException as exc:  # noqa: BLE001 -- raised again where the task's own exceptions are
            self._runner.await_now(raising(exc))
        else:
            if steps is not None:
                runner = self._runner
                runner.await_now(Epilogue(runner, exchange, steps, None, runner.context.copy()))

    def cancel_handler(self) -> None:
        """Cancel the handler of the current request, if there is one."""
        exchange = self._writer.exchange
        deferred = exchange.deferred if exchange is not None else None
        if exchange is not None and deferred is not None:
            # The task has to wait for it like for any other, to be cancelled.
            exchange.deferred = None
            self._connections.active -= 1
            then = partial(self._after_handler, exchange)
            steps = deferred.__await__()
            runner = self._runner
            runner.rest = Continuation(runner, exchange, steps, next(steps), runner.context.copy(), then)
            deferred.abandon()  # the task may be cancelled before it waits for it
            runner.wakeup.wake()
        self._runner.cancel()

    def _check_request(self, message: RequestMessage | None, payload: PayloadStream) -> None:
        """Raise what a request is refused for before its handler is called."""
        intake = self._intake
        bad = intake.bad or payload.exception()
        intake.bad = None
        if bad is not None:
            self._reporting.count_rejected(getattr(bad, "code", 400))
            try:
                raise bad
            finally:
                del bad  # a frame and an exception that hold each other wait for the collector
        connections = self._connections
        if 0 < connections.limit_concurrency <= connections.active:
            self._reporting.count_rejected(503)
            raise overloaded()
        waited_for_others, intake.waited_for_others = intake.waited_for_others, False
        if (
            connections.queue_time is not None
            and not waited_for_others
            and connections.queue_time.is_over(self._connection)
        ):
            self._reporting.count_rejected(503)
            raise overloaded()
        connection = self._connection
        if message is not None and connection.allowed_methods and message.method not in connection.allowed_methods:
            self._reporting.count_rejected(405)
            raise HttpProcessingError(405, headers={"Allow": ", ".join(sorted(connection.allowed_methods))})

    def _gives_up(self, exc: BaseException, exchange: Exchange) -> bool:
        """Whether an exception is for the loop, and no more is done for the request.

        Nothing is raised here: a frame and an exception that hold each other wait for the collector.
        """
        connection = self._connection
        if not is_for_the_loop(exc, connection, self._runner, exchange):
            return False
        self._reporting.count(exchange, self._writer.response)
        self.abandon(exchange)
        connection.abort()
        self._writer.exchange = None  # nobody will end it
        return True

    async def _answer_nothing(self, exchange: Exchange) -> Response | None:
        """The handler left without a complete response."""
        response = self._writer.response
        if exchange.needs_no_answer:
            if response is None:
                return None
            exchange.keep_alive = False
        if response is None and self._connection.transport is not None and exchange.body.exception() is None:
            error = ResponseError("the handler has not answered")
            await answer_error(self._connection, self._runner, exchange, 500, error)
            self._writer.flush()
            response = self._writer.response
        elif response is not None and exchange.keep_alive is not False:
            self._connection.report_error("The handler has not finished its response to %s", exchange.request)
        if response is not None and not response.is_complete:
            response.fail()
        self._reporting.count(exchange, response)
        return response if response is not None and response.headers_sent else None

    async def _finish_request(self, exchange: Exchange) -> None:
        """End a request, whatever has become of it."""
        response = self._writer.response
        if response is None or not response.is_complete:
            response = await self._answer_nothing(exchange)
        else:
            self._reporting.count(exchange, response)
            if self._writer.paused:
                await self._wait_until_read(response)
        self._end_request(exchange, response)

    async def _wait_until_read(self, response: Response) -> None:
        """The next request has to wait: a client that sends and does not read must not fill the memory.

        If there is to be none it is the line of the access log that waits: it says what of the response has gone out.
        """
        try:
            await self._writer.drain()
        except ClientDisconnectedError:
            response.cut_short(self._writer.lost)
        except asyncio.CancelledError:
            response.cut_short(self._writer.lost or self._writer.unsent())
            if self._connection.transport is not None:
                self._connection.abort()  # and the task ends, as it was told to

    def abandon(self, exchange: Exchange) -> None:
        """Write the line of a request that ends without the rest of its response: its client has left, or it was cut.

        Whatever is done with the request later, it has had its line.
        """
        writer = self._writer
        if writer.exchange is not exchange:
            return
        response = writer.response
        if response is not None and response.head_is_due:
            response = writer.response = None  # it has not been sent, and will not be
        if response is not None and (writer.paused or not response.is_complete):
            response.cut_short(writer.lost or writer.unsent())
        self._reporting.log(exchange, response)
        exchange.is_logged = True

    def _end_request(self, exchange: Exchange, response: Response | None) -> None:
        """Go on to the next request, or close; what was to be sent has been written."""
        if response is not None and not response.is_complete:
            response.cut = True
        self._reporting.log(exchange, response)
        self._writer.response = self._writer.exchange = None
        if self._connection.state is not ConnectionState.ACTIVE:  # closed meanwhile, or taken over by another protocol
            return
        if response is not None and response.is_complete:
            response.ended = True  # whoever still has it must not write into the next one
        payload = self._intake.payload
        if payload is not EMPTY_PAYLOAD and not payload.is_complete and payload.exception() is None:
            payload.set_exception(ClientDisconnectedError("the request is over"))  # a task may still wait for it
        if response is not None and response.ends_with_connection and not response.is_complete:
            self._connection.reset()
            return
        connection, intake = self._connection, self._intake
        is_over = intake.phase is DISCARD or (connection.client_finished and not intake.tail)
        if is_over or response is None or not (response.keeps and response.is_complete and exchange.keep_alive):
            # Lingering costs a turn more: not when the client has said that it sends nothing more, and has not.
            message = exchange.request
            says_close = message is not None and message.should_close
            connection.close(linger=intake.phase is not KEEP or bool(intake.tail) or not says_close)
            return
        connection.state = following(connection.state, ConnectionEvent.KEPT)
        if intake.next_request():
            self._runner.proceed()
        if self._closer.times.cut:
            self._closer.close_when_idle()  # closing() came when the head had already said keep-alive

    def detach(self, exchange: Exchange) -> bool:
        """End an exchange whose response is complete: its handler goes on in its task without it.

        Returns:
            False: it cannot be ended yet, for the task has not taken over what the handler waits for.
        """
        if self._runner.rest is not None or self._writer.exchange is not exchange:
            return False
        self._runner.let_task_go()
        response = self._writer.response
        self._reporting.count(exchange, response)
        self._end_request(exchange, response)
        return True

    def expire_request(self) -> None:
        """The request takes too long: cancel the handler and answer 503; abort when it does not end even then."""
        exchange = self._writer.exchange
        if exchange is not None:
            if exchange.has_expired:
                self._connection.cut()
            exchange.has_expired = True
        self._connection.persistent = False  # also when the handler answers in spite of its cancellation
        self.cancel_handler()


def steps_of(awaitable: Awaitable[None]) -> Resumable:
    """Return the steps of whatever a handler has returned; a coroutine around what is none checks what it gives."""
    if awaitable.__class__ is CoroutineType:
        return awaitable.__await__()
    return _awaited(awaitable).__await__()


async def _awaited(awaitable: Awaitable[None]) -> None:
    """Await what is no coroutine, as one."""
    await awaitable
