"""The state of the master and the elementary moves that one turn of the policy is made of. Pure.

A `Turn` is a copy of the state that the rules in `preforkd.daemon.policy` work on; each move changes the table of
workers and notes the action that makes it real, so that neither is ever done without the other.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from enum import Enum
from typing import Final

from preforkd.daemon.actions import Action, Fork, Kill, Log, Send
from preforkd.daemon.backoff import Backoff
from preforkd.daemon.comparison import Record
from preforkd.daemon.slots import ENDING, SERVING, Generation, Reload, Worker, WorkerState
from preforkd.workers.channel import Drain, Pause, Resume
from preforkd.workers.records import dataclass

DYING_GRACE: Final = 1.0
"""Seconds between the signal that should end a worker and the KILL that does."""
HELD: Final = 86400.0
"""Seconds that a slot waits whose app does not boot while it is edited: a reload comes first."""
EXIT_GRACE: Final = 0.5
"""Seconds that a worker gets to leave after the last of its own deadlines, so that its own log line comes first."""


class Phase(Enum):
    """What the daemon as a whole is doing."""

    NEW = "new"
    """Nothing has been forked."""
    BOOTING = "booting"
    """No worker has ever been ready."""
    SERVING = "serving"
    RELOADING = "reloading"
    """The target generation replaces the committed one, slot by slot."""
    TRYING = "trying"
    """A few workers of the target generation serve beside those of the committed one: a canary."""
    PROVING = "proving"
    """The target generation serves alone; the committed one stands by in case its successor dies young."""
    LEAVING = "leaving"
    """Asked to stop, still accepting for `drain_delay`."""
    STOPPING = "stopping"
    """No listener is open; the workers finish what they have."""
    HALTING = "halting"
    """Every worker has been told to end, and only their exits are awaited."""
    GONE = "gone"


ON_TRIAL: Final = frozenset({Phase.RELOADING, Phase.TRYING, Phase.PROVING})
"""The target generation may still be given up, and the committed one goes on then."""
RUNNING: Final = ON_TRIAL | {Phase.BOOTING, Phase.SERVING}


@dataclass(frozen=True, slots=True)
class State:
    """All that the master knows."""

    target: Generation
    """What the slots are being filled with."""
    phase: Phase = Phase.NEW
    committed: Generation | None = None
    """The newest generation that has proved itself: a failed reload goes back to it."""
    workers: Mapping[int, Worker] = field(default_factory=dict)
    """By serial, in the order of their forks."""
    backoffs: Mapping[int, Backoff] = field(default_factory=dict)
    """By slot, where a worker has died young."""
    next_serial: int = 0
    next_generation: int = 2
    deadline: float | None = None
    """When the phase ends unless something happens first."""
    exit_code: int = 0
    silent_boots: int = 0
    """Workers that a signal has ended before any was ready."""
    losses: Mapping[str, int] = field(default_factory=dict)
    """How many workers were lost since the start, by `Loss`."""
    watched: float = 0.0
    """When the heartbeats were last read."""
    reload_began: float = 0.0
    """When the last reload was asked for."""
    drained: int = 0
    """How many workers have ended in order since the start."""
    reloads: Mapping[str, int] = field(default_factory=dict)
    """How many reloads have ended since the start, by `Reload`."""
    failure: str = ""
    """Why the last reload that failed has failed."""
    findings: str = ""
    """What the trial of the last reload that is done has found, to be put behind its result."""
    canary: int = 0
    """Slots from the first on that the target generation may take over, until these have been tried; 0: all."""
    record: Record = Record()
    """What both generations have answered."""


class Turn:
    """One event being dealt with: a copy of the state, and the actions so far."""

    def __init__(self, state: State, now: float) -> None:
        self._state = state
        self.now = now
        self.actions: list[Action] = []
        self.workers = dict(state.workers)
        self.backoffs = dict(state.backoffs)
        self.phase = state.phase
        self.target = state.target
        self.committed = state.committed
        self.next_serial = state.next_serial
        self.next_generation = state.next_generation
        self.deadline = state.deadline
        self.exit_code = state.exit_code
        self.silent_boots = state.silent_boots
        self.losses = dict(state.losses)
        self.watched = state.watched
        self.reload_began = state.reload_began
        self.drained = state.drained
        self.reloads = dict(state.reloads)
        self.failure = state.failure
        self.findings = state.findings
        self.canary = state.canary
        self.record = state.record

    def state(self) -> State:
        """Return the state after the turn."""
        return State(
            target=self.target,
            phase=self.phase,
            committed=self.committed,
            workers=self.workers,
            backoffs=self.backoffs,
            next_serial=self.next_serial,
            next_generation=self.next_generation,
            deadline=self.deadline,
            exit_code=self.exit_code,
            silent_boots=self.silent_boots,
            losses=self.losses,
            watched=self.watched,
            reload_began=self.reload_began,
            drained=self.drained,
            reloads=self.reloads,
            failure=self.failure,
            findings=self.findings,
            canary=self.canary,
            record=self.record,
        )

    def do(self, *actions: Action) -> None:
        """Note what is to be carried out."""
        self.actions += actions

    def log(self, level: str, text: str, event: str = "", /, **fields: object) -> None:
        """Note a line for the log.

        Args:
            level: of `logging`, in lower case.
            text: for people.
            event: the stable name of what has happened, for machines.
            fields: what they are told of it.
        """
        self.do(Log(level, text, event, fields))

    def end_reload(self, level: str, text: str, result: Reload, generation: int, **more: object) -> None:
        """Count a reload that is over, and say how it has ended.

        Args:
            level: of the line in the log.
            text: for people.
            result: how.
            generation: that it was to.
            more: what machines are told of it.
        """
        self.reloads[result.value] = self.reloads.get(result.value, 0) + 1
        seconds = 0.0 if result is Reload.REFUSED else round(self.now - self.reload_began, 3)
        self.log(level, text, "reload", result=result.value, seconds=seconds, generation=generation, **more)

    def enter(self, phase: Phase, deadline: float | None = None) -> None:
        """Go to another phase."""
        self.phase = phase
        self.deadline = deadline

    def all(self, *states: WorkerState) -> Iterator[Worker]:
        """Yield the workers that are in one of these states, in the order of their forks."""
        yield from [worker for worker in self.workers.values() if worker.state in states]

    def in_slot(self, slot: int) -> list[Worker]:
        """Return the workers of a slot that are not on their way out."""
        return [w for w in self.workers.values() if w.slot == slot and w.state not in ENDING]

    def set(self, worker: Worker, **changes: object) -> Worker:
        """Change what is known of a worker."""
        changed = replace(worker, **changes)  # type: ignore[arg-type]  # the callers name fields of Worker; replace checks them
        self.workers[worker.serial] = changed
        return changed

    def fork(self, slot: int) -> None:
        """Start a worker of the target generation."""
        taken = {worker.row for worker in self.workers.values()}
        row = next(index for index in range(len(taken) + 1) if index not in taken)
        serial = self.next_serial
        self.next_serial += 1
        reason = self._why_forked(slot)
        self.workers[serial] = Worker(
            serial=serial,
            slot=slot,
            generation=self.target.number,
            row=row,
            state=WorkerState.STARTING,
            started=self.now,
            deadline=self.now + self.target.startup_timeout,
        )
        self.do(Fork(serial, slot, self.target.number, row, reason, self.target.log_level))

    def _why_forked(self, slot: int) -> str:
        if self.phase in (Phase.NEW, Phase.BOOTING):
            return "start"
        here = self.in_slot(slot)
        if any(worker.generation != self.target.number for worker in here):
            return "reload"
        return "retire" if here else "vacancy"

    def forget(self, serial: int) -> Worker | None:
        """Take a worker out of the table, if it is there."""
        return self.workers.pop(serial, None)

    def drain(self, worker: Worker, *, accept_until: float | None = None, final: bool = False) -> None:
        """Have a worker finish what it has and exit; one that drains already is never given more time."""
        stop = self.now if accept_until is None else accept_until
        until = stop + self.target.graceful_timeout
        if worker.graceful_until is not None:
            until = min(until, worker.graceful_until)
        self.do(Send(worker.serial, Drain(stop, until, final)))
        self.set(
            worker,
            state=WorkerState.DRAINING,
            graceful_until=until,
            deadline=until + self.target.shutdown_timeout + EXIT_GRACE,
        )

    def relieve(self, worker: Worker) -> None:
        """Take a worker out of service, because another has taken its place.

        One of the committed generation stands by while a new one is being tried.
        """
        if worker.state is WorkerState.STANDBY:
            return
        if worker.state is WorkerState.STARTING:
            self.end(worker, signal.SIGTERM, "not needed any more")
        elif self.phase in ON_TRIAL and self.committed is not None and worker.generation == self.committed.number:
            until = self.now + self.target.graceful_timeout
            self.do(Send(worker.serial, Pause(until)))
            self.set(worker, state=WorkerState.STANDBY, graceful_until=until, deadline=None)
        else:
            self.drain(worker)

    def resume(self, worker: Worker) -> None:
        """Put a worker that stands by back into service."""
        self.do(Send(worker.serial, Resume()))
        self.set(worker, state=WorkerState.READY, graceful_until=None, deadline=None)

    def end(self, worker: Worker, signum: int, doom: str, loss: str | None = None) -> None:
        """End a worker with a signal, and with KILL when that is not enough.

        Args:
            worker: which.
            signum: the signal.
            doom: why, in the words of the log.
            loss: what it counts as, a `Loss`, if it counts.
        """
        self.do(Kill(worker.serial, signum))
        if signum == signal.SIGKILL:
            self.set(worker, state=WorkerState.KILLED, deadline=None, doom=doom, loss=loss)
        else:
            self.set(worker, state=WorkerState.DYING, deadline=self.now + DYING_GRACE, doom=doom, loss=loss)

    def count(self, loss: str) -> int:
        """Count a lost worker; returns how many were lost that way since the start."""
        self.losses[loss] = self.losses.get(loss, 0) + 1
        return self.losses[loss]

    def delay_slot(self, slot: int) -> float:
        """Note a young death in a slot; returns the seconds before its next worker."""
        backoff = self.backoffs.get(slot, Backoff()).young_death(self.now)
        self.backoffs[slot] = backoff
        return backoff.until - self.now

    def hold_slot(self, slot: int) -> None:
        """Have a slot wait for a reload."""
        self.backoffs[slot] = Backoff(until=self.now + HELD)

    @property
    def admitted(self) -> int:
        """Slots from the first on that the target generation may take over from workers that serve."""
        return min(self.canary, self.target.size) if self.canary else self.target.size

    def serving(self) -> list[Worker]:
        """Return the workers that accept."""
        return list(self.all(*SERVING))
