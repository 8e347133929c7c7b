"""Workers and masters that are killed: only what they were doing is lost."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.e2e import load as names
from tests.e2e.client import Connection, NoAnswerError, ResetError
from tests.e2e.conftest import Start
from tests.e2e.daemon import listens
from tests.e2e.load import Failure, load

BACK = 3.0  # seconds until a killed worker has a successor that serves: 0.1 on a machine that is quiet
GONE = 2.0  # seconds until the workers of a killed master are gone


def test_five_killed_workers_fail_only_their_own_requests(start: Start) -> None:
    daemon = start()
    kills: dict[int, float] = {}
    with load(daemon.port, expect=r"1 \d+") as result:
        for number in range(5):
            began = time.monotonic()
            known = daemon.worker_pids()
            victim = sorted(daemon.workers())[number % 2].pid
            kills[victim] = time.monotonic()
            daemon.signal(signal.SIGKILL, victim)
            daemon.wait_serving(BACK, but=known)
            time.sleep(max(0.0, began + 1 - time.monotonic()))  # one kill a second is what is promised about

    def by_a_kill(failure: Failure) -> bool:
        after = [pid for pid, killed in kills.items() if killed <= failure.ended < killed + 0.5]
        own = not failure.last or int(failure.last.split()[1]) in after
        return bool(after) and own and failure.outcome not in (names.REFUSED, names.TIMEOUT, names.STATUS, names.WRONG)

    assert all(by_a_kill(failure) for failure in result.failures), f"{kills} {result.describe()}"
    assert result.failed <= 5 * 8, "each client has one request at a time"
    assert daemon.stop() == 0


def test_a_killed_worker_takes_no_request_of_another_one_with_it(start: Start) -> None:
    daemon = start()
    victim, other = (worker.pid for worker in daemon.workers())
    lost, kept = daemon.connect_to(victim, 3), daemon.connect_to(other, 3)
    for connection in lost + kept:
        connection.ask("/slow/0.5")
    daemon.signal(signal.SIGKILL, victim)
    for connection in lost:
        with connection, pytest.raises((NoAnswerError, ResetError)):
            connection.answer()
    for connection in kept:
        with connection:
            assert connection.answer().text == f"1 {other}"


@pytest.mark.parametrize(("path", "said"), [("/kill", "SIGKILL"), ("/exit/7", "exit code 7")])
def test_the_log_says_how_a_worker_died(start: Start, path: str, said: str) -> None:
    daemon = start()
    known = daemon.worker_pids()
    with Connection(daemon.port) as connection, pytest.raises((NoAnswerError, ResetError)):
        connection.get(path)
    daemon.wait_log(rf"worker \d \(generation 1\) ended: .*{said}")
    daemon.until(lambda: len(daemon.worker_pids() - known) == 1, 5, "a successor")


def test_the_workers_of_a_killed_master_are_gone_and_the_port_is_free(start: Start) -> None:
    daemon = start()
    with Connection(daemon.port) as idle, Connection(daemon.port):
        idle.get()
        daemon.signal(signal.SIGKILL)
        assert daemon.wait_exit() == 128 + signal.SIGKILL
        daemon.until(lambda: not listens(daemon.port), GONE, "nobody listens")
        daemon.wait_gone(GONE)
    successor = start(port=daemon.port)
    assert successor.stop() == 0


@pytest.mark.parallel
def test_a_worker_that_is_told_to_end_finishes_its_request_and_is_replaced(start: Start, tmp_path: Path) -> None:
    daemon = start()
    with load(daemon.port, expect=r"1 \d+") as result:
        for number in range(3):
            known = daemon.worker_pids()
            victim = min(known)
            (busy,) = daemon.connect_to(victim, 1)
            with busy:
                busy.ask(f"/until{tmp_path}/{number}")
                daemon.signal(signal.SIGTERM, victim)
                daemon.wait_serving(but=known)  # its successor: until that is ready it serves as before
                daemon.wait_log(rf"\[{victim}\] draining \(term\)")
                (tmp_path / str(number)).touch()
                answer = busy.answer()
            assert (answer.text, answer.closes) == (f"1 {victim}", True)
            daemon.wait_workers(2, but={victim})
    assert result.failed == 0, result.describe()
