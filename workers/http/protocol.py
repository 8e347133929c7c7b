"""`ServerHttpProtocol`: the processing of requests, as the seed's contract says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Iterable, Mapping
from contextvars import Context
from functools import partial
from time import monotonic
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from preforkd.workers.http.access_log import AccessLog
from preforkd.workers.http.access_log_format import DEFAULT_FORMAT, compile_format
from preforkd.workers.http.closing import BODY, DISCARD, HEAD, HOLD
from preforkd.workers.http.connection import HttpConnection
from preforkd.workers.http.deadlines import Allowance
from preforkd.workers.http.error_page import FINAL_STATUSES, fields_of, page_of
from preforkd.workers.http.errors import (
    ClientDisconnectedError,
    HeaderPairs,
    HttpProcessingError,
    ResponseError,
)
from preforkd.workers.http.limits import limits_from
from preforkd.workers.http.message import RequestMessage
from preforkd.workers.http.payload import EMPTY_PAYLOAD, PayloadStream
from preforkd.workers.http.response import Response
from preforkd.workers.http.states import ACTIVE, IDLE, ON_REQUEST, ConnectionEvent, ConnectionState, following
from preforkd.workers.http.waiter import Deferred, Rest, begun, raising
from preforkd.workers.http.writer import DONE

if TYPE_CHECKING:
    from preforkd.workers.http.waiter import Steps

server_logger = logging.getLogger("preforkd.server")

# How a request gets into the access log. LINE and TIMED_LINE are what log_access() does, without its call.
NO_LOG, LINE, TIMED_LINE, CALL = range(4)

_NOTHING_SAID: bool | None = None  # with a type that tells mypy that the handler may change it

# An override of a log method that fails must not reach the client, nor end the connection. It does not wait, so a
# CancelledError out of it is its own.
_LOG_MAY_FAIL = contextlib.suppress(Exception, asyncio.CancelledError)


class ServerHttpProtocol(HttpConnection):
    """HTTP/1.1 on one connection; subclasses override `handle_request()`.

    Works with any asyncio loop: `loop.create_server(lambda: Handler(debug=True, keep_alive=75), host, port)`.

    Attributes:
        deferred: the request that is being handled, if its handler has returned that (for gateways).
    """

    __slots__ = (
        "_access_was_logged", "_keep_alive_timeout", "_last_request", "_logging", "_request_expired", "access_log",
        "access_log_format", "allowed_methods", "debug", "deferred", "host", "logger", "port",
    )  # fmt: skip

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        keep_alive: float | None = 75,
        keep_alive_on: bool = True,
        timeout: float = 0,
        allowed_methods: Iterable[str] = (),
        logger: logging.Logger = server_logger,
        access_log: AccessLog | logging.Logger | None = None,
        access_log_format: str = DEFAULT_FORMAT,
        host: str = "",
        port: int = 0,
        debug: bool = False,
        log: logging.Logger | None = None,
        **kwargs: float,
    ) -> None:
        limits = limits_from(kwargs)
        allowed = Allowance(
            timeout or 0, keep_alive or 0, limits.body_timeout, limits.request_timeout, limits.write_timeout
        )
        super().__init__(loop, limits, allowed)
        self._keep_alive_timeout = keep_alive or 0
        self._last_request = limits.keep_alive_requests
        self.persistent = bool(keep_alive) and keep_alive_on
        self.allowed_methods = frozenset(allowed_methods)
        self.logger = log or logger
        self.access_log = access_log
        self.access_log_format = access_log_format
        compile_format(access_log_format)  # an unknown atom is refused here, not when the first request is logged
        self.host = host
        self.port = port
        self.debug = debug
        self._logging = NO_LOG
        self.deferred: Deferred | None = None
        self._request_expired = self._access_was_logged = False

    def _new_task(self) -> None:
        # How to log is decided here and not in __init__: a subclass may set its access log behind that, or in its
        # connection_made().
        access_log = self.access_log
        if type(self).log_access is not ServerHttpProtocol.log_access:
            self._logging = CALL
        elif isinstance(access_log, AccessLog):
            self._logging = TIMED_LINE if access_log.needs_seconds else LINE
        else:
            self._logging = NO_LOG if access_log is None else CALL
        super()._new_task()

    @property
    def keep_alive_timeout(self) -> float:
        """Seconds before an idle connection closes; 0: none is kept."""
        return self._keep_alive_timeout

    def keep_alive(self, val: bool) -> None:
        """Say whether the connection stays open after the current request; it does not when nothing is said."""
        self.keep_alive_wish = val

    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:  # noqa: ARG002
        """Answer a request; to be overridden. This one answers 404.

        Args:
            message: request line and headers.
            payload: the body.

        Raises:
            HttpProcessingError: answered with its status.
        """
        raise HttpProcessingError(404)

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
            else:
                await self._wait_for_request()

    async def _wait_for_request(self) -> None:
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
        self.request = message
        self.keep_alive_wish = _NOTHING_SAID
        self.requests += 1
        if self.requests == self._last_request:
            self.persistent = False
        started = monotonic() if self._logging >= TIMED_LINE else 0.0
        payload = self._payload
        try:
            if (
                message is None
                or payload is not EMPTY_PAYLOAD
                or self.allowed_methods
                or self.connections.limit_concurrency
            ):
                if message is None and self._bad is not None:
                    message = self.request = self._bad.request
                self._check_request(message, payload)
            handling = self.handle_request(message, payload)  # type: ignore[arg-type]  # None was refused above
            if handling is not DONE:
                if handling.__class__ is CoroutineType:
                    steps = handling.__await__()
                elif isinstance(handling, Deferred):
                    self._defer(handling, started)
                    return None
                else:
                    steps = _awaited(handling).__await__()
                waiting = next(steps, DONE)
                if waiting is not DONE:
                    return Rest(steps, waiting, context, partial(self._after_handler, message, payload, started))
        except BaseException as exc:  # noqa: BLE001 -- raised again there if it is for the loop
            return begun(self._after_handler(message, payload, started, exc), context)
        return begun(self._after_handler(message, payload, started, None), context)

    def _after_handler(
        self, message: RequestMessage | None, payload: PayloadStream, started: float, exc: BaseException | None
    ) -> Steps | None:
        """The handler has returned, or raised `exc`: end its request.

        Returns:
            The steps that are left to do so; None: it is over.

        Raises:
            BaseException: `exc`, when it is for the loop.
        """
        if exc is not None:
            if self.request is not message or self._is_for_the_loop(exc):
                try:
                    raise exc
                finally:
                    del exc  # a frame and an exception that hold each other wait for the collector
            return self._finish_failed(exc, message, payload, started).__await__()
        if self.request is not message:  # the connection has gone on without this handler
            return None
        writer = self.writer
        response = writer.response
        if writer.due:
            writer.flush()
        if (
            response is None
            or not (response.ended and response.keeps and self.keep_alive_wish)
            or self._intake != HOLD
            or self._client_finished
            or not self.persistent
            or writer.paused
        ):
            return self._finish_request(message, payload, started).__await__()
        # A complete response on a connection that stays open: the same as _finish_request() does, in less.
        if response.sent_status >= 300:
            self.connections.count_other(response.sent_status)
        logging_way = self._logging
        if logging_way == NO_LOG:
            pass
        elif logging_way == CALL or self._access_was_logged:
            self._log_request(message, response, monotonic() - started)
        else:
            seconds = monotonic() - started if logging_way == TIMED_LINE else 0.0
            log: Any = self.access_log
            try:
                log.log(message, response, None, seconds, self._remote or self.remote)
            except Exception:  # noqa: BLE001 -- a broken log must not reach the client
                self._log_failure("Error in the access log")
        writer.response = self.request = None
        self.state = IDLE
        self._intake = HEAD
        if payload is not EMPTY_PAYLOAD:
            self._payload = EMPTY_PAYLOAD
        if self._tail:
            self.take_tail()
        return None

    async def _finish_failed(
        self, exc: BaseException, message: RequestMessage | None, payload: PayloadStream, started: float
    ) -> None:
        """End a request whose handler has raised."""
        traceback = exc.__traceback__
        try:
            raise exc  # noqa: TRY301 -- an override of handle_error() may want to know what is being handled
        except BaseException:  # noqa: BLE001 -- as above
            exc.__traceback__ = traceback  # without this frame
            answered = await self._answer_failure(exc, message, payload)
        finally:
            del exc, traceback  # a frame and an exception that hold each other wait for the collector
        if not answered or self.request is not message:
            return
        if self.writer.due:
            self.writer.flush()
        await self._finish_request(message, payload, started)

    # A request that goes on without the task.

    def _defer(self, handling: Deferred, started: float) -> None:
        handling.started = started
        self.deferred = handling
        self.connections.active += 1

    def end_deferred(self, error: BaseException | None) -> None:
        """What `handle_request()` has returned instead of a coroutine has come to its end.

        Args:
            error: what it has raised; None: nothing.
        """
        deferred, self.deferred = self.deferred, None
        if deferred is None:
            raise AssertionError("there is no deferred request")
        self.connections.active -= 1
        try:
            steps = self._after_handler(self.request, self._payload, deferred.started, error)
        except BaseException as exc:  # noqa: BLE001 -- raised again where the task's own exceptions are
            self._rest = raising(exc)
        else:
            if steps is None:
                return
            self._rest = Rest(steps, None, self._context.copy())
        self._wakeup.wake()

    def cancel_handler(self) -> None:
        """Cancel the handler of the current request, if there is one."""
        deferred, self.deferred = self.deferred, None
        if deferred is not None:  # the task has to wait for it like for any other, to be cancelled
            self.connections.active -= 1
            then = partial(self._after_handler, self.request, self._payload, deferred.started)
            steps = deferred.__await__()
            self._rest = Rest(steps, next(steps), self._context.copy(), then)
            self._wakeup.wake()
        super().cancel_handler()

    def _check_request(self, message: RequestMessage | None, payload: PayloadStream) -> None:
        """Raise what a request is refused for before its handler is called."""
        bad = self._bad or payload.exception()
        self._bad = None
        if bad is not None:
            try:
                raise bad
            finally:
                del bad  # a frame and an exception that hold each other wait for the collector
        connections = self.connections
        if 0 < connections.limit_concurrency <= connections.active:
            raise HttpProcessingError(503, headers={"Retry-After": "1"})
        if message is not None and self.allowed_methods and message.method not in self.allowed_methods:
            raise HttpProcessingError(405, headers={"Allow": ", ".join(sorted(self.allowed_methods))})

    def _is_for_the_loop(self, exc: BaseException) -> bool:
        """Whether an exception of a handler ends the connection's task: the loop's own cancellation, KeyboardInterrupt.

        Nothing is raised here: a frame and an exception that hold each other wait for the collector.
        """
        if isinstance(exc, asyncio.CancelledError):
            if self.transport is None or self.state is not ConnectionState.ACTIVE or self._request_expired:
                return False
            if self._task is None or not self._task.cancelling():
                return False
        elif isinstance(exc, Exception):
            return False
        self._count(self.writer.response)
        self.abort()
        return True

    async def _answer_failure(self, exc: BaseException, message: RequestMessage | None, payload: PayloadStream) -> bool:
        """Answer what a handler raised; false: there is nobody to answer."""
        if self.state is ConnectionState.UPGRADED:
            if not isinstance(exc, ClientDisconnectedError | asyncio.CancelledError):
                self._log_error("Error in the handler that has taken over the connection of %s", message, exc=exc)
            self.abort()
            return True
        if self.transport is None or self.state is not ConnectionState.ACTIVE:
            self._count(self.writer.response)
            return False
        if self._request_expired and isinstance(exc, asyncio.CancelledError) and self._task is not None:
            self._task.uncancel()
            exc = HttpProcessingError(503, "The request took too long")
        if isinstance(exc, ClientDisconnectedError):
            with _LOG_MAY_FAIL:
                self.log_debug("The client is gone: %s", exc)
        elif isinstance(exc, HttpProcessingError) and exc.code in FINAL_STATUSES:
            await self._handle_error(exc.code, message, payload, exc, exc.headers, exc.message or None)
        else:
            await self._handle_error(500, message, payload, exc)
        return True

    async def _handle_error(self, *args: object) -> None:
        """Call `handle_error()`, which a subclass may have overridden and which may fail in turn."""
        try:
            await self.handle_error(*args)  # type: ignore[arg-type]  # passed on as they came
        except Exception:  # noqa: BLE001 -- a subclass's own: the connection closes whatever it did
            self._log_failure("Error in handle_error()")
        except asyncio.CancelledError:
            if self._task is None or self._task.cancelling():
                raise
            self._log_failure("Error in handle_error()")
        self.keep_alive_wish = False

    async def _answer_nothing(self, message: RequestMessage | None, payload: PayloadStream) -> Response | None:
        """The handler left without a complete response."""
        response = self.writer.response
        if response is None and self.transport is not None and payload.exception() is None:
            await self._handle_error(500, message, payload, ResponseError("the handler has not answered"))
            self.writer.flush()
            response = self.writer.response
        elif response is not None and self.keep_alive_wish is not False:
            self._log_error("The handler has not finished its response to %s", message)
        if response is not None and not response.is_complete:
            response.fail()
        self._count(response)
        return response if response is not None and response.headers_sent else None

    def _count(self, response: Response | None) -> None:
        status = response.sent_status if response is not None else 0
        if not 200 <= status < 300:
            self.connections.count_other(status)

    async def _finish_request(self, message: RequestMessage | None, payload: PayloadStream, started: float) -> None:
        """End a request, whatever has become of it."""
        response = self.writer.response
        if response is None or not response.is_complete:
            response = await self._answer_nothing(message, payload)
        else:
            self._count(response)
            if self.writer.paused and response.keeps:
                await self._wait_until_read()
        self._end_request(message, response, started)

    async def _wait_until_read(self) -> None:
        """The next request has to wait: a client that sends and does not read must not fill the memory."""
        try:
            await self.writer.drain()
        except ClientDisconnectedError:
            pass
        except asyncio.CancelledError:
            if self.transport is not None:
                self.abort()  # and the task ends, as it was told to

    def _end_request(self, message: RequestMessage | None, response: Response | None, started: float) -> None:
        """Go on to the next request, or close; what was to be sent has been written."""
        if self._logging != NO_LOG:
            self._log_request(message, response, monotonic() - started)
        self.writer.response = self.request = None
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
        is_over = self._intake == DISCARD or (self._client_finished and not self._tail)
        if is_over or response is None or not (response.keeps and response.is_complete and self.keep_alive_wish):
            # Lingering costs a turn more: not when the client has said that it sends nothing more, and has not.
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
            # closing() came when the head had already said keep-alive: now the connection is idle.
            self.closing(self._marks.cut - monotonic())

    def expire_request(self) -> None:
        """The request takes too long: cancel the handler and answer 503; abort when it does not end even then."""
        if self._request_expired:
            self.abort()
        self._request_expired = True
        self.persistent = False  # also when the handler answers in spite of its cancellation
        self.cancel_handler()

    async def handle_error(
        self,
        status: int = 500,
        message: RequestMessage | None = None,
        payload: PayloadStream | None = None,  # noqa: ARG002 -- the seed's signature
        exc: BaseException | None = None,
        headers: HeaderPairs | None = None,
        reason: str | None = None,
    ) -> None:
        """Answer with an HTML error page, log it, and close the connection.

        After the headers of a response were sent there is no second one: the connection closes only.

        Args:
            status: the status code, 200 to 999; another one is answered as 500, which is logged with its traceback.
            message: the request, for the log.
            payload: its body.
            exc: what happened; its traceback is in the page when `debug` is on. None: the log has the exception that is
                being handled, if one is.
            headers: more fields, as a mapping or as pairs; `Content-Type` replaces that of the page, and what would
                frame another body is ignored.
            reason: text for the page instead of the standard phrase.
        """
        self.keep_alive(False)
        status = int(status) if isinstance(status, int) and status in FINAL_STATUSES else 500
        if status == 500:
            self._log_error("Error handling request %s", message, exc=exc or sys.exception())
        if self.transport is None or (self.writer.response is not None):
            return
        page = page_of(status, reason, exc if self.debug else None)
        response = Response(self.writer, status, close=True)
        response.add_headers(*fields_of(page, headers))
        response.send_headers()
        response.write(page)
        await response.write_eof()

    # Logs. None of these lets an exception out: a broken log must not reach the client.

    def log_access(
        self,
        message: RequestMessage | None,
        environ: Mapping[str, object] | None,
        response: Response | None,
        time: float,
    ) -> None:
        """Write a line to the access log, if there is one; called after each request.

        A handler may call it by itself for the current request, with its own `environ` or time: then it is not called
        again.

        Args:
            message: the request, None when it was refused before it had one.
            environ: values for `%({name}e)s`.
            response: what was sent, None when nothing was.
            time: seconds that it took.
        """
        self._access_was_logged = True
        log = self.access_log
        try:
            if isinstance(log, AccessLog):
                log.log(message, response, environ, time, self.remote)
            elif log is not None:
                log.info("%s", compile_format(self.access_log_format)(message, response, environ, time, self.remote))
        except Exception:  # noqa: BLE001 -- a broken log must not reach the client
            self._log_failure("Error in the access log")

    def _log_request(self, message: RequestMessage | None, response: Response | None, seconds: float) -> None:
        if self._access_was_logged:
            self._access_was_logged = False
            return
        try:
            self.log_access(message, None, response, seconds)
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 -- a subclass's own
            self._log_failure("Error in log_access()")
        self._access_was_logged = False

    def log_debug(self, *args: object) -> None:
        """Log for debugging when `debug` is on; arguments as for `logging.Logger.debug`."""
        if self.debug:
            with contextlib.suppress(Exception):
                self.logger.debug(*args)

    def log_exception(self, *args: object) -> None:
        """Log with the traceback of the current exception; arguments as for `logging.Logger.exception`."""
        with contextlib.suppress(Exception):
            self.logger.exception(*args)

    def _log_failure(self, text: str) -> None:
        """Call `log_exception()`, which a subclass may have overridden and which may fail in turn."""
        with _LOG_MAY_FAIL:
            self.log_exception(text)

    def _log_error(self, *args: object, exc: BaseException | None = None) -> None:
        with contextlib.suppress(Exception):
            self.logger.error(*args, exc_info=exc)


async def _awaited(awaitable: Awaitable[None]) -> None:
    """Await what is no coroutine, as one."""
    await awaitable
