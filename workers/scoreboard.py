"""The scoreboard: one page of shared memory in which every worker says how it is doing.

One fixed-size row a worker, written by that worker alone and read by the others without a system call. All fields are
64-bit integers, aligned, so that a reader sees the old value or the new one and never half of each. Nothing is on disk.
"""

from __future__ import annotations

import mmap
import os
import time
from enum import IntEnum
from typing import Final

ROWS: Final = 4096
"""Workers at a time, those that drain included."""
FIELDS: Final = 64
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
    """Lines of the access log and of the log that could not be written."""
    ACCEPTING = 17
    """What it does with its listeners, an `AcceptState`."""


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

    def clear(self) -> None:
        """Set every field to 0, before a new worker gets the row."""
        for index in range(FIELDS):
            self._cells[index] = 0


class Scoreboard:
    """The shared page, made once by the master and inherited by every worker: the rows, and behind them one integer.

    Args:
        descriptor: of the page that the program before this one has made, or None for a new page.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        size = (ROWS + 1) * ROW_BYTES
        if descriptor is None:
            descriptor = _memfd(size)
        self.descriptor: Final = descriptor
        """-1 where the system has no memory with a descriptor: then no other program can take the page over."""
        self._memory = mmap.mmap(descriptor, size)
        self._cells = memoryview(self._memory).cast("Q")
        self._rows: dict[int, Row] = {}

    @property
    def used(self) -> int:
        """No row from this index on has ever been given to a worker, so nobody reads those; the master writes it."""
        value: int = self._cells[ROWS * FIELDS]
        return value

    @used.setter
    def used(self, value: int) -> None:
        self._cells[ROWS * FIELDS] = value

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
        cells, self._cells = self._cells, memoryview(bytearray((ROWS + 1) * ROW_BYTES)).cast("Q")
        for index, row in self._rows.items():
            row._cells = self._cells[index * FIELDS : (index + 1) * FIELDS]
        cells.release()
        self._memory.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _memfd(size: int) -> int:
    if not hasattr(os, "memfd_create"):
        return -1  # macOS: the page is anonymous, and shared by fork alone
    descriptor = os.memfd_create("preforkd-scoreboard", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    return descriptor
