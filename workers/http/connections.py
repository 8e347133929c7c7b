"""The connections of an event loop: their number, their totals, their deadlines, their end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from preforkd.workers.http import compiled
from preforkd.workers.http.clock import clock
from preforkd.workers.http.deadlines import SWEEP_SECONDS

if TYPE_CHECKING:
    from preforkd.workers.edge import Edge
    from preforkd.workers.http.deadlines import Times
    from preforkd.workers.http.exchange import Exchange, Pending
    from preforkd.workers.http.message import RequestMessage
    from preforkd.workers.http.queue_time import QueueTime
    from preforkd.workers.http.states import ConnectionState


class Counters(Protocol):
    """Who counts more than the totals, request by request."""

    @property
    def request(self) -> Callable[[str, int, float], None]:
        """Counts a request that is over: its method, the status of its response (0: none), and the seconds."""

    def rejected(self, status: int) -> None:
        """Count a request that was refused before it reached the app."""

    def forced(self, number: int) -> None:
        """Count requests that were cut at the end of a drain."""

    def queued(self, seconds: float) -> None:
        """Count the time that a request has waited for a thread."""


class WayOut(Protocol):
    """The way out of a connection as the table knows it, see `ResponseWriter`."""

    @property
    def exchange(self) -> Exchange | None:
        """The request that is being handled, and its response; None between two."""

    @property
    def sent(self) -> int:
        """Bytes given to the transport since the connection was made."""


class Live(Protocol):
    """A connection as it is known to who has to do with all of them; see `ServerHttpProtocol`.

    Attributes:
        persistent: it may stay open behind the current request.
    """

    persistent: bool
    _times: Times  # those that its deadlines count from

    @property
    def state(self) -> ConnectionState:
        """Where it is in its life."""

    @property
    def writer(self) -> WayOut:
        """The way out."""

    @property
    def remote(self) -> str:
        """The client's address for the logs."""

    # The current request.

    @property
    def requests(self) -> int:
        """How many there were, with the current one."""

    @property
    def request(self) -> RequestMessage | None:
        """The head of the one that is being handled; None between two."""

    @property
    def request_began(self) -> float:
        """When it did, seconds of the monotonic clock; 0.0 when nobody wants to know, or there is none."""

    @property
    def deferred(self) -> Pending | None:
        """What its handler has returned, if callbacks do its work."""

    @property
    def handler_task(self) -> asyncio.Task[None] | None:
        """The task in whose name the handler runs; None when there is none now."""

    # Its end.

    def check_deadlines(self, now: float) -> None:
        """Act on what has run out, at this time of the monotonic clock."""

    def untaken(self) -> int:
        """Bytes written that the client's system has not acknowledged."""

    def closing(self, timeout: float) -> None:
        """The worker is about to exit."""

    def cut(self) -> None:
        """End for a deadline."""

    def abort(self) -> None:
        """Close at once."""

    def report_error(self, *args: object, exc: BaseException | None = None) -> None:
        """Log an error, whatever becomes of the log; arguments as for `logging.Logger.error`."""


class Watch(Protocol):
    """Who looks at each connection behind the sweep, see `SlowRequests`."""

    def look(self, connection: Live, now: float) -> None:
        """Look at a connection that was just swept, at this time of the monotonic clock."""


