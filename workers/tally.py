"""What a worker counts on the scoreboard for each request, where somebody reads it (--admin, --statsd).

It is written with the request, not with the heartbeat: what a killed worker has answered stays counted.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable
from time import process_time_ns
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from preforkd.workers.http.states import ConnectionState
from preforkd.workers.scoreboard import BOUNDS, CELLS, CLASSES, METHODS, REJECTIONS, ROW_BYTES, TEXT_BYTES, Field, Row

if TYPE_CHECKING:
    from preforkd.workers.http.message import RequestMessage

try:
    from preforkd.workers._counting import Counter
except ImportError:  # there was no compiler
    Counter = None  # type: ignore[assignment, misc]  # of the class, where there is one

MOST_SHOWN: Final = 20
"""Requests in flight that are shown, the oldest."""
LONGEST_PATH: Final = 200
_REASONS: Final = {
    400: "bad_request",
    405: "method",
    408: "timeout",
    413: "body_too_large",
    414: "uri_too_long",
    431: "headers_too_large",
    503: "concurrency",
}
_METHODS: Final = {name: Field.DURATIONS + index * CLASSES * CELLS for index, name in enumerate(METHODS)}
_SUM: Final = CELLS - 1


class Shown(Protocol):
    """A connection as the scoreboard shows it."""

    @property
    def state(self) -> ConnectionState:
        """Where it is in its life."""

    @property
    def request(self) -> RequestMessage | None:
        """The head of the request that is being handled; None between two."""

    @property
    def request_began(self) -> float:
        """When it did, seconds of the monotonic clock."""


class Tally:
    """The counters of one worker.

    Args:
        row: its row of the scoreboard.

    Attributes:
        request: counts a request that is over: its method, the status of its response (0: none), and the seconds.
    """

    __slots__ = ("_cells", "_move", "_row", "_settle", "_shows", "request")

    def __init__(self, row: Row) -> None:
        self._row = row
        self._cells = row.cells
        self._shows = False
        self.request, self._move, self._settle = compiled_counter(row.cells) or pure_counter(row.cells)

    def let_go(self) -> None:
        """Count from now on where nobody reads it, in a process that the app has forked."""
        self._row = Row(memoryview(bytearray(ROW_BYTES)).cast("Q"))
        self._cells = self._row.cells
        self._move(self._cells)

    def rejected(self, status: int) -> None:
        """Count a request that was refused before it reached the app."""
        self._cells[Field.REJECTED + REJECTIONS.index(_REASONS.get(status, "other"))] += 1

    def forced(self, number: int) -> None:
        """Count requests that were cut at the end of a drain."""
        self._cells[Field.DRAIN_FORCED] += number

    def queued(self, seconds: float) -> None:
        """Count the time that a request has waited for a thread."""
        self._cells[Field.THREAD_QUEUE + bisect_left(BOUNDS, seconds)] += 1
        self._cells[Field.THREAD_QUEUE + _SUM] += int(seconds * 1e9)

    def beat(self, connections: Iterable[Shown]) -> None:
        """Say what is looked at with each heartbeat: the CPU time, and the requests in flight.

        Args:
            connections: those on which a request may wait for something; none when none does.
        """
        self._settle()
        self._cells[Field.CPU] = process_time_ns()
        text = in_flight(connections)
        if text or self._shows:
            self._row.text = text
            self._shows = bool(text)


Count = Callable[[str, int, float], None]


class Counting(NamedTuple):
    """A way to count requests.

    Attributes:
        request: counts one that is over.
        move: has it counted in other cells from now on.
        settle: writes what is not written with each request; to be called with the heartbeat.
    """

    request: Count
    move: Callable[[memoryview], None]
    settle: Callable[[], None]


def compiled_counter(cells: memoryview) -> Counting | None:
    """Return the way in C (40 ns a request), which writes all with the request; None where that was not built."""
    if Counter is None:
        return None
    counter = Counter(cells, _METHODS, _METHODS["_OTHER"], Field.STATUSES - 100, BOUNDS)
    return Counting(counter, counter.move, lambda: None)


def pure_counter(cells: memoryview) -> Counting:
    """Return the way in Python (240 ns): the counts are written with the request, the sums of durations are settled.

    A closure, as a method would look each of these up for every request. To read a cell costs as much as to write one,
    so what is in them is kept in a list. What a killed worker has not settled of the sums is of a quarter of a second.
    """
    bounds, statuses, total, first = BOUNDS, int(Field.STATUSES) - 100, int(_SUM), BOUNDS[0]
    classes = [status // 100 if status < 600 else CLASSES - 1 for status in range(1000)]
    bases = {name: [int(base) + CELLS * one for one in classes] for name, base in _METHODS.items()}
    other, find = bases["_OTHER"], bases.get
    counts, sums = [0] * len(cells), [0.0] * len(cells)

    def count(method: str, status: int, seconds: float) -> None:
        base = find(method, other)[status]
        sums[base] += seconds
        if seconds > first:
            base += bisect_left(bounds, seconds)
        cells[base] = counts[base] = counts[base] + 1
        if status != 200 and 100 <= status < 600:
            cells[statuses + status] += 1

    def move(to: memoryview) -> None:
        nonlocal cells
        cells = to

    def settle() -> None:
        for base in range(_METHODS["GET"], _METHODS["_OTHER"] + CLASSES * CELLS, CELLS):
            if sums[base]:
                cells[base + total] = int(sums[base] * 1e9)

    return Counting(count, move, settle)


def in_flight(connections: Iterable[Shown]) -> str:
    """Return the oldest requests that are being handled: their methods, paths and beginnings, as JSON.

    Args:
        connections: to be looked at.
    """
    found = [
        (connection.request_began, connection.request.method, connection.request.path[:LONGEST_PATH])
        for connection in connections
        if connection.state is ConnectionState.ACTIVE and connection.request is not None
    ]
    shown = [[method, path, round(began, 3)] for began, method, path in sorted(found)[:MOST_SHOWN]]
    while shown and len(text := json.dumps(shown)) >= TEXT_BYTES:
        shown.pop()
    return text if shown else ""
