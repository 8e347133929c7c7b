"""TTIN and TTOU: one worker more, one less."""

from __future__ import annotations

import signal

import pytest

from tests.e2e.conftest import Start
from tests.e2e.load import load

pytestmark = pytest.mark.parallel


def test_scaling_from_one_to_six_and_back_fails_no_request(start: Start) -> None:
    daemon = start(workers=1)
    with load(daemon.port, paths=("/", "/slow/0.05"), expect=r"1 \d+") as result:
        for count in (2, 3, 4, 5, 6):
            daemon.signal(signal.SIGTTIN)
            workers = daemon.wait_workers(count)
            assert [worker.slot for worker in workers] == list(range(count)), "slots are stable"
        for worker in daemon.workers():
            daemon.wait_log(rf"worker {worker.slot} \(generation 1\) is ready")
        for count in (5, 4, 3, 2, 1):
            leaving = daemon.workers()[-1].pid
            (busy,) = daemon.connect_to(leaving, 1)
            with busy:
                busy.ask("/slow/0.3")
                daemon.signal(signal.SIGTTOU)
                answer = busy.answer()
            assert (answer.text, answer.closes) == (f"1 {leaving}", True)
            daemon.wait_workers(count)
    assert result.failed == 0, result.describe()
    assert daemon.workers()[0].slot == 0
    assert daemon.stop() == 0


def test_the_last_worker_cannot_be_scaled_away(start: Start) -> None:
    daemon = start(workers=1)
    (pid,) = daemon.worker_pids()
    with load(daemon.port, clients=2, one_shot=1) as result:
        daemon.signal(signal.SIGTTOU)
        daemon.wait_log("WARNING.*scaling refused")
    assert result.failed == 0, result.describe()
    assert daemon.worker_pids() == {pid}
