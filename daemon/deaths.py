"""Why a worker has ended, and what that says of the next. Pure."""

from __future__ import annotations

import signal

from preforkd.daemon.backoff import GROWN_UP
from preforkd.daemon.events import WorkerExited
from preforkd.daemon.slots import ENDING, Loss, Worker


def died_young(worker: Worker, event: WorkerExited) -> bool:
    """Tell whether the next worker of the slot had better wait: this one's death may be its code's doing."""
    if worker.ready_at is None:
        return True
    return was_its_own_doing(worker, event) and event.now - worker.ready_at < GROWN_UP


def was_its_own_doing(worker: Worker, event: WorkerExited) -> bool:
    """Tell whether a death may be due to the worker's code: that somebody has killed one that served says nothing."""
    return worker.ready_at is None or event.signum != signal.SIGKILL or event.oom


def loss_of(worker: Worker, event: WorkerExited) -> str | None:
    """Return what an end counts as, or None when it was an orderly one."""
    if event.oom:
        return Loss.OOM
    if worker.state in ENDING:
        return worker.loss
    if event.signum is None:
        return Loss.EXITED
    return Loss.KILLED if event.signum in (signal.SIGKILL, signal.SIGTERM) else Loss.CRASHED


def as_fields(worker: Worker, event: WorkerExited) -> dict[str, object]:
    """Return an end for machines; `cause` is one word that stays the same: a `Loss`, or `orderly`."""
    loss = loss_of(worker, event)
    return {
        "cause": "orderly" if loss is None else loss,
        "detail": cause(worker, event),
        "exit_code": event.code,
        "signal": None if event.signum is None else _signal_name(event.signum),
        "in_flight": event.in_flight,
    }


def cause(worker: Worker, event: WorkerExited) -> str:
    """Return what ended a worker, in the words of the log."""
    if event.oom:
        text = "killed by the kernel, which was out of memory (SIGKILL)"
    elif event.signum is not None:
        text = f"signal {_signal_name(event.signum)}"
    else:
        text = f"exit code {event.code}"
    return f"{text} ({worker.doom})" if worker.doom is not None else text


def _signal_name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:
        return str(signum)
