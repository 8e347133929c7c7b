"""Why a worker has ended, and what that says of the next."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from preforkd.daemon.backoff import GROWN_UP
from preforkd.daemon.deaths import cause, died_young, loss_of
from preforkd.daemon.events import WorkerExited
from preforkd.daemon.slots import Worker, WorkerState


def worker(ready_at: float | None = 100.0, doom: str | None = None) -> Worker:
    return Worker(0, 0, 1, 0, WorkerState.READY, started=99.0, deadline=None, ready_at=ready_at, doom=doom)


def death(code: int | None = None, signum: int | None = None, *, oom: bool = False, after: float = 1.0) -> WorkerExited:
    return WorkerExited(100.0 + after, 0, code, signum, oom=oom, in_flight=0)


@pytest.mark.parametrize(
    ("event", "young"),
    [
        (death(code=1), True),
        (death(code=0), True),
        (death(signum=signal.SIGSEGV), True),
        (death(signum=signal.SIGKILL), False),
        (death(signum=signal.SIGKILL, oom=True), True),
        (death(code=1, after=GROWN_UP), False),
    ],
)
def test_a_death_by_its_own_doing_in_its_first_seconds_is_young(event: WorkerExited, young: bool) -> None:
    assert died_young(worker(), event) is young


def test_one_that_was_never_ready_has_always_died_young() -> None:
    assert died_young(worker(ready_at=None), death(signum=signal.SIGKILL, after=1000))


@pytest.mark.parametrize(
    ("event", "loss"),
    [
        (death(code=0), "exited"),
        (death(code=1), "exited"),
        (death(signum=signal.SIGSEGV), "crashed"),
        (death(signum=signal.SIGKILL), "killed"),
        (death(signum=signal.SIGTERM), "killed"),
        (death(signum=signal.SIGKILL, oom=True), "oom"),
    ],
)
def test_a_death_that_nobody_asked_for_is_counted_by_its_cause(event: WorkerExited, loss: str) -> None:
    assert loss_of(worker(), event) == loss


@pytest.mark.parametrize("loss", [None, "hung", "overdue", "not_booted"])
def test_one_that_the_master_has_ended_counts_as_what_it_was_ended_for(loss: str | None) -> None:
    ended = replace(worker(doom="x"), state=WorkerState.KILLED, loss=loss)
    assert loss_of(ended, death(signum=signal.SIGKILL)) == loss


@pytest.mark.parametrize(
    ("event", "doom", "text"),
    [
        (death(code=3), None, "exit code 3"),
        (death(signum=signal.SIGSEGV), None, "signal SIGSEGV"),
        (death(signum=42), None, "signal 42"),
        (death(signum=signal.SIGKILL, oom=True), None, "killed by the kernel, which was out of memory (SIGKILL)"),
        (death(signum=signal.SIGABRT), "it hung for 30 s", "signal SIGABRT (it hung for 30 s)"),
    ],
)
def test_the_log_names_the_cause_and_who_wanted_it(event: WorkerExited, doom: str | None, text: str) -> None:
    assert cause(worker(doom=doom), event) == text
