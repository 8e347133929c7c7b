"""TERM at a random moment of a boot, a reload or a drain: always orderly, always within the budget, nothing left.

`E2E_MOMENTS=200` tries as many moments; by default there are a few, so that the suite stays quick.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.e2e import load as names
from tests.e2e.apps import AppFile
from tests.e2e.conftest import Start
from tests.e2e.daemon import Daemon
from tests.e2e.load import load

MOMENTS = int(os.environ.get("E2E_MOMENTS", "12"))
SEED = random.randrange(1 << 32)
BUDGET = 3.5  # seconds: --idle-grace and what a busy machine needs


def in_a_boot(daemon: Daemon, app: AppFile) -> None:
    """It is booting anyway."""


def in_a_reload(daemon: Daemon, app: AppFile) -> None:
    """New code, HUP."""
    app.version("2")
    daemon.signal(signal.SIGHUP)


def in_a_drain(daemon: Daemon, app: AppFile) -> None:
    """One worker is told to go, another is killed."""
    first, second = sorted(daemon.worker_pids())
    daemon.signal(signal.SIGTERM, first)
    daemon.signal(signal.SIGKILL, second)


def in_a_scaling(daemon: Daemon, app: AppFile) -> None:
    """One worker more."""
    daemon.signal(signal.SIGTTIN)


STATES = (in_a_boot, in_a_reload, in_a_drain, in_a_scaling)


@pytest.mark.parametrize("number", range(MOMENTS))
def test_term_at_any_moment_is_orderly(start: Start, tmp_path: Path, number: int) -> None:
    moment = random.Random(SEED + number)
    state = STATES[number % len(STATES)]
    wait = moment.uniform(0.1, 0.8)
    app = AppFile(tmp_path)
    daemon = start(app=app.target, wait=state is not in_a_boot)
    where = f"{state.__name__}, after {wait:.4f} s"
    state(daemon, app)
    time.sleep(wait)  # the moment is what is under test
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit(BUDGET) == 0, where
    daemon.wait_gone(0.1)


def test_term_under_load_refuses_or_answers_but_never_breaks_a_request(start: Start) -> None:
    daemon = start()
    with load(daemon.port, clients=8, one_shot=4, pause=0) as result:
        assert daemon.stop(BUDGET) == 0
    broken = [failure for failure in result.failures if failure.outcome != names.REFUSED]
    # The kernel resets a connection that it establishes between a worker's last look at the queue and the end of the
    # listening: the time between two system calls, which thousands of connections a second may hit once.
    assert all(failure.outcome == names.RESET and failure.answers == 0 for failure in broken), result.describe()
    assert len(broken) <= 1, result.describe()
