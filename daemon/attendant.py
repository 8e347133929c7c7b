"""The admin process as its master keeps it: begun, replaced by one with other options, begun again when it dies. Pure.

It has no slot and is part of no generation: nothing that serves depends on it, so its death is a line in the log. An
instance is known by a number of its own, and what it was begun with by the number of a plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Final

from preforkd.daemon.backoff import GROWN_UP, Backoff
from preforkd.workers.records import dataclass

LEAVE_WITHIN: Final = 5.0
"""Seconds for the last answers of one that is dismissed, before it is killed."""
SILENT_FOR: Final = 30.0
"""Seconds without a heartbeat after which one is killed: it hangs."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Fork an admin process after that plan."""

    number: int
    plan: int


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Tell one that it is not needed any more, by the end of its channel."""

    number: int


@dataclass(frozen=True, slots=True)
class End:
    """Kill one, and say why in the log."""

    number: int
    why: str


Order = Begin | Dismiss | End


@dataclass(frozen=True, slots=True)
class Attendant:
    """What the master knows of its admin processes; times are seconds of the monotonic clock."""

    current: int | None = None
    """The number of the one that answers."""
    plan: int | None = None
    """After which it was begun."""
    began: float = 0.0
    beat: int = 0
    """Its last heartbeat seen."""
    beat_at: float = 0.0
    """When that one was seen first."""
    leaving: Mapping[int, float] = field(default_factory=dict)
    """When those that were dismissed will be killed."""
    backoff: Backoff = field(default_factory=Backoff)
    lost: int = 0
    """How many have died."""
    next: int = 0


def tend(attendant: Attendant, plan: int | None, beat: int, now: float) -> tuple[Attendant, tuple[Order, ...]]:
    """Decide what is to be done now.

    Args:
        attendant: what is known.
        plan: the number of what an admin process should be begun with; None: there should be none.
        beat: the heartbeat of the current one.
        now: seconds of the monotonic clock.
    """
    orders: list[Order] = []
    leaving = dict(attendant.leaving)
    if attendant.current is not None and attendant.plan != plan:
        orders.append(Dismiss(attendant.current))
        leaving[attendant.current] = now + LEAVE_WITHIN
        attendant = replace(attendant, current=None, plan=None, backoff=Backoff())
    for number, until in list(leaving.items()):
        if until <= now:
            orders.append(End(number, f"it has not left within {LEAVE_WITHIN:g} s"))
            leaving[number] = now + LEAVE_WITHIN
    if attendant.current is None and plan is not None and attendant.backoff.until <= now:
        number = attendant.next
        orders.append(Begin(number, plan))
        attendant = replace(attendant, current=number, plan=plan, began=now, beat=beat, beat_at=now, next=number + 1)
    elif attendant.current is not None and beat != attendant.beat:
        attendant = replace(attendant, beat=beat, beat_at=now)
    elif attendant.current is not None and now - attendant.beat_at >= SILENT_FOR:
        orders.append(End(attendant.current, f"it has hung for {SILENT_FOR:g} s"))
        attendant = replace(attendant, beat_at=now)
    return replace(attendant, leaving=leaving), tuple(orders)


def ended(attendant: Attendant, number: int, now: float) -> Attendant:
    """Note that one has ended, or could not be forked; the next one waits if it was young."""
    if number != attendant.current:
        return replace(attendant, leaving={one: at for one, at in attendant.leaving.items() if one != number})
    young = now - attendant.began < GROWN_UP
    backoff = attendant.backoff.young_death(now) if young else Backoff()
    return replace(attendant, current=None, plan=None, backoff=backoff, lost=attendant.lost + 1)


def next_deadline(attendant: Attendant, plan: int | None, now: float) -> float | None:
    """Return when `tend` is due even if nothing happens."""
    times = list(attendant.leaving.values())
    if attendant.current is None and plan is not None:
        times.append(attendant.backoff.until)
    elif attendant.current is not None:
        times.append(max(attendant.beat_at + SILENT_FOR, now))
    return min(times, default=None)
