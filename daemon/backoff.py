"""How long a slot waits before its next worker, after workers that died young. Pure."""

from __future__ import annotations

from typing import Final

from preforkd.workers.records import dataclass

FIRST: Final = 0.1
LONGEST: Final = 30.0
GROWN_UP: Final = 10.0
"""Seconds that a worker must have served for its death to be no sign of a crash loop."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Of one slot: the deaths in a row of young workers, and the time before which it gets no other."""

    deaths: int = 0
    until: float = 0.0

    def young_death(self, now: float) -> Backoff:
        """Return the back-off after one more young death: 0.1 s, then twice as long each time, 30 s at most."""
        # The exponent is bounded, so that a loop that lasts a year does not overflow a float.
        delay = min(FIRST * 2.0 ** min(self.deaths, 32), LONGEST)
        return Backoff(self.deaths + 1, now + delay)
