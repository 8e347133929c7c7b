"""A worker whose event loop is blocked: the others serve, it is shown, and replaced. A stopped process is not hung."""

from __future__ import annotations

import signal
import time

import pytest

from tests.e2e.client import AnswerError, Connection, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import alive
from tests.e2e.load import load

PROMPT = 1.0  # seconds: how soon a healthy worker answers beside one that hangs for a minute
ABORTED = "Fatal Python error: Aborted"  # what the interpreter writes, with all stacks, when it is aborted


def test_a_hung_worker_delays_nobody_is_shown_and_replaced(start: Start) -> None:
    daemon = start("--stall-timeout", "4", tolerated=ABORTED)
    with Connection(daemon.port) as victim:
        hung = int(victim.get().text.split()[1])
        (other,) = daemon.worker_pids() - {hung}
        victim.ask("/block/60")
        began = time.monotonic()
        daemon.wait_log(r"worker \d .*hangs", 3.0)
        daemon.wait_log(r"site\.py.*on_block", 1.0)
        with load(daemon.port, clients=4, one_shot=2, pause=0.02, expect=rf"1 {other}") as result:
            time.sleep(1)  # the length of the load
            assert alive(hung)
        assert result.failed == 0, result.describe()
        assert result.slowest <= PROMPT, result.describe()
        daemon.wait_log("SIGABRT", 6)
        assert time.monotonic() - began < 10, "--stall-timeout and what it takes to notice"
        with pytest.raises(AnswerError):
            victim.answer()
    daemon.wait_workers(2, but={hung})
    daemon.wait_serving(but={hung, other})
    assert daemon.log().count("on_block") <= 4, "the stack once when it is noticed, once when it is ended"


@pytest.mark.parallel
def test_a_worker_that_answers_again_is_left_alone(start: Start) -> None:
    daemon = start("--stall-timeout", "4")
    before = daemon.worker_pids()
    assert get(daemon.port, "/block/2").status == 200
    daemon.wait_log("answers again")
    assert daemon.worker_pids() == before


@pytest.mark.parallel
@pytest.mark.parametrize("stopped", ["master", "worker", "all"])
def test_nobody_is_killed_because_a_process_was_stopped(start: Start, stopped: str) -> None:
    daemon = start("--stall-timeout", "2")
    before = daemon.worker_pids()
    frozen = {"master": [daemon.pid], "worker": [min(before)], "all": [daemon.pid, *before]}[stopped]
    for pid in frozen:
        daemon.signal(signal.SIGSTOP, pid)
    time.sleep(3.1)  # more than --stall-timeout, and than the longest gap between two looks
    for pid in frozen:
        daemon.signal(signal.SIGCONT, pid)
    time.sleep(1.1)  # the master looks twice a second
    assert daemon.worker_pids() == before
    assert "SIGABRT" not in daemon.log()
    assert get(daemon.port).status == 200
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_a_worker_that_is_blocked_while_the_master_is_stopped_is_noticed_afterwards(start: Start) -> None:
    daemon = start("--stall-timeout", "1", tolerated=ABORTED)
    before = daemon.worker_pids()
    with Connection(daemon.port) as victim:
        hung = int(victim.get().text.split()[1])
        victim.ask("/block/60")
        daemon.signal(signal.SIGSTOP)
        time.sleep(2)
        daemon.signal(signal.SIGCONT)
        daemon.wait_log("SIGABRT", 5)
    daemon.wait_workers(2, but={hung})
    assert before - {hung} <= daemon.worker_pids()