@compiled.in_both_forms
class Connections:
    """The live protocols of one event loop; made by `connections_of()`.

    The totals are plain integers. What every request would have to count is counted on its connection, and added up
    when it is asked for (once a heartbeat).

    Attributes:
        active: requests that are being handled now.
        accepted: connections since the start.
        draining: responses say `Connection: close`.
        edge: what is done with each head before the app sees it; None: nothing.
        queue_time: tells which requests have waited too long to be served; None: none is asked.
        limit_concurrency: above this number of active requests a request is answered 503; 0: no limit.
        counters: who counts each request; None: nobody. To be set before there is a connection.
        slow: looks at each connection that was swept; None: nobody wants to know of slow requests.
        began: called with each new connection; None while nobody wants to know, as `ended`.
        ended: called with each connection that has ended.
    """

    __slots__ = ("__dict__", "__weakref__", "active")

    def __init__(self) -> None:
        self._live: set[Live] = set()
        self.active = 0
        self.accepted = 0
        self.draining = False
        self.edge: Edge | None = None
        self.queue_time: QueueTime | None = None
        self.limit_concurrency = 0
        self.counters: Counters | None = None
        self.slow: Watch | None = None
        self.began: Callable[[Live], None] | None = None
        self.ended: Callable[[Live], None] | None = None
        self._requests_before = 0
        self._bytes_before = 0
        self._classes = [0] * 10
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._interval = SWEEP_SECONDS
        self._context = copy_context()  # of the sweep: without, each would make one
        self._waiters: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Live]:
        return iter(list(self._live))

    def __contains__(self, connection: object) -> bool:
        return connection in self._live

    def exchanges(self) -> Iterator[Exchange]:
        """The exchanges that go on now."""
        for connection in list(self._live):
            exchange = connection.writer.exchange
            if exchange is not None:
                yield exchange

    @property
    def requests(self) -> int:
        """Requests since the start."""
        return self._requests_before + sum(connection.requests for connection in self._live)

    @property
    def bytes_sent(self) -> int:
        """Bytes given to the transports since the start."""
        return self._bytes_before + sum(connection.writer.sent for connection in self._live)

    @property
    def responses(self) -> list[int]:
        """Responses since the start by class: index 1 for 1xx ... 5 for 5xx; a request that got none is a 499.

        Only the others are counted one by one: what is left is 2xx.
        """
        classes = self._classes.copy()
        classes[2] = self.requests - self.active - sum(classes)
        return classes

    def count_other(self, status: int) -> None:
        """Count a response that is not 2xx; 499: a request that got none."""
        self._classes[status // 100] += 1

    def add(self, connection: Live, loop: asyncio.AbstractEventLoop, interval: float) -> None:
        """Take a new connection in; called from `connection_made`.

        Args:
            connection: the protocol.
            loop: its loop.
            interval: seconds between two looks at its deadlines; the shortest of all connections counts.
        """
        self._live.add(connection)
        self.accepted += 1
        if self.began is not None:
            self.began(connection)
        if self.draining:
            connection.persistent = False
        if self._timer is None:
            clock.update(time.time())
        elif interval >= self._interval:
            return
        else:
            self._timer.cancel()
        self._interval = interval
        self._loop = loop
        self._timer = loop.call_later(interval, self._sweep, context=self._context)

    def discard(self, connection: Live) -> None:
        """Let go of a connection; called from its teardown alone."""
        if connection not in self._live:
            return
        self._live.discard(connection)
        if self.ended is not None:
            self.ended(connection)
        self._requests_before += connection.requests
        self._bytes_before += connection.writer.sent
        if not self._live:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
                self._interval = SWEEP_SECONDS
            self._loop = None  # the table of loops is weak: a loop must not be kept alive from here
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _sweep(self) -> None:
        loop = self._loop
        if loop is None:
            return
        self._timer = loop.call_later(self._interval, self._sweep, context=self._context)
        clock.update(time.time())
        now = time.monotonic()
        for connection in list(self._live):
            try:
                connection.check_deadlines(now)
                if self.slow is not None:
                    self.slow.look(connection, now)
            except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 -- a subclass's own, and one of many
                _end(connection, "Error when the deadlines of a connection were checked", exc)

    def drain(self) -> None:
        """From now on every response says `Connection: close`, decided when its head is written."""
        self.draining = True
        for connection in self._live:
            connection.persistent = False

    def resume(self) -> None:
        """Undo `drain()`: the worker serves on. A connection of before still closes after its next response."""
        self.draining = False
        for connection in self._live:
            connection._times.cut = 0.0  # what `closing()` has set: what is still at work may finish

    def closing(self, timeout: float) -> None:
        """The worker is about to exit: call `closing(timeout)` on every live connection.

        Args:
            timeout: seconds that a request may still take.
        """
        self.drain()
        for connection in list(self._live):
            try:
                connection.closing(timeout)
            except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 -- a subclass's own, and one of many
                _end(connection, "Error in closing()", exc)

    async def wait_closed(self) -> None:
        """Return when there is no live connection."""
        while self._live:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter


def _end(connection: Live, text: str, exc: BaseException) -> None:
    """Abort a connection that has failed, whatever it does, so that the others get their turn."""
    connection.report_error(text, exc=exc)
    with contextlib.suppress(Exception, asyncio.CancelledError):
        connection.abort()


_CONNECTIONS: WeakKeyDictionary[asyncio.AbstractEventLoop, Connections] = WeakKeyDictionary()


def connections_of(loop: asyncio.AbstractEventLoop) -> Connections:
    """Return the connections of a loop; made when first asked for."""
    connections = _CONNECTIONS.get(loop)
    if connections is None:
        connections = _CONNECTIONS[loop] = Connections()
    return connections
