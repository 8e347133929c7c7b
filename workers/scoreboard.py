"""The scoreboard: one page of shared memory in which every worker says how it is doing.

One fixed-size row a worker, written by that worker alone and read by the others without a system call. All fields are
64-bit integers, aligned, so that a reader sees the old value or the new one and never half of each. Nothing is on disk.

Behind the rows are three that the master writes: what it says of the daemon as a whole (`MasterField`), and the sums of
the rows that dead workers have left (`settle`), so that no counter ever goes back. A row keeps the counts of its worker
until the next one gets it.
"""

from __future__ import annotations

import mmap
import os
import time
from array import array
from enum import IntEnum
from typing import Final

ROWS: Final = 4096
"""Workers at a time, those that drain included."""
FIELDS: Final = 2048
"""64-bit integers in a row. Memory that nobody has touched costs nothing: a worker takes four pages."""
ROW_BYTES: Final = FIELDS * 8
NOBODY: Final = 1 << 62
"""More connections than anybody holds."""
FRESH: Final = 1_000_000_000
"""Nanoseconds for which a heartbeat counts: a worker without one takes no connections, so it has no share of them."""


class Field(IntEnum):
    """The columns; counters grow from the start of the worker, gauges are of now."""

    PID = 0
    SLOT = 1
    GENERATION = 2
    STATE = 3
    HEARTBEAT = 4
    """Nanoseconds of the monotonic clock, written by the serving loop itself."""
    CONNECTIONS = 5
    ACTIVE = 6
    ACCEPTED = 7
    REQUESTS = 8
    BYTES_SENT = 9
    RESPONSES_1XX = 10
    RESPONSES_2XX = 11
    RESPONSES_3XX = 12
    RESPONSES_4XX = 13
    RESPONSES_5XX = 14
    LOOP_LAG = 15
    """Nanoseconds by which the last heartbeat was late."""
    LOST_LINES = 16
    """Lines of the log that could not be written."""
    ACCEPTING = 17
    """What it does with its listeners, an `AcceptState`."""
    LOST_ACCESS_LINES = 18
    """The same of the access log."""
    DRAIN_FORCED = 19
    """Requests that were cut at the end of a drain."""
    THREAD_QUEUE = 20
    """WSGI: how long requests have waited for a thread: the first of `CELLS` cells."""
    CPU = 36
    """Nanoseconds of CPU time; summed up over the dead by slot."""
    MASTER_STATE = 37
    """What its master thinks of it, an index of `WORKER_STATES`; the master writes this and the next two."""
    FORKED = 38
    """Nanoseconds of the monotonic clock."""
    SERIAL = 39
    """Of the worker, plus 1; 0: nobody has the row."""
    REJECTED = 40
    """Requests that were refused before they reached the app: the first of `len(REJECTIONS)` cells."""
    TEXT_VERSION = 60
    """Grows by one before and by one after each change of the text: odd while it changes."""
    DURATIONS = 64
    """Of requests: the first of `len(METHODS) * CLASSES * CELLS` cells, by method and class of the status."""
    STATUSES = 832
    """Responses by their exact status, but for 200: the cell of status n is `STATUSES` + n - 100."""
    TEXT = 1344
    """From here to the end: the requests in flight at the last heartbeat, JSON up to the first NUL."""


BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds: the upper bounds of the buckets of durations, as OpenTelemetry has them for HTTP servers."""
CELLS: Final = len(BOUNDS) + 2
"""Of one histogram: a count for each bucket, one for what is longer, and the sum in nanoseconds."""
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "_OTHER")
CLASSES: Final = 6
"""Of responses: 1xx to 5xx; 0: a request that got none."""
REJECTIONS: Final = (
    "bad_request", "timeout", "body_too_large", "uri_too_long", "headers_too_large", "method", "concurrency", "other",
)  # fmt: skip
"""Why a request did not reach the app."""
COUNTED: Final = (
    (Field.ACCEPTED, Field.LOOP_LAG),
    (Field.LOST_LINES, Field.ACCEPTING),
    (Field.LOST_ACCESS_LINES, Field.CPU),
    (Field.REJECTED, Field.TEXT_VERSION),
    (Field.DURATIONS, Field.TEXT),
)
"""The cells that hold counters, from one field to before another: they are summed up over the dead."""
TEXT_BYTES: Final = (FIELDS - Field.TEXT) * 8

# What the master writes as numbers: the indices of these. `preforkd.daemon.report` keeps them true.
PHASES: Final = (
    "new",
    "booting",
    "serving",
    "reloading",
    "proving",
    "leaving",
    "stopping",
    "halting",
    "gone",
    "trying",
)
WORKER_STATES: Final = ("gone", "starting", "ready", "retiring", "standby", "draining", "dying", "killed")
EXITS: Final = ("drained", "exited", "crashed", "killed", "oom", "hung", "not_booted", "overdue")
RELOADS: Final = ("done", "rolled_back", "superseded", "refused")


class MasterField(IntEnum):
    """What the master says of the daemon, in a row of its own."""

    USED = 0
    """See `Scoreboard.used`."""
    EPOCH = 1
    """Grows by one before and by one after the counts of a row are moved to the sums: odd meanwhile."""
    HEARTBEAT = 2
    """Nanoseconds of the monotonic clock at the last turn of the master's loop."""
    STARTED = 3
    """Nanoseconds of the monotonic clock when the daemon was started; an upgrade is no start."""
    PHASE = 4
    """An index of `PHASES`."""
    WANTED = 5
    """Workers."""
    TARGET = 6
    """The generation that the slots are being filled with."""
    COMMITTED = 7
    """The generation that has proved itself; 0: none yet."""
    ADMIN_HEARTBEAT = 8
    """Nanoseconds of the monotonic clock, written by the admin process."""
    ADMIN_LOST = 9
    """Admin processes that have died."""
    CERTIFICATE_EXPIRES = 10
    """Seconds since the epoch; 0: there is none."""
    LOST_LINES = 11
    """Lines of the master's log that could not be written."""
    RELOADS = 16
    """The first of `len(RELOADS)` counters."""
    EXITS = 24
    """The first of `len(EXITS)` counters."""
    QUEUES = 40
    """Connections that wait to be accepted, by listener, the first of `MOST_QUEUES`; 1 more than that, 0: not known."""


MOST_QUEUES: Final = 16


class RowState(IntEnum):
    """What a worker says of itself in `Field.STATE`."""

    EMPTY = 0
    STARTING = 1
    """It runs code of ours, so far."""
    READY = 2
    DRAINING = 3
    LOADING = 4
    """Code of the app runs: it is imported, or started."""


class AcceptState(IntEnum):
    """What a worker does with its listeners, in `Field.ACCEPTING`."""

    STOPPED = 0
    """It leaves them alone until it is told to accept."""
    ACCEPTING = 1
    """It takes one connection per wake-up."""
    YIELDING = 2
    """It leaves them alone for a moment: others are less loaded."""
    PAUSED = 3
    """It leaves them alone for a while: the system has no descriptor or memory left."""
    FULL = 4
    """It leaves them alone until a connection ends."""


_ZEROS: Final = array("Q", bytes(ROW_BYTES))


class Row:
    """The row of one worker."""

    __slots__ = ("_cells",)

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells

    def __getitem__(self, field: Field) -> int:
        value: int = self._cells[field]
        return value

    def __setitem__(self, field: Field, value: int) -> None:
        self._cells[field] = value

    @property
    def cells(self) -> memoryview:
        """The row itself, for what has many cells."""
        return self._cells

    def clear(self) -> None:
        """Set every field to 0, before a new worker gets the row."""
        self._cells[:] = _ZEROS

    @property
    def text(self) -> str:
        """The text that the worker has left last; empty when it is being changed."""
        before = self._cells[Field.TEXT_VERSION]
        found = bytes(self._cells[Field.TEXT :].cast("B")).partition(b"\0")[0]
        if before % 2 or before != self._cells[Field.TEXT_VERSION]:
            return ""
        return found.decode(errors="replace")

    @text.setter
    def text(self, value: str) -> None:
        data = value.encode()[: TEXT_BYTES - 1] + b"\0"
        self._cells[Field.TEXT_VERSION] += 1
        self._cells[Field.TEXT :].cast("B")[: len(data)] = data
        self._cells[Field.TEXT_VERSION] += 1


