"""`ServerHttpProtocol`, the class to be subclassed, as the seed's contract says; its machinery is `connection.py`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from preforkd.workers.http import compiled
from preforkd.workers.http.access_log import AccessLog
from preforkd.workers.http.access_log_format import DEFAULT_FORMAT, compile_format
from preforkd.workers.http.connection import HttpConnection
from preforkd.workers.http.deadlines import allowance_of
from preforkd.workers.http.error_page import FINAL_STATUSES, fields_of, page_of
from preforkd.workers.http.errors import HeaderPairs, HttpProcessingError
from preforkd.workers.http.failing import LOG_MAY_FAIL
from preforkd.workers.http.limits import limits_from
from preforkd.workers.http.response import Response
from preforkd.workers.http.tls_info import TlsInfo, info_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from preforkd.workers.http.exchange import Exchange, Service
    from preforkd.workers.http.host import Host
    from preforkd.workers.http.message import RequestMessage
    from preforkd.workers.http.payload import PayloadStream

server_logger = logging.getLogger("preforkd.server")


@compiled.in_both_forms
class ServerHttpProtocol(HttpConnection):
    """HTTP/1.1 on one connection; subclasses override `handle_request()`.

    Works with any asyncio loop: `loop.create_server(lambda: Handler(debug=True, keep_alive=75), host, port)`.
    """

    __slots__ = (
        "_keep_alive_timeout", "access_log", "access_log_format", "allowed_methods", "debug", "host", "logger", "port",
    )  # fmt: skip

    # As a `Service`: of its own requests, unless it was given another one.
    decodes_bodies = True
    outlives_cancellation = False
    context: Context | None = None

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
        allowed = allowance_of(
            timeout or 0, keep_alive or 0, limits.body_timeout, limits.request_timeout, limits.write_timeout
        )
        super().__init__(loop, limits, allowed)
        self.allowed_methods = frozenset(allowed_methods)
        self.access_log = access_log
        self._keep_alive_timeout = keep_alive or 0
        self.persistent = bool(keep_alive) and keep_alive_on
        self.logger = log or logger
        self.access_log_format = access_log_format
        compile_format(access_log_format)  # an unknown atom is refused here, not when the first request is logged
        self.host = host
        self.port = port
        self.debug = debug

    def logs_by_itself(self) -> bool:
        """Whether `log_access()` is overridden."""
        return type(self).log_access is not ServerHttpProtocol.log_access

    @property
    def keep_alive_timeout(self) -> float:
        """Seconds before an idle connection closes; 0: none is kept."""
        return self._keep_alive_timeout

    @property
    def tls(self) -> TlsInfo | None:
        """The TLS of the connection, with the client's certificate; None when it is plain, or gone."""
        tls = self.transport.get_extra_info("ssl_object") if self.transport is not None else None
        return None if tls is None else info_of(tls)

    def keep_alive(self, val: bool) -> None:
        """Say whether the connection stays open after the current request; it does not when nothing is said."""
        exchange = self.writer.exchange
        if exchange is not None:
            exchange.keep_alive = val

    def served_by(self) -> Service:
        """Return what serves the requests."""
        return self if self._service is None else self._service

    def serve(self, exchange: Exchange) -> Awaitable[None]:
        """Answer a request by `handle_request()`."""
        return self.handle_request(exchange.request, exchange.body)

    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:  # noqa: ARG002
        """Answer a request; to be overridden. This one answers 404.

        Args:
            message: request line and headers.
            payload: the body.

        Raises:
            HttpProcessingError: answered with its status.
        """
        raise HttpProcessingError(404)

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
            self.report_error("Error handling request %s", message, exc=exc or sys.exception())
        if self.transport is None or (self.writer.response is not None):
            return
        page = page_of(status, reason, exc if self.debug else None)
        response = Response(self.writer, status, close=True)
        response.add_headers(*fields_of(page, headers))
        response.send_headers()
        response.write(page)
        await response.write_eof()

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
        self.access_was_logged = True
        log = self.access_log
        try:
            if isinstance(log, AccessLog):
                log.log(message, response, environ, time, self.remote)
            elif log is not None:
                log.info("%s", compile_format(self.access_log_format)(message, response, environ, time, self.remote))
        except Exception:  # noqa: BLE001 -- a broken log must not reach the client
            with LOG_MAY_FAIL:
                self.log_exception("Error in the access log")

    def log_debug(self, *args: object) -> None:
        """Log for debugging when `debug` is on; arguments as for `logging.Logger.debug`."""
        if self.debug:
            with contextlib.suppress(Exception):
                self.logger.debug(*args)

    def log_exception(self, *args: object) -> None:
        """Log with the traceback of the current exception; arguments as for `logging.Logger.exception`."""
        with contextlib.suppress(Exception):
            self.logger.exception(*args)

    def report_error(self, *args: object, exc: BaseException | None = None) -> None:
        """Log an error of the app, or ours, whatever becomes of the log; arguments as for `logging.Logger.error`."""
        with contextlib.suppress(Exception):
            self.logger.error(*args, exc_info=exc)


if TYPE_CHECKING:

    def _as_host(connection: ServerHttpProtocol) -> Host:
        """What `connection_made()` takes for granted: a connection is all that its parts ask for."""
        return connection


def connections_for(service: Service) -> Callable[..., ServerHttpProtocol]:
    """Return what makes connections whose requests a service answers; takes the arguments of `ServerHttpProtocol`."""

    def make(**arguments: Any) -> ServerHttpProtocol:
        connection = ServerHttpProtocol(**arguments)
        connection.serve_with(service)
        return connection

    return make
