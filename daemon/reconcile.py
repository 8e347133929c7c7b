"""What follows from a state: which workers to fork, to relieve and to drain. Pure.

The rules of `preforkd.daemon.policy` change what is wanted; this makes the workers fit it after each of them, so that
no rule has to remember what else it brings about.
"""

from __future__ import annotations

import math

from preforkd.daemon.actions import CloseListeners, Exit
from preforkd.daemon.reloading import taken_over
from preforkd.daemon.slots import ENDING, SERVING, Worker, WorkerState
from preforkd.daemon.turn import RUNNING, Phase, Turn


def reconcile(turn: Turn) -> None:
    """Make the workers fit the state: fork, relieve and drain whom it takes, and end when nobody is left."""
    if turn.phase in RUNNING:
        _fill(turn)
        _relieve(turn)
        _trim(turn)
        if turn.phase is Phase.TRYING and not _all_replaced(turn):
            turn.enter(Phase.RELOADING)  # somebody has killed one of the canary: it is tried when it is there again
        if turn.phase is Phase.RELOADING and _all_replaced(turn):
            taken_over(turn)
            _trim(turn)
    elif turn.phase in (Phase.LEAVING, Phase.STOPPING, Phase.HALTING) and not turn.workers:
        turn.enter(Phase.GONE)
        if turn.losses:
            turn.log(
                "info", "workers lost since the start: " + ", ".join(f"{n} {loss}" for loss, n in turn.losses.items())
            )
        turn.do(CloseListeners(), Exit(turn.exit_code))


def _all_replaced(turn: Turn) -> bool:
    """Tell whether every slot that the target generation may have is served by it."""
    ready = {w.slot for w in turn.serving() if w.generation == turn.target.number}
    return ready.issuperset(range(turn.admitted))


def _fill(turn: Turn) -> None:
    """Fork what is missing: at once into an empty slot, a few at a time to replace workers that serve."""
    for slot in range(turn.target.size):
        here = turn.in_slot(slot)
        if any(_is_current(turn, worker) for worker in here):
            continue
        backoff = turn.backoffs.get(slot)
        if backoff is not None and backoff.until > turn.now:
            continue
        replaced = [w for w in here if w.state in SERVING]
        if replaced and slot >= turn.admitted:
            continue  # also one that has asked to be replaced: it would be by one more of those that are on trial
        if not replaced or _successors_starting(turn) < _surge(turn, replaced):
            turn.fork(slot)


def _is_current(turn: Turn, worker: Worker) -> bool:
    return worker.generation == turn.target.number and worker.state in (WorkerState.STARTING, WorkerState.READY)


def _successors_starting(turn: Turn) -> int:
    serving = {worker.slot for worker in turn.serving()}
    return sum(worker.slot in serving for worker in turn.all(WorkerState.STARTING))


def _surge(turn: Turn, replaced: list[Worker]) -> int:
    """Return how many successors may boot at a time beside the workers that serve: they cost memory and CPU."""
    recycling = all(w.generation == turn.target.number for w in replaced)
    return 1 if recycling else turn.target.surge or math.ceil(turn.target.size / 4)


def _relieve(turn: Turn) -> None:
    """Take those out of service whose successor is ready."""
    for slot in range(turn.target.size):
        here = turn.in_slot(slot)
        if any(w.state is WorkerState.READY and w.generation == turn.target.number for w in here):
            for worker in here:
                if not _is_current(turn, worker):
                    turn.relieve(worker)


def _trim(turn: Turn) -> None:
    """Take those out of service whose slot is not wanted any more; during a reload only when all others are ready."""
    if turn.phase is Phase.RELOADING:
        return
    size = turn.target.size
    if turn.phase is Phase.TRYING and turn.committed is not None:
        size = max(size, turn.committed.size)  # what the old generation serves with may be more
    for worker in list(turn.workers.values()):
        if worker.slot >= size and worker.state not in ENDING:
            turn.relieve(worker)