class Scoreboard:
    """The shared page, made once by the master and inherited by every worker: the rows, and behind them the master's.

    Args:
        descriptor: of the page that the program before this one has made, or None for a new page.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        size = (ROWS + 3) * ROW_BYTES
        if descriptor is None:
            descriptor = _memfd(size)
        self.descriptor: Final = descriptor
        """-1 where the system has no memory with a descriptor: then no other program can take the page over."""
        self._rows: dict[int, Row] = {}
        self._lay_out(mmap.mmap(descriptor, size))

    def _lay_out(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._cells = memoryview(memory).cast("Q")
        self.master = self._cells[ROWS * FIELDS : (ROWS + 1) * FIELDS]
        """By `MasterField`."""
        self.sums = Row(self._cells[(ROWS + 1) * FIELDS : (ROWS + 2) * FIELDS])
        """What dead workers have counted whose rows others have got since; the counters alone."""
        self.cpu = self._cells[(ROWS + 2) * FIELDS :]
        """The CPU time of the same workers, by slot."""
        for index, row in self._rows.items():
            row._cells = self._cells[index * FIELDS : (index + 1) * FIELDS]

    @property
    def used(self) -> int:
        """No row from this index on has ever been given to a worker, so nobody reads those; the master writes it."""
        value: int = self.master[MasterField.USED]
        return value

    @used.setter
    def used(self, value: int) -> None:
        self.master[MasterField.USED] = value

    def others(self, own: int) -> tuple[int, int] | None:
        """Return how many connections the least loaded of the other workers hold that are ready and turn their loops.

        Args:
            own: the index of the row that does not count.

        Returns:
            Of those that take the next connection when it comes, `NOBODY` if there is none; and of those, too, that
            are back in a moment. None: no other takes connections.
        """
        # Flat, on the raw cells: it is called for each accepted connection (1 us for four workers).
        cells = self._cells
        oldest = time.monotonic_ns() - FRESH
        accepting = least = NOBODY
        for base in range(0, self.used * FIELDS, FIELDS):
            state = cells[base + 17]
            if 1 <= state <= 2 and cells[base + 3] == 2 and cells[base + 4] > oldest and base != own * FIELDS:
                held: int = cells[base + 5]
                if held < least:
                    least = held
                if state == 1 and held < accepting:
                    accepting = held
        return (accepting, least) if least != NOBODY else None

    def row(self, index: int) -> Row:
        """Return the row of that index, 0 to `ROWS` - 1."""
        row = self._rows.get(index)
        if row is None:
            row = self._rows[index] = Row(self._cells[index * FIELDS : (index + 1) * FIELDS])
        return row

    def let_go(self) -> None:
        """Leave the page to the others; from now on this and its rows are this process's own, and mean nothing."""
        memory, cells = self._memory, self._cells
        self._lay_out(mmap.mmap(-1, len(memory)))  # of which no page is there until it is written to
        cells.release()
        memory.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def free_rows(self) -> list[int]:
        """Return the rows that some worker has had and that none has now."""
        return [index for index in range(self.used) if not self._cells[index * FIELDS + Field.SERIAL]]

    def settle(self, index: int) -> Row:
        """Empty the row of a dead worker for the next one, and keep its counts; returns it. For the master alone."""
        row = self.row(index)
        self.master[MasterField.EPOCH] += 1
        for first, end in COUNTED:
            left, sums = row.cells[first:end].tolist(), self.sums.cells[first:end]
            if any(left):
                sums[:] = array("Q", [one + more for one, more in zip(sums.tolist(), left, strict=True)])
        self.cpu[row[Field.SLOT]] += row[Field.CPU]
        row.clear()
        self.master[MasterField.EPOCH] += 1
        return row


def _memfd(size: int) -> int:
    if not hasattr(os, "memfd_create"):
        return -1  # macOS: the page is anonymous, and shared by fork alone
    descriptor = os.memfd_create("preforkd-scoreboard", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    return descriptor
