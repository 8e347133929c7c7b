"""What is told of each request when it is over: to who counts them, and to the access log."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from preforkd.workers.http import compiled
from preforkd.workers.http.access_log import AccessLog
from preforkd.workers.http.access_log_format import NOT_SENT
from preforkd.workers.http.failing import log_failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from preforkd.workers.http.exchange import Exchange
    from preforkd.workers.http.host import Host
    from preforkd.workers.http.response import Response

# How a request gets into the access log. LINE and TIMED_LINE are what log_access() does, without its call.
NO_LOG, LINE, TIMED_LINE, CALL = range(4)


@compiled.in_both_forms
class Reporting:
    """Reports the requests of one connection.

    Args:
        connection: whose requests they are.

    Attributes:
        wants_time: somebody wants to know how long requests take.
    """

    __slots__ = ("_connection", "_connections", "_count", "_logging", "wants_time")

    def __init__(self, connection: Host) -> None:
        self._connection = connection
        self._connections = connection.connections
        self._count: Callable[[str, int, float], None] | None = None
        self._logging = NO_LOG
        self.wants_time = False

    def begin(self) -> None:
        """The first request is about to be handled. A subclass may have set its access log behind its constructor."""
        connection = self._connection
        counters = self._connections.counters
        self._count = None if counters is None else counters.request
        if connection.logs_by_itself():
            self._logging = CALL
        elif isinstance(connection.access_log, AccessLog):
            self._logging = TIMED_LINE if connection.access_log.needs_seconds else LINE
        elif connection.access_log is not None:
            self._logging = CALL
        if self._logging != NO_LOG:
            connection.ask_client()  # now: behind a reset nobody knows
        self.wants_time = counters is not None or self._logging >= TIMED_LINE

    def complete(self, exchange: Exchange, response: Response) -> None:
        """Report a request whose response is complete, on a connection that stays open."""
        # Flat: every request passes here.
        status = response.sent_status
        if status >= 300:
            self._connections.count_other(status)
        count = self._count
        if count is not None:
            count(exchange.request.method, status, monotonic() - exchange.began)
        way = self._logging
        if way == NO_LOG:
            return
        if way == CALL or exchange.is_logged:
            self.log(exchange, response)
            return
        self._write_line(exchange, response)

    def _write_line(self, exchange: Exchange, response: Response) -> None:
        """Write the line of a request to our own log, which is what `log_access()` does."""
        seconds = monotonic() - exchange.began if self._logging == TIMED_LINE else 0.0
        connection = self._connection
        log: Any = connection.access_log
        try:
            log.log(exchange.request, response, None, seconds, connection.remote)
        except Exception:  # noqa: BLE001 -- a broken log must not reach the client
            log_failure(connection, "Error in the access log")

    def count(self, exchange: Exchange, response: Response | None) -> None:
        """Count a request, whatever has become of it."""
        status = response.sent_status if response is not None else NOT_SENT
        if not 200 <= status < 300:
            self._connections.count_other(status)
        if self._count is not None:
            method = "" if exchange.request is None else exchange.request.method
            self._count(method, 0 if response is None else status, monotonic() - exchange.began)

    def count_rejected(self, status: int) -> None:
        """Count a request that is refused before it reaches its handler."""
        if self._connections.counters is not None:
            self._connections.counters.rejected(status)

    def log(self, exchange: Exchange, response: Response | None) -> None:
        """Write the line of a request, if there is a log and it has not had its line."""
        if self._logging == NO_LOG or exchange.is_logged:
            return
        connection = self._connection
        try:
            connection.log_access(exchange.request, None, response, monotonic() - exchange.began)
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 -- a subclass's own
            log_failure(connection, "Error in log_access()")
