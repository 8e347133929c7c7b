"""When a worker has done enough and asks to be replaced: --max-requests, --max-lifetime, --max-rss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from preforkd.workers.settings import WorkerSettings

WEIGH_EVERY: Final = 5.0
"""Seconds between two looks at the memory."""
_MB: Final = 1 << 20


def _draw(most: int) -> int:
    import random  # only where it is asked for

    return random.randint(0, most)  # noqa: S311 - nobody gains by guessing it


def _beyond(limit: int) -> int | None:
    from preforkd.workers import memory  # only where it is asked for: psutil takes 25 ms to import

    return memory.beyond(limit)


class Recycling:
    """The limits of one worker.

    Args:
        settings: the options.
        now: seconds of the monotonic clock.
        draw: returns a number from 0 to its argument, so that workers of one age do not all retire at a time.
        beyond: returns the bytes of the process' own memory when they are more than its argument, else None.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        now: float,
        draw: Callable[[int], int] = _draw,
        beyond: Callable[[int], int | None] = _beyond,
    ) -> None:
        self._requests = settings.max_requests and settings.max_requests + draw(settings.max_requests_jitter)
        self._lifetime = settings.max_lifetime
        self._rss = settings.max_rss
        self._beyond = beyond
        self._began = now
        self._weighed = now

    def reason(self, requests: int, now: float) -> str | None:
        """Return why the worker should be replaced, None as long as it need not be.

        Args:
            requests: that it has answered.
            now: seconds of the monotonic clock.
        """
        if self._requests and requests >= self._requests:
            return f"{requests} requests (--max-requests)"
        if self._lifetime and now - self._began >= self._lifetime:
            return f"it has served for {self._lifetime:g} s (--max-lifetime)"
        if self._rss and now - self._weighed >= WEIGH_EVERY:
            self._weighed = now
            size = self._beyond(self._rss)
            if size is not None:
                return f"it has {size // _MB} MB of its own memory, more than {self._rss / _MB:g} MB (--max-rss)"
        return None
