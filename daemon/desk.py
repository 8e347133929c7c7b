"""Where the questions of the admin process are begun, and answered when what they ask for is over."""

from __future__ import annotations

import time
from collections.abc import Callable

from preforkd.daemon import control
from preforkd.daemon.admin import Admins, Instance
from preforkd.daemon.events import Event
from preforkd.daemon.turn import RUNNING, State
from preforkd.daemon.upgrade import UPGRADABLE, Progress, Upgrade
from preforkd.workers import log
from preforkd.workers.channel import Answer, Ask
from preforkd.workers.examining import KINDS, Area
from preforkd.workers.records import dataclass


@dataclass(frozen=True, slots=True)
class Hands:
    """What the master does for a question.

    Attributes:
        state: returns what it knows now.
        handle: has it deal with an event.
        reload, start_upgrade: have it begin with one, as by a signal.
        upgrade: how far that one has come.
        area: where workers are asked to look at themselves.
    """

    state: Callable[[], State]
    handle: Callable[[Event], None]
    reload: Callable[[float], None]
    start_upgrade: Callable[[], None]
    upgrade: Upgrade
    area: Area


class Desk:
    """The questions that have been asked and not answered.

    Args:
        admins: who asks.
        hands: of the master.
    """

    def __init__(self, admins: Admins, hands: Hands) -> None:
        self._admins = admins
        self._hands = hands
        self._pending: list[tuple[int, control.Pending]] = []
        """With the instance that waits."""

    def hear(self, instance: Instance) -> None:
        """Read what an admin process asks, and begin with it."""
        for ask in self._admins.read(instance):
            log.LOGGER.info("%s asks for: %s", ask.by, ask.verb)
            try:
                pending = self._begin(ask, time.monotonic())
            except control.RefusedError as exc:
                self._admins.answer(instance.number, Answer(ask.ident, "refused", str(exc), 0, 0.0))
                continue
            answer = control.begun(pending, self._hands.state())
            if ask.wait and answer.result == "accepted":
                self._pending.append((instance.number, pending))
            else:
                self._admins.answer(instance.number, answer)

    def _begin(self, ask: Ask, now: float) -> control.Pending:
        """Begin what is asked; raises RefusedError."""
        state = self._hands.state()
        newest = state.next_serial
        if ask.verb == "reload":
            self._hands.reload(now)
            after = self._hands.state()
            if after.next_generation == state.next_generation:
                down = after.phase not in RUNNING
                raise control.RefusedError(f"the daemon is {after.phase.value}" if down else after.failure)
        elif ask.verb == "upgrade":
            if state.phase not in UPGRADABLE:
                raise control.RefusedError(f"the daemon is {state.phase.value}")
            self._hands.start_upgrade()
            if self._hands.upgrade.progress is Progress.IDLE:
                raise control.RefusedError(self._hands.upgrade.failure)
        else:
            if ask.verb in KINDS:
                self._refuse_second(state, now)
            self._hands.handle(control.event_of(ask, state, now))
        return control.Pending(ask, now, self._hands.state().target.number, newest)

    def _refuse_second(self, state: State, now: float) -> None:
        """Raise RefusedError while a worker that is there is at work on what was asked of it."""
        serial = self._hands.area.serves(now)
        worker = None if serial is None else state.workers.get(serial)
        if worker is not None:
            kind = self._hands.area.order.kind
            raise control.RefusedError(f"the worker of slot {worker.slot} is being examined ({kind}): one at a time")

    def settle(self, state: State, now: float) -> None:
        """Answer those that wait for what has happened; to be called after each turn of the master."""
        for number, pending in self._pending.copy():
            answer = control.outcome(pending, state, now)
            if answer is None and pending.ask.verb == "upgrade" and self._hands.upgrade.progress is Progress.IDLE:
                answer = Answer(
                    pending.ask.ident, "failed", self._hands.upgrade.failure, 0, round(now - pending.since, 3)
                )
            if answer is not None:
                self._admins.answer(number, answer)
            if answer is not None or not self._admins.has(number):
                self._pending.remove((number, pending))
