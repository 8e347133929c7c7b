"""The last minutes, second by second: rates and percentiles. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from operator import sub
from typing import Final, NamedTuple

from preforkd.workers.admin.snapshot import Counts, Snapshot
from preforkd.workers.scoreboard import BOUNDS

SECONDS: Final = 600
"""Of the series."""
WINDOW: Final = 10
"""Samples that the rates and percentiles of a worker go by."""


def quantile(buckets: Sequence[int], portion: float) -> float | None:
    """Return the duration in seconds below which that portion of the requests was; None: there were none.

    It is interpolated in its bucket, as Prometheus does it; what is above the last bound is that bound.

    Args:
        buckets: the number of requests in each, not cumulated; the last one has no upper bound.
        portion: 0.0 to 1.0.
    """
    wanted = sum(buckets) * portion
    if not wanted:
        return None
    below = 0
    for index, number in enumerate(buckets[: len(BOUNDS)]):
        if number and below + number >= wanted:
            lower = BOUNDS[index - 1] if index else 0.0
            return lower + (BOUNDS[index] - lower) * (wanted - below) / number
        below += number
    return BOUNDS[-1]


@dataclass(frozen=True, slots=True)
class Rates:
    """Of a stretch of time: per second, and in seconds."""

    requests: float = 0.0
    errors: float = 0.0
    """Responses 5xx and requests without one."""
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Reading(NamedTuple):
    """What is kept of the counts at one moment: all of them would be 10 kB for each worker and second."""

    buckets: list[int]
    """Requests by duration."""
    classes: list[int]
    """Requests by the class of their status."""

    @classmethod
    def of(cls, counts: Counts) -> Reading:
        """Return that of these counts."""
        return cls(counts.histogram()[:-1], counts.by_class())


def rates(before: Reading, after: Reading, seconds: float) -> Rates:
    """Return what has happened between two readings."""
    buckets = list(map(sub, after.buckets, before.buckets))
    classes = list(map(sub, after.classes, before.classes))
    if seconds <= 0 or min(buckets) < 0:
        return Rates()
    return Rates(
        sum(buckets) / seconds,
        (classes[0] + classes[5]) / seconds,
        *(quantile(buckets, portion) for portion in (0.5, 0.95, 0.99)),
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """One second of the whole daemon."""

    time: float
    """Seconds since the epoch."""
    rates: Rates
    active: int
    connections: int
    ready: int


class History:
    """What has been seen; `take` is called once a second."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=SECONDS)
        self._last: tuple[float, Reading] | None = None
        self._workers: dict[int, deque[tuple[float, Reading]]] = {}

    def take(self, snapshot: Snapshot, time: float, ready: int) -> None:
        """Take a sample.

        Args:
            snapshot: of the scoreboard.
            time: seconds since the epoch.
            ready: workers that are.
        """
        last, self._last = self._last, (snapshot.now, Reading.of(snapshot.total))
        if last is not None:
            found = rates(last[1], self._last[1], snapshot.now - last[0])
            active = sum(worker.active for worker in snapshot.workers)
            held = sum(worker.connections for worker in snapshot.workers)
            self.samples.append(Sample(round(time, 3), found, active, held, ready))
        before, self._workers = self._workers, {}
        for worker in snapshot.workers:
            kept = self._workers[worker.serial] = before.get(worker.serial, deque(maxlen=WINDOW))
            kept.append((snapshot.now, Reading.of(worker.counts)))

    def worker(self, serial: int) -> Rates:
        """Return the rates of a worker over the last seconds."""
        kept = self._workers.get(serial)
        if kept is None or len(kept) < 2:
            return Rates()
        (began, before), (now, after) = kept[0], kept[-1]
        return rates(before, after, now - began)

    def all(self) -> Rates:
        """Return the rates of the daemon in the last second."""
        return self.samples[-1].rates if self.samples else Rates()
