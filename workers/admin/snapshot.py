"""What the scoreboard says at one moment, read without a system call and without asking anybody."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import Any, Final

from preforkd.workers.scoreboard import (
    CELLS,
    CLASSES,
    COUNTED,
    EXITS,
    METHODS,
    MOST_QUEUES,
    PHASES,
    REJECTIONS,
    RELOADS,
    WORKER_STATES,
    Field,
    MasterField,
    Row,
    Scoreboard,
)

TRIES: Final = 1000
"""Readings at most: the master moves the counts of a dead worker in 0.2 ms."""
_BLOCKS: Final = tuple((index, Field.DURATIONS + index * CELLS) for index in range(len(METHODS) * CLASSES))


class Counts:
    """Counters, of one worker or of all that have ever been.

    Args:
        cells: as in a row of the scoreboard.
    """

    __slots__ = ("_histograms", "cells")

    def __init__(self, cells: list[int]) -> None:
        self.cells = cells
        # Most daemons see few of the methods and classes: only these are looked at from here on.
        blocks = ((index, cells[base : base + CELLS]) for index, base in _BLOCKS)
        self._histograms = {divmod(index, CLASSES): block for index, block in blocks if any(block)}

    def histogram(self, method: int | None = None, status: int | None = None) -> list[int]:
        """Return the buckets of durations and, as the last, the sum in nanoseconds; None: of all."""
        found = [0] * CELLS
        for (of, kind), block in self._histograms.items():
            if method in (None, of) and status in (None, kind):
                found = list(map(add, found, block))
        return found

    @property
    def requests(self) -> int:
        """Requests that are over."""
        return sum(self.histogram()[:-1])

    def by_class(self) -> list[int]:
        """Return the requests that are over by the class of their status; index 0: those that got no response."""
        return [sum(self.histogram(status=one)[:-1]) for one in range(CLASSES)]

    def statuses(self) -> dict[int, int]:
        """Return the responses by their exact status."""
        found = {n: self.cells[Field.STATUSES + n - 100] for n in range(100, 600)}
        found[200] = self.by_class()[2] - sum(found[n] for n in range(201, 300))
        return {status: number for status, number in found.items() if number}

    def thread_queue(self) -> list[int]:
        """Return the buckets of the times that requests have waited for a thread, and their sum in nanoseconds."""
        return self.cells[Field.THREAD_QUEUE : Field.THREAD_QUEUE + CELLS]

    def rejected(self) -> dict[str, int]:
        """Return the requests that did not reach the app, by why."""
        return dict(zip(REJECTIONS, self.cells[Field.REJECTED :], strict=False))


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker that lives; times are seconds."""

    serial: int
    slot: int
    generation: int
    pid: int
    state: str
    """What its master thinks of it, of `WORKER_STATES`."""
    age: float
    silent: float
    """Since its last heartbeat; 0.0 before the first."""
    loop_lag: float
    connections: int
    active: int
    counts: Counts
    in_flight: tuple[Mapping[str, Any], ...]
    """The requests that it was handling at its last heartbeat: method, path and seconds."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole daemon; times are seconds."""

    now: float
    """Of the monotonic clock."""
    phase: str
    """Of `PHASES`."""
    wanted: int
    target: int
    committed: int
    uptime: float
    silent: float
    """Since the last turn of the master's loop."""
    exits: Mapping[str, int]
    reloads: Mapping[str, int]
    queues: Sequence[int | None]
    """Connections that wait, by listener; None: not known."""
    admin_lost: int
    certificate_expires: int
    """Seconds since the epoch; 0: there is none."""
    lost_lines: Mapping[str, int]
    """Lines that could not be written, by where they belong."""
    cpu: Mapping[int, float]
    """Seconds, of all workers that a slot has ever had."""
    workers: tuple[WorkerView, ...]
    total: Counts
    """Of all workers that have ever been."""


def read(board: Scoreboard, now: float) -> Snapshot:
    """Read the board.

    Args:
        board: the scoreboard.
        now: seconds of the monotonic clock.
    """
    for _ in range(TRIES):
        epoch = board.master[MasterField.EPOCH]
        found = _read(board, now)
        # Else the counts of a dead worker may be missing, or be there twice.
        if epoch % 2 == 0 and epoch == board.master[MasterField.EPOCH]:
            break
    return found


def _read(board: Scoreboard, now: float) -> Snapshot:
    master = board.master.tolist()
    total = board.sums.cells[: Field.TEXT].tolist()
    workers = []
    cpu: dict[int, int] = {}
    for index in range(board.used):
        row = board.row(index)
        cells = row.cells[: Field.TEXT].tolist()
        for first, end in COUNTED:
            total[first:end] = map(add, total[first:end], cells[first:end])
        slot = cells[Field.SLOT]
        cpu[slot] = cpu.get(slot, board.cpu[slot]) + cells[Field.CPU]
        if cells[Field.SERIAL]:
            workers.append(_view(row, cells, now))
    return Snapshot(
        now=now,
        phase=PHASES[master[MasterField.PHASE]],
        wanted=master[MasterField.WANTED],
        target=master[MasterField.TARGET],
        committed=master[MasterField.COMMITTED],
        uptime=_since(master[MasterField.STARTED], now),
        silent=_since(master[MasterField.HEARTBEAT], now),
        exits=dict(zip(EXITS, master[MasterField.EXITS :], strict=False)),
        reloads=dict(zip(RELOADS, master[MasterField.RELOADS :], strict=False)),
        queues=[one - 1 if one else None for one in master[MasterField.QUEUES : MasterField.QUEUES + MOST_QUEUES]],
        admin_lost=master[MasterField.ADMIN_LOST],
        certificate_expires=master[MasterField.CERTIFICATE_EXPIRES],
        lost_lines={
            "log": master[MasterField.LOST_LINES] + total[Field.LOST_LINES],
            "access_log": total[Field.LOST_ACCESS_LINES],
        },
        cpu={slot: nanoseconds / 1e9 for slot, nanoseconds in sorted(cpu.items())},
        workers=tuple(sorted(workers, key=lambda one: (one.slot, one.serial))),
        total=Counts(total),
    )


def _view(row: Row, cells: list[int], now: float) -> WorkerView:
    return WorkerView(
        serial=cells[Field.SERIAL] - 1,
        slot=cells[Field.SLOT],
        generation=cells[Field.GENERATION],
        pid=cells[Field.PID],
        state=WORKER_STATES[cells[Field.MASTER_STATE]],
        age=_since(cells[Field.FORKED], now),
        silent=_since(cells[Field.HEARTBEAT], now),
        loop_lag=cells[Field.LOOP_LAG] / 1e9,
        connections=cells[Field.CONNECTIONS],
        active=cells[Field.ACTIVE],
        counts=Counts(cells),
        in_flight=tuple(_in_flight(row.text, now)),
    )


def _in_flight(text: str, now: float) -> list[Mapping[str, Any]]:
    """Read what a worker has left: a list of the method, the path, and the time of the monotonic clock."""
    try:
        found = json.loads(text or "[]")
        return [{"method": m, "path": p, "seconds": round(max(now - began, 0.0), 3)} for m, p, began in found]
    except (ValueError, TypeError):
        return []  # the app runs in the worker's process and could write anything


def _since(nanoseconds: int, now: float) -> float:
    return max(now - nanoseconds / 1e9, 0.0) if nanoseconds else 0.0
