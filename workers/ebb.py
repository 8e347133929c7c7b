"""Memory that is given back to the system when most of many connections have closed.

The interpreter does so by itself for 1 MB at a time in which nothing is left. Something is left in most: 4,000 tuples
that it keeps for the next ones until the collector has gone through all generations, which an idle worker has no
reason for; and the C library gives back only what lies at the end of its heap. So a worker had two and a half times the
memory of before when 4,000 connections had closed, for good. It is one and a half times after this: a few things of the
event loop are left, each in a megabyte of its own.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

MANY: Final = 500
"""Connections: fewer leave nothing that would be worth the look."""
MOST: Final = 4
"""One of so many is left."""
NOT_AGAIN: Final = 60.0
"""Seconds: an app with a million objects is held up for 0.1 s by the collector."""


class Ebb:
    """Whether it is time.

    Args:
        now: seconds of the monotonic clock.
    """

    __slots__ = ("_before", "_earliest", "_highest")

    def __init__(self, now: float) -> None:
        self._before = 0
        self._highest = 0
        self._earliest = now

    def is_low(self, held: int, now: float) -> bool:
        """Return whether memory is to be given back now: once after each flood, when it falls no more.

        Args:
            held: connections, now.
            now: seconds of the monotonic clock.
        """
        falls, self._before = held < self._before, held
        self._highest = max(self._highest, held)
        if falls or self._highest < MANY or held * MOST > self._highest or now < self._earliest:
            return False
        self._highest, self._earliest = held, now + NOT_AGAIN
        return True


def give_back() -> None:
    """Give back what can be: Linux only, and there not with every C library."""
    if gc.isenabled():  # an app that has switched it off does not want to be held up
        gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
