"""Waiting for a fact with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL = 0.01  # seconds between two looks: short beside every promise under test, long beside the cost of a look


class DeadlineError(AssertionError):
    """What was waited for did not come in time."""


def until(look: Callable[[], T | None], within: float, what: Callable[[], str] | str) -> T:
    """Look again and again until `look()` is true.

    Args:
        look: asked every 10 ms; its first true value is returned.
        within: seconds before giving up.
        what: what is waited for, in words, for the failure message; a callable is asked only then.

    Raises:
        DeadlineError: it did not come in time.
    """
    end = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() >= end:
            words = what if isinstance(what, str) else what()
            raise DeadlineError(f"not within {within:g} s: {words}")
        time.sleep(POLL)
