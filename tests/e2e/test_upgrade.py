"""USR2: the program is replaced in place, with the same pid; what does not boot changes nothing."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.apps import AppFile
from tests.e2e.client import Connection, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import SHORT_TRIAL, Daemon, listens
from tests.e2e.load import load

UPGRADES = 10
TAKEN_OVER = "this is the new program"


def upgrade(daemon: Daemon) -> None:
    """USR2, until new workers serve."""
    before, mark = daemon.worker_pids(), daemon.mark()
    daemon.signal(signal.SIGUSR2)
    daemon.wait_log(TAKEN_OVER, since=mark)
    daemon.wait_log(r"generation \d+ serves", since=mark)
    daemon.wait_serving(but=before)


@pytest.mark.parallel
def test_ten_upgrades_under_load_fail_no_request_and_keep_the_pid(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = start(app=app.target)
    first = daemon.worker_pids()
    with load(daemon.port, paths=("/", "/slow/0.05"), expect=r"\d+ \d+") as result:
        for number in range(UPGRADES):
            app.version(str(number))
            upgrade(daemon)
    assert result.failed == 0, result.describe()
    assert {body.split()[0] for body in result.bodies} == {str(number) for number in range(UPGRADES)}
    daemon.wait_workers(2, but=first)
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_a_request_of_an_old_worker_survives_the_exchange_of_the_program(start: Start, tmp_path: Path) -> None:
    daemon = start()
    with Connection(daemon.port) as connection:
        old = connection.get().text
        connection.ask(f"/until{tmp_path}/upgraded")
        upgrade(daemon)
        (tmp_path / "upgraded").touch()
        answer = connection.answer()
    assert (answer.text, answer.closes) == (old, True)


@pytest.mark.parallel
def test_a_new_program_that_does_not_start_changes_nothing(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("from preforkd.daemon.cli import main\n\nmain()\n")
    daemon = start(command=[sys.executable, str(program)])
    before = daemon.worker_pids()
    with load(daemon.port, expect=r"1 \d+") as result:
        program.write_text("raise SystemExit('a broken release')\n")
        daemon.signal(signal.SIGUSR2)
        daemon.wait_log("a broken release")
        daemon.wait_log("nothing has changed")
    assert result.failed == 0, result.describe()
    assert daemon.worker_pids() == before
    program.write_text("from preforkd.daemon.cli import main\n\nmain()\n")
    upgrade(daemon)
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_an_app_that_does_not_boot_changes_nothing(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = start(app=app.target, tolerated="Traceback")
    before = daemon.worker_pids()
    app.broken()
    daemon.signal(signal.SIGUSR2)
    daemon.wait_log("this version is broken")
    daemon.wait_log("nothing has changed")
    assert daemon.worker_pids() == before
    assert get(daemon.port).text.startswith("1 ")
    assert daemon.stop() == 0


@pytest.mark.parametrize("milliseconds", [0, 100, 200, 300, 450, 650])
def test_term_in_the_middle_of_an_upgrade_is_orderly(start: Start, milliseconds: int) -> None:
    daemon = start()
    daemon.signal(signal.SIGUSR2)
    time.sleep(milliseconds / 1000)  # the moment is what is under test
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit(1.5) == 0
    daemon.wait_gone(0.2)


def test_workers_die_with_a_master_that_has_been_upgraded(start: Start) -> None:
    daemon = start()
    upgrade(daemon)
    daemon.signal(signal.SIGKILL)
    daemon.wait_exit()
    daemon.until(lambda: not listens(daemon.port), 0.3, "new connections refused")
    daemon.wait_gone(2.0)


@pytest.mark.parallel
def test_every_signal_still_works_after_an_upgrade(start: Start) -> None:
    daemon = start(*SHORT_TRIAL)
    first = daemon.worker_pids()
    upgrade(daemon)
    before = {worker.pid for worker in daemon.wait_workers(2, but=first)}
    daemon.signal(signal.SIGTTIN)
    daemon.wait_workers(3)
    daemon.signal(signal.SIGTTOU)
    daemon.wait_workers(2)
    daemon.signal(signal.SIGKILL, min(before))
    daemon.wait_workers(2, but={min(before)})
    daemon.signal(signal.SIGHUP)
    daemon.wait_serving(but=daemon.worker_pids())
    daemon.signal(signal.SIGINT)
    assert daemon.wait_exit(3.5) == 0
