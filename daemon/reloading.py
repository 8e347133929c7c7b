"""From a reload to its end: a new generation replaces the old one, is tried, and stays or is rolled back. Pure.

1. `RELOADING`: workers of the new generation boot, and each that is ready relieves one of the old, which stands by.
2. `TRYING`, with a canary (`--trial-workers`): so many of the new serve beside the old for `--trial` seconds; then 1.
3. `PROVING`: the new ones serve alone for `--trial` seconds, and the old ones stand by.

The reload is rolled back if in that time a worker of the new generation does not boot, dies by its own doing, hangs for
`--stall-timeout`, or if the new generation answers 5xx more often than the old one (`preforkd.daemon.comparison`). A
worker that is silent when the time is over has not passed: it is waited for.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from preforkd.daemon.actions import Commit, RollBack
from preforkd.daemon.comparison import LEAST, Answers
from preforkd.daemon.events import ReloadAsked, ReloadRefused
from preforkd.daemon.slots import ENDING, Generation, Reload, Worker, WorkerState
from preforkd.daemon.turn import ON_TRIAL, Phase, Turn

MUTE_AFTER: Final = 1.0
"""Seconds without a heartbeat after which a worker is said to hang."""


def reload(turn: Turn, event: ReloadAsked) -> None:
    """Begin to replace what serves by another generation."""
    previous = turn.target
    turn.target = replace(event.generation, number=turn.next_generation)
    turn.next_generation += 1
    turn.backoffs.clear()
    turn.canary = 0
    for worker in turn.all(WorkerState.STARTING):
        turn.end(worker, signal.SIGTERM, "a newer generation is being started")
    if turn.phase is Phase.BOOTING:
        turn.log("info", f"reload before anything has served: booting generation {turn.target.number} instead")
        return
    turn.canary = _canary(turn.target)
    if turn.phase is not Phase.SERVING:
        text = f"the reload to generation {previous.number} is superseded"
        turn.end_reload("info", text, Reload.SUPERSEDED, previous.number)
        turn.do(RollBack(previous.number))
        if turn.canary:
            _bring_back(turn)
    turn.reload_began = turn.now
    turn.findings = ""
    turn.record = turn.record.begun()
    turn.enter(Phase.RELOADING)
    size = turn.target.size
    first = f"; {workers(turn.canary)} first (--trial-workers)" if turn.canary else ""
    turn.log("info", f"reload: booting generation {turn.target.number} with {workers(size)}{first}")


def _canary(generation: Generation) -> int:
    """Return how many workers of a generation are tried first; 0: all at once."""
    wanted = generation.trial_workers if generation.probation else 0
    return wanted if wanted < generation.size else 0


def _bring_back(turn: Turn) -> None:
    """Have the committed generation serve again where it can: a canary serves beside it, and is compared with it."""
    resumed = set()
    for worker in turn.all(WorkerState.STANDBY):
        turn.resume(worker)
        resumed.add(worker.slot)
    for worker in turn.serving():
        if worker.slot in resumed and not _is_committed(turn, worker):
            turn.drain(worker)


def _is_committed(turn: Turn, worker: Worker) -> bool:
    return turn.committed is not None and worker.generation == turn.committed.number


def refuse_reload(turn: Turn, event: ReloadRefused) -> None:
    """Say why a configuration is not taken."""
    for error in event.errors:
        turn.log("error", f"reload refused: {error}")
    text = f"nothing has changed: generation {turn.target.number} goes on"
    turn.failure = "; ".join(event.errors)
    turn.end_reload("error", text, Reload.REFUSED, turn.target.number, reason=turn.failure)


def on_trial(turn: Turn, worker: Worker) -> bool:
    """Tell whether a worker is one of a generation that is on trial."""
    return turn.phase in ON_TRIAL and worker.generation == turn.target.number


def roll_back(turn: Turn, why: str) -> None:
    """Give the target generation up; the committed one, all of which is still there, serves on."""
    if turn.committed is None:  # impossible in the phases with a trial
        return
    failed, turn.target = turn.target, turn.committed
    turn.failure = why
    turn.canary = 0
    turn.backoffs.clear()
    turn.enter(Phase.SERVING)
    text = f"reload failed: generation {turn.target.number} goes on, generation {failed.number} is given up: {why}"
    turn.end_reload("error", text, Reload.ROLLED_BACK, failed.number, reason=why, **_figures(turn, failed))
    for worker in turn.all(WorkerState.STANDBY):
        turn.resume(worker)
    for worker in list(turn.workers.values()):
        if worker.generation != turn.target.number and worker.state not in ENDING:
            turn.relieve(worker)
    turn.do(RollBack(failed.number))


def served(turn: Turn, worker: Worker) -> None:
    """Note that a worker has become ready: with the first one of a canary, both generations serve side by side."""
    if turn.canary and worker.generation == turn.target.number and not turn.record.new.total:
        others = (one for one in turn.serving() if one.serial != worker.serial)
        if not any(on_trial(turn, one) for one in others):
            turn.record = turn.record.side_by_side()


def heard(turn: Turn, answers: Mapping[int, Answers]) -> None:
    """Note what the workers have answered so far, and judge the generation that is on trial by it.

    Args:
        turn: this one.
        answers: by serial.
    """
    old, new = turn.record.old, turn.record.new
    for serial, now in answers.items():
        worker = turn.workers.get(serial)
        if worker is None:
            continue
        if _is_committed(turn, worker):
            old += now - worker.answers
        elif worker.generation == turn.target.number:
            new += now - worker.answers
        turn.set(worker, answers=now)
    turn.record = replace(turn.record, old=old, new=new)
    if turn.phase is Phase.SERVING:
        turn.record = turn.record.sampled(turn.now)
    percent = turn.target.trial_errors
    if turn.phase in ON_TRIAL and turn.record.is_worse(percent):
        roll_back(turn, f"{turn.record.said()}: more than --trial-errors {percent:g} allows")


def taken_over(turn: Turn) -> None:
    """Begin the trial of those that have taken over: a canary, or all."""
    target, seconds = turn.target, turn.target.probation
    if turn.canary:
        others = f"{workers(turn.canary)} of {target.size} for {seconds:g} s; the old one goes on beside"
        turn.log("info", f"generation {target.number} serves with {others}")
        turn.enter(Phase.TRYING, turn.now + seconds)
        return
    if seconds:
        turn.log("info", f"generation {target.number} serves; the old one stands by for {seconds:g} s")
    turn.enter(Phase.PROVING, turn.now + seconds)


def trial_over(turn: Turn) -> None:
    """Let a generation go on that has been tried for long enough: to the next stage, or for good."""
    if turn.target.stall_timeout and any(on_trial(turn, one) and one.silent >= MUTE_AFTER for one in turn.serving()):
        turn.enter(turn.phase, turn.now + MUTE_AFTER)  # it answers again, or has hung for --stall-timeout
    elif turn.phase is Phase.TRYING:
        turn.canary = 0
        turn.enter(Phase.RELOADING)
        turn.log(
            "info", f"generation {turn.target.number} has passed its first trial{_because(turn)}: the others follow"
        )
    else:
        _commit(turn)


def _commit(turn: Turn) -> None:
    number = turn.target.number
    turn.findings = _because(turn)
    figures = _figures(turn, turn.target)
    turn.committed = turn.target
    turn.record = turn.record.taken_over()
    turn.enter(Phase.SERVING)
    turn.do(Commit(number))
    text = f"reload done: generation {number} has replaced the old one{turn.findings}"
    turn.end_reload("info", text, Reload.DONE, number, **figures)
    for worker in turn.all(WorkerState.STANDBY):
        turn.drain(worker)


def _figures(turn: Turn, tried: Generation) -> dict[str, object]:
    return turn.record.fields() if tried.trial_errors else {}


def _because(turn: Turn) -> str:
    """What a trial by errors has found, to be put behind its result; empty without one."""
    if not turn.target.trial_errors:
        return ""
    if not turn.record.decides():
        return f" ({turn.record.said()}: fewer than {LEAST} decide nothing)"
    return f" ({turn.record.said()})"


def workers(number: int) -> str:
    """Return so many workers in words."""
    return "1 worker" if number == 1 else f"{number} workers"
