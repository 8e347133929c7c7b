"""Every decision of the master: `step(state, event)` gives the next state and the actions that make it so. Pure.

The rules:

1. A slot is filled with a worker of the target generation, and only a worker that says it is ready relieves another.
2. A generation is on trial from the reload until all its workers have served for `--trial` seconds. If it fails in that
   time the reload is rolled back: those of the committed generation, which stand by or still serve, go on. The rules of
   that are in `preforkd.daemon.reloading`.
3. After the first worker was ready no worker's death ends the daemon; a slot whose workers die young waits longer each
   time. Before that, a failure to boot ends it with exit code 3, a crash loop with 4.
4. After a stop nothing is forked. A stop obeys one clock; a second one, or QUIT, kills. A TERM that a worker gets means
   what the master knows: a part of the stop of all, or that this one is to be replaced.
5. One worker retires at a time, and serves until its successor is ready: recycling never costs capacity.

`TABLE` says what each event does in each phase; `preforkd.daemon.reconcile` then makes the workers fit the state.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from preforkd.daemon.actions import (
    Action,
    Announce,
    CloseListeners,
    Commit,
    DumpStacks,
    ForkNoMore,
    ReopenLogs,
    Send,
    Show,
)
from preforkd.daemon.deaths import as_fields, cause, died_young, loss_of, was_its_own_doing
from preforkd.daemon.events import (
    Event,
    ForkFailed,
    HaltAsked,
    HeartbeatsRead,
    ReloadAsked,
    ReloadRefused,
    ReopenAsked,
    RestartAsked,
    ScaleAsked,
    StacksAsked,
    Started,
    StopAsked,
    TimePassed,
    WorkerExited,
    WorkerFailed,
    WorkerGotTerm,
    WorkerReady,
    WorkerRetiring,
    WorkerStacks,
)
from preforkd.daemon.reconcile import reconcile
from preforkd.daemon.reloading import (
    MUTE_AFTER,
    heard,
    on_trial,
    refuse_reload,
    reload,
    roll_back,
    served,
    trial_over,
    workers,
)
from preforkd.daemon.slots import ENDING, SERVING, Loss, Worker, WorkerState
from preforkd.daemon.turn import EXIT_GRACE, ON_TRIAL, RUNNING, Phase, State, Turn
from preforkd.workers.channel import INTERNAL, Reopen
from preforkd.workers.scoreboard import ROWS

SILENT_BOOTS: Final = 5
"""Workers that may be ended by a signal before any was ready."""
LONGEST_GAP: Final = 1.5
"""Seconds between two readings of the heartbeats beyond which the silence in between says nothing."""
HALT_GRACE: Final = 5.0
"""Seconds that killed workers get to disappear (one may be in the kernel) before the master leaves without them."""
MOST_WORKERS: Final = ROWS // 4
"""So that each worker may have a successor and draining predecessors."""


def step(state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
    """Decide what an event means.

    Args:
        state: all that the master knows.
        event: what has happened.

    Returns:
        What the master knows now, and what it has to do, in this order.
    """
    turn = Turn(state, event.now)
    TABLE[state.phase, type(event)](turn, event)
    reconcile(turn)
    return turn.state(), tuple(turn.actions)


def next_deadline(state: State, now: float) -> float | None:
    """Return the time at which `TimePassed` is due, or None when the master may wait for ever."""
    times = [worker.deadline for worker in state.workers.values() if worker.deadline is not None]
    if state.deadline is not None:
        times.append(state.deadline)
    if state.phase in RUNNING:
        # One that is over has been acted on: if its slot is still empty then not for want of time.
        times += [b.until for slot, b in state.backoffs.items() if slot < state.target.size and b.until > now]
    return min(times, default=None)


# What is asked of the daemon


def _start(turn: Turn, _: Started) -> None:
    turn.enter(Phase.BOOTING)


def _restart(turn: Turn, event: RestartAsked) -> None:
    for worker in turn.serving():
        if worker.slot == event.slot and event.first:
            turn.log("info", f"{worker} is to be replaced; it serves until its successor is ready")
            turn.set(worker, state=WorkerState.RETIRING)
        elif worker.slot == event.slot:
            turn.log("info", f"{worker} is to drain; it is replaced")
            turn.drain(worker)


def _show_stacks(turn: Turn, event: StacksAsked) -> None:
    for worker in turn.serving():
        if worker.slot == event.slot:
            turn.do(DumpStacks(worker.serial))


def _scale(turn: Turn, event: ScaleAsked) -> None:
    size = turn.target.size + event.by
    if not 1 <= size <= MOST_WORKERS:
        turn.log(
            "warning", f"scaling refused: there are {workers(turn.target.size)}, and 1 to {MOST_WORKERS} are possible"
        )
        return
    text = f"scaling from {turn.target.size} to {workers(size)}"
    turn.log("info", text, "scale", before=turn.target.size, workers=size)
    turn.target = replace(turn.target, size=size)
    if turn.committed is not None:
        turn.committed = replace(turn.committed, size=max(1, turn.committed.size + event.by))


def _reopen(turn: Turn, _: ReopenAsked) -> None:
    turn.do(ReopenLogs())
    for worker in turn.workers.values():
        turn.do(Send(worker.serial, Reopen()))


def _stop(turn: Turn, event: StopAsked) -> None:
    delay = turn.target.drain_delay if event.delay and turn.serving() else 0.0
    accept_until = turn.now + delay
    name, budget = signal.Signals(event.signum).name, _stop_budget(turn, delay)
    turn.log("info", f"{name}: stopping within {budget:g} s", "stop", signal=name, seconds=budget)
    for worker in list(turn.workers.values()):
        if worker.state is WorkerState.STARTING:
            turn.end(worker, signal.SIGTERM, "the daemon stops")
        elif worker.state in SERVING:
            turn.drain(worker, accept_until=accept_until, final=True)
        elif worker.state in (WorkerState.STANDBY, WorkerState.DRAINING):
            # Not the last to have the listeners while others accept: it would end the listening for all of them.
            turn.drain(worker, final=not delay)
    if delay:
        turn.log("info", f"still accepting for {delay:g} s (--drain-delay), so that load balancers can go elsewhere")
        turn.do(ForkNoMore())
        turn.enter(Phase.LEAVING, accept_until)
    else:
        _close(turn)


def _close(turn: Turn) -> None:
    turn.do(CloseListeners())
    turn.enter(Phase.STOPPING)


def _halt(turn: Turn, event: HaltAsked | StopAsked) -> None:
    turn.log("warning", f"{signal.Signals(event.signum).name}: ending at once")
    for worker in list(turn.workers.values()):
        turn.end(worker, signal.SIGKILL, f"{signal.Signals(event.signum).name} to the master")
    _wait_for_the_end(turn, 128 + event.signum)


def _give_up(turn: Turn, exit_code: int, why: str) -> None:
    """End the daemon before anything has served."""
    for worker in list(turn.workers.values()):
        if worker.state not in ENDING:
            turn.end(worker, signal.SIGTERM, why)
    _wait_for_the_end(turn, exit_code)


def _wait_for_the_end(turn: Turn, exit_code: int) -> None:
    turn.exit_code = exit_code
    turn.do(CloseListeners())
    turn.enter(Phase.HALTING, turn.now + HALT_GRACE)


# What workers do


def _ready(turn: Turn, event: WorkerReady) -> None:
    worker = turn.workers.get(event.serial)
    if worker is None or worker.state is not WorkerState.STARTING:
        _ready_too_late(turn, event)
        return
    turn.set(worker, state=WorkerState.READY, ready_at=turn.now, deadline=None)
    served(turn, worker)
    seconds = turn.now - worker.started
    turn.log(
        "info", f"{worker} is ready after {seconds:.2f} s", "worker_ready", **_who(worker), seconds=round(seconds, 3)
    )
    if turn.phase is Phase.BOOTING:
        turn.committed = turn.target
        turn.enter(Phase.SERVING)
        turn.do(Commit(turn.target.number), Announce())


def _ready_too_late(turn: Turn, event: WorkerReady) -> None:
    """Have a worker drain that said it was ready while its master told it to end: it has begun to accept."""
    worker = turn.workers.get(event.serial)
    if worker is None or worker.state is not WorkerState.DYING or worker.loss is not None:
        return
    turn.log("info", f"{worker} was ready just then: it finishes what it has accepted")
    if turn.phase in RUNNING:
        turn.drain(worker)
    else:
        turn.drain(worker, accept_until=turn.deadline, final=True)


def _failed(turn: Turn, event: WorkerFailed) -> None:
    worker = turn.workers.get(event.serial)
    if worker is None or worker.state is not WorkerState.STARTING:
        return
    turn.end(worker, signal.SIGTERM, "it could not boot", Loss.NOT_BOOTED)
    is_ours = event.stage == INTERNAL
    text = f"this is a bug in preforkd: {event.text}" if is_ours else f"{event.stage}: {event.text}"
    _boot_failed(turn, worker, text, event.details, is_ours=is_ours)


def _boot_failed(turn: Turn, worker: Worker, why: str, details: str = "", *, is_ours: bool = False) -> None:
    """Deal with a worker that has not become ready; it has been ended already.

    Args:
        turn: this one.
        worker: the worker.
        why: in one line.
        details: a traceback.
        is_ours: no code of the app was running.
    """
    text = f"{worker} did not boot: {why}" + (f"\n{details.rstrip()}" if details else "")
    said = ("worker_not_booted", {**_who(worker), "reason": why})
    if turn.phase is Phase.BOOTING and turn.target.development:
        turn.log("error", f"{text}\nthe next try is when a file has been saved", said[0], **said[1])
        turn.hold_slot(worker.slot)
    elif turn.phase is Phase.BOOTING:
        turn.log("error", text, said[0], **said[1])
        _give_up(turn, 1 if is_ours else 3, "preforkd did not start" if is_ours else "the app did not boot")
    elif on_trial(turn, worker):
        turn.log("error", text, said[0], **said[1])
        roll_back(turn, f"{worker} did not boot: {why}")
    else:
        text += f"\nthe next try is in {turn.delay_slot(worker.slot):.1f} s"
        turn.log("error", text, said[0], **said[1])


def _got_term(turn: Turn, event: WorkerGotTerm) -> None:
    """Replace a worker that somebody has sent a TERM.

    If that was for all of the daemon, and the master's own comes later than this, nothing is lost but a fork: whoever
    retires serves on. If it came before, this is not asked any more.
    """
    worker = turn.workers.get(event.serial)
    if worker is None:
        return
    if worker.state is WorkerState.READY:
        turn.log("info", f"{worker} got a TERM: it serves until its successor is ready")
        turn.set(worker, state=WorkerState.RETIRING)
    elif worker.state is WorkerState.STANDBY:
        turn.log("info", f"{worker} got a TERM: it goes, its successor serves")
        turn.drain(worker)


def _retires(turn: Turn, event: WorkerRetiring) -> None:
    worker = turn.workers.get(event.serial)
    if worker is None or worker.state is not WorkerState.READY:
        return
    turn.log("info", f"{worker} retires: {event.reason}", "worker_retires", **_who(worker), reason=event.reason)
    turn.set(worker, state=WorkerState.RETIRING)


def _stacks(turn: Turn, event: WorkerStacks) -> None:
    worker = turn.workers.get(event.serial)
    if worker is not None:
        turn.do(Show("warning", f"{worker} is here:\n{event.text}"))


def _fork_failed(turn: Turn, event: ForkFailed) -> None:
    worker = turn.forget(event.serial)
    if worker is not None:
        delay = turn.delay_slot(worker.slot)
        turn.log("error", f"{worker} could not be forked: {event.reason}; the next try is in {delay:.1f} s")


def _exited(turn: Turn, event: WorkerExited) -> None:
    worker = turn.forget(event.serial)
    if worker is None:
        return
    text = f"{worker} ended: {cause(worker, event)}"
    if event.in_flight:
        text += f", with {event.in_flight} requests in flight at its last heartbeat"
    loss = loss_of(worker, event)
    if loss is None:
        turn.drained += 1
    else:
        text += f"; {loss}: {turn.count(loss)} since the start"
    if worker.state in ENDING or turn.phase not in RUNNING:
        orderly = event.code == 0 or (worker.doom is not None and not event.in_flight)
        turn.log("info" if orderly else "warning", text, "worker_exit", **_who(worker), **as_fields(worker, event))
    else:
        _died(turn, worker, event, text)


def _died(turn: Turn, worker: Worker, event: WorkerExited, text: str) -> None:
    """Deal with a death that nobody has asked for."""
    turn.log("error", text, "worker_exit", **_who(worker), **as_fields(worker, event))
    if worker.state is WorkerState.STANDBY:
        return
    if turn.phase is Phase.BOOTING:
        _died_booting(turn, worker, event)
    elif on_trial(turn, worker) and was_its_own_doing(worker, event) and not _was_sent_term(turn, worker, event):
        roll_back(turn, text)
    elif not died_young(worker, event):
        turn.backoffs.pop(worker.slot, None)
    else:
        turn.log("warning", f"slot {worker.slot} gets its next worker in {turn.delay_slot(worker.slot):.1f} s")


def _died_booting(turn: Turn, worker: Worker, event: WorkerExited) -> None:
    if event.signum is None:
        if event.loading and turn.target.development:
            turn.log("error", "the app ended its process: the next try is when a file has been saved")
            turn.hold_slot(worker.slot)
        elif event.loading:
            turn.log("error", "the app ended its process while it was being imported or started: nothing is served")
            _give_up(turn, 3, "the app did not boot")
        else:
            turn.log("error", "the process ended before or after code of the app was run in it: nothing is served")
            _give_up(turn, 1, "preforkd did not start")
        return
    turn.delay_slot(worker.slot)
    turn.silent_boots += not _was_sent_term(turn, worker, event)
    if turn.silent_boots >= SILENT_BOOTS:
        turn.log("error", f"giving up: {SILENT_BOOTS} workers died before any was ready")
        _give_up(turn, 4, "the daemon gives up")


def _was_sent_term(turn: Turn, worker: Worker, event: WorkerExited) -> bool:
    """Tell whether somebody has ended a worker by TERM, perhaps all of them: the master's own is about to be read then.

    One that boots has no handler yet. When it happens in a slot again and again, the app does it itself.
    """
    backoff = turn.backoffs.get(worker.slot)
    return event.signum == signal.SIGTERM and (backoff is None or backoff.deaths < SILENT_BOOTS)


def _heartbeats(turn: Turn, event: HeartbeatsRead) -> None:
    gap = turn.now - turn.watched
    if gap > LONGEST_GAP:
        gap = 0.0  # the master itself, or the machine, has slept: those that slept with it may not have run again yet
    turn.watched = turn.now
    watched = (WorkerState.READY, WorkerState.RETIRING, WorkerState.STANDBY, WorkerState.DRAINING)
    for serial in [worker.serial for worker in turn.all(*watched)]:
        # Looked up anew each time: one of them may have had all of its generation given up.
        worker = turn.workers[serial]
        beat = event.beats.get(worker.serial, 0)
        if beat != worker.beat or worker.serial in event.frozen:
            if worker.silent >= MUTE_AFTER:
                turn.log("info", f"{worker} answers again after {worker.silent:.1f} s")
            turn.set(worker, beat=beat, silent=0.0)
        else:
            _silent(turn, worker, worker.silent + gap)
    heard(turn, event.answers)


def _silent(turn: Turn, worker: Worker, silent: float) -> None:
    limit = turn.target.stall_timeout
    if worker.silent < MUTE_AFTER <= silent:
        until = (
            f"it is ended after {limit:g} s (--stall-timeout)" if limit else "--stall-timeout is 0, so it is left alone"
        )
        text = f"{worker} hangs: its event loop has been blocked for {silent:.1f} s; {until}"
        turn.log("warning", text, "hang", **_who(worker), seconds=round(silent, 3))
        turn.do(DumpStacks(worker.serial))
    worker = turn.set(worker, silent=silent)
    if limit and silent >= limit:
        turn.end(worker, signal.SIGABRT, f"it hung for {silent:.1f} s (--stall-timeout)", Loss.HUNG)
        if on_trial(turn, worker):
            roll_back(turn, f"{worker} hung for {silent:.1f} s (--stall-timeout)")


def _time_passed(turn: Turn, _: TimePassed) -> None:
    for serial in list(turn.workers):
        # Looked up anew each time: one of them may have ended them all.
        worker = turn.workers[serial]
        if worker.deadline is not None and worker.deadline <= turn.now:
            _overdue(turn, worker)
    if turn.deadline is not None and turn.deadline <= turn.now:
        _phase_over(turn)


def _overdue(turn: Turn, worker: Worker) -> None:
    if worker.state is WorkerState.STARTING:
        limit = f"it was not ready within {turn.target.startup_timeout:g} s (--startup-timeout)"
        turn.end(worker, signal.SIGABRT, limit, Loss.NOT_BOOTED)
        _boot_failed(turn, worker, limit)
    elif worker.state is WorkerState.DRAINING:
        overdue = "it was not done at the end of --graceful-timeout and --shutdown-timeout"
        turn.end(worker, signal.SIGKILL, overdue, Loss.OVERDUE)
    else:
        turn.end(worker, signal.SIGKILL, worker.doom or "it did not end when told to", worker.loss)


def _phase_over(turn: Turn) -> None:
    if turn.phase is Phase.LEAVING:
        _close(turn)
    elif turn.phase in ON_TRIAL:
        trial_over(turn)
    elif turn.phase is Phase.HALTING:
        turn.log(
            "error", "workers that do not die are left to the system: " + ", ".join(map(str, turn.workers.values()))
        )
        turn.workers.clear()


# What is said


def _stop_budget(turn: Turn, delay: float) -> float:
    return delay + turn.target.graceful_timeout + turn.target.shutdown_timeout + EXIT_GRACE


def _who(worker: Worker) -> dict[str, object]:
    return {"slot": worker.slot, "generation": worker.generation}


def _ignore(_turn: Turn, _event: Event) -> None:
    """It makes no difference any more, or not yet."""


Rule = Callable[[Turn, Any], None]
_NEW: Final = (Phase.NEW,)
_UP: Final = (*sorted(RUNNING, key=lambda phase: phase.value),)
_ENDING: Final = (Phase.LEAVING, Phase.STOPPING)
_HALTING: Final = (Phase.HALTING,)
_GONE: Final = (Phase.GONE,)

_ROWS: Final[tuple[tuple[type, dict[tuple[Phase, ...], Rule]], ...]] = (
    (Started, {_NEW: _start, _UP: _ignore, _ENDING: _ignore, _HALTING: _ignore, _GONE: _ignore}),
    (StopAsked, {_NEW: _ignore, _UP: _stop, _ENDING: _halt, _HALTING: _ignore, _GONE: _ignore}),
    (HaltAsked, {_NEW: _ignore, _UP: _halt, _ENDING: _halt, _HALTING: _ignore, _GONE: _ignore}),
    (ReloadAsked, {_NEW: _ignore, _UP: reload, _ENDING: _ignore, _HALTING: _ignore, _GONE: _ignore}),
    (ReloadRefused, {_NEW: _ignore, _UP: refuse_reload, _ENDING: _ignore, _HALTING: _ignore, _GONE: _ignore}),
    (RestartAsked, {_NEW: _ignore, _UP: _restart, _ENDING: _ignore, _HALTING: _ignore, _GONE: _ignore}),
    (StacksAsked, {_NEW: _ignore, _UP: _show_stacks, _ENDING: _ignore, _HALTING: _ignore, _GONE: _ignore}),
    (ScaleAsked, {_NEW: _ignore, _UP: _scale, _ENDING: _ignore, _HALTING: _ignore, _GONE: _ignore}),
    (ReopenAsked, {_NEW: _ignore, _UP: _reopen, _ENDING: _reopen, _HALTING: _ignore, _GONE: _ignore}),
    (ForkFailed, {_NEW: _ignore, _UP: _fork_failed, _ENDING: _ignore, _HALTING: _ignore, _GONE: _ignore}),
    (WorkerReady, {_NEW: _ignore, _UP: _ready, _ENDING: _ready_too_late, _HALTING: _ignore, _GONE: _ignore}),
    (WorkerFailed, {_NEW: _ignore, _UP: _failed, _ENDING: _ignore, _HALTING: _ignore, _GONE: _ignore}),
    (WorkerGotTerm, {_NEW: _ignore, _UP: _got_term, _ENDING: _ignore, _HALTING: _ignore, _GONE: _ignore}),
    (WorkerRetiring, {_NEW: _ignore, _UP: _retires, _ENDING: _ignore, _HALTING: _ignore, _GONE: _ignore}),
    (WorkerStacks, {_NEW: _ignore, _UP: _stacks, _ENDING: _stacks, _HALTING: _ignore, _GONE: _ignore}),
    (WorkerExited, {_NEW: _ignore, _UP: _exited, _ENDING: _exited, _HALTING: _exited, _GONE: _ignore}),
    (HeartbeatsRead, {_NEW: _ignore, _UP: _heartbeats, _ENDING: _heartbeats, _HALTING: _ignore, _GONE: _ignore}),
    (TimePassed, {_NEW: _ignore, _UP: _time_passed, _ENDING: _time_passed, _HALTING: _time_passed, _GONE: _ignore}),
)

TABLE: Final[dict[tuple[Phase, type], Rule]] = {
    (phase, kind): rule for kind, rules in _ROWS for phases, rule in rules.items() for phase in phases
}
"""Nothing is filled in here: a pair that has no rule is missing, and its test fails."""
