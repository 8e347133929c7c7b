"""Whether a new generation answers 5xx more often than the one before it. Pure.

Shares are compared, in percentage points, and chance is left out of it: with few requests, or few errors, a difference
says nothing. So the new generation is worse only if the figures are `ODDS` times less likely with two generations that
keep to the limit than with two that answer as these have (a likelihood ratio, taken at the pair of shares within the
limit that fits best), and if both have answered `LEAST` requests: one request more or less must never decide.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from preforkd.workers.records import dataclass

LEAST: Final = 20
"""Requests that each generation has to have answered."""
ODDS: Final = 1000.0
"""How much less likely figures have to be within the limit. They are looked at every half second of a trial."""
WINDOW: Final = 300.0
"""Seconds before a reload that count for the old generation, when there is no canary to be compared with."""
SAMPLE_EVERY: Final = 10.0
"""Seconds by which that window may be longer."""
_STEPS: Final = 100


@dataclass(frozen=True, slots=True)
class Answers:
    """How many requests were answered, and how many of them with a 5xx."""

    total: int = 0
    errors: int = 0

    def __add__(self, other: Answers) -> Answers:
        return Answers(self.total + other.total, self.errors + other.errors)

    def __sub__(self, other: Answers) -> Answers:
        return Answers(self.total - other.total, self.errors - other.errors)

    @property
    def share(self) -> float:
        """Of 5xx: 0 to 1."""
        return self.errors / self.total if self.total else 0.0

    def __str__(self) -> str:
        share = f" ({self.share * 100:.3g} %)" if self.errors else ""
        return f"{self.errors:,} of {self.total:,} requests{share}"


@dataclass(frozen=True, slots=True)
class Record:
    """What the generation that serves has answered, and the one that is on trial.

    Attributes:
        old: the one that serves, since it does.
        new: the one on trial.
        before: of `old`: what does not count, for it was answered before the time that is compared.
        samples: when `old` was so many requests and so many errors: those of the last `WINDOW`, and one older.
    """

    old: Answers = Answers()
    new: Answers = Answers()
    before: Answers = Answers()
    samples: tuple[tuple[float, int, int], ...] = ()

    def sampled(self, now: float) -> Record:
        """Remember what there is at a time, seconds of the monotonic clock, if it is time to."""
        if self.samples and now - self.samples[-1][0] < SAMPLE_EVERY:
            return self
        kept = self.samples or ((now, 0, 0),)  # of a young generation all counts
        while len(kept) > 1 and kept[1][0] <= now - WINDOW:
            kept = kept[1:]
        return replace(self, samples=(*kept, (now, self.old.total, self.old.errors)))

    def begun(self) -> Record:
        """A reload begins: the old generation counts with what it has answered lately."""
        before = Answers(*self.samples[0][1:]) if self.samples else Answers()
        return replace(self, new=Answers(), before=before)

    def side_by_side(self) -> Record:
        """Both serve from now on: the old generation counts with what it answers meanwhile."""
        return replace(self, before=self.old)

    def taken_over(self) -> Record:
        """The new generation has become the old one."""
        return Record(old=self.new)

    @property
    def counted(self) -> Answers:
        """What of the old generation's answers is compared."""
        return self.old - self.before

    def decides(self) -> bool:
        """Whether there are enough answers to compare."""
        return min(self.counted.total, self.new.total) >= LEAST

    def is_worse(self, percent: float) -> bool:
        """Whether the new generation's share of 5xx is above the old one's by more than so many percentage points."""
        return bool(percent) and self.decides() and evidence(self.counted, self.new, percent / 100) > math.log(ODDS)

    def said(self) -> str:
        """Return the figures in words."""
        return f"5xx for {self.new}, before it for {self.counted}"

    def fields(self) -> dict[str, object]:
        """Return the figures for machines."""
        return {
            "answered": self.new.total,
            "errors": self.new.errors,
            "answered_before": self.counted.total,
            "errors_before": self.counted.errors,
        }


def evidence(old: Answers, new: Answers, margin: float) -> float:
    """Return how strongly figures speak for a share of the new above that of the old and a margin.

    Args:
        old, new: the figures.
        margin: by which the share of the new may be above that of the old, 0 to 1.

    Returns:
        The logarithm of how much less likely they are otherwise; 0 when they do not speak for it.
    """
    low, high = old.share, new.share - margin
    if high <= low:
        return 0.0
    # Convex in the share of the old that is supposed, so the best one is found by thirds; it lies between the two.
    for _ in range(_STEPS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if _unlikely(old, new, margin, left) <= _unlikely(old, new, margin, right):
            high = right
        else:
            low = left
    return max(_unlikely(old, new, margin, (low + high) / 2), 0.0)


def _unlikely(old: Answers, new: Answers, margin: float, supposed: float) -> float:
    return old.total * _divergence(old.share, supposed) + new.total * _divergence(new.share, supposed + margin)


def _divergence(seen: float, supposed: float) -> float:
    """Of Kullback and Leibler, for one request; infinite where what was seen cannot be."""
    return _term(seen, supposed) + _term(1 - seen, 1 - supposed)


def _term(seen: float, supposed: float) -> float:
    if seen <= 0:
        return 0.0
    return seen * math.log(seen / supposed) if supposed > 0 else math.inf
