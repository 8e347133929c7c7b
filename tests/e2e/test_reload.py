"""HUP: new code is served, nothing is lost, and a bad deploy changes nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.e2e import load as names
from tests.e2e.apps import AppFile
from tests.e2e.client import Connection, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import BOOT, SHORT_TRIAL, Daemon, title
from tests.e2e.load import load

RELOADS = "23456789ab"
MIXED = {"paths": ("/", "/slow/0.05", "/chunks/3/0.01"), "expect": r"\w \d+(\n0\n1\n2\n)?"}


def version(daemon: Daemon) -> str:
    """What a new connection is answered with."""
    return get(daemon.port).text.split()[0]


def wait_version(daemon: Daemon, wanted: str) -> None:
    """Every worker that accepts serves that version."""
    daemon.until(
        lambda: all(version(daemon) == wanted for _ in range(10)), BOOT, f"version {wanted} in ten answers in a row"
    )


@pytest.mark.parallel
def test_ten_reloads_under_load_fail_no_request(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = start(app=app.target)
    first = daemon.worker_pids()
    with load(daemon.port, **MIXED) as result:
        for number in RELOADS:
            app.version(number)
            daemon.signal(signal.SIGHUP)
            wait_version(daemon, number)
        daemon.wait_workers(2, but=first)
    assert result.failed == 0, result.describe()
    assert {body.split()[0] for body in result.bodies} == {"1", *RELOADS}
    assert version(daemon) == RELOADS[-1]
    assert daemon.stop() == 0


@pytest.mark.parallel
@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGTERM])
def test_a_worker_that_is_ready_just_when_its_master_ends_it_finishes_what_it_has_accepted(
    start: Start, tmp_path: Path, signum: signal.Signals
) -> None:
    app = AppFile(tmp_path)
    daemon = start("--drain-delay", "0.5", "--log-level", "debug", app=app.target, workers=1)
    (old,) = daemon.worker_pids()
    app.version("2", first="import time; time.sleep(0.5)")
    daemon.signal(signal.SIGHUP)
    daemon.wait_log(r"worker 0 \(generation 2\) is process")
    daemon.signal(signal.SIGSTOP)  # it does not hear that the new one is ready
    finishes_what_it_has_accepted(daemon, signum, daemon.wait_serving(but={old}))


@pytest.mark.parallel
@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGTERM])
def test_a_worker_from_a_mold_that_serves_before_its_master_knows_its_pid_keeps_its_channel(
    start: Start, signum: signal.Signals
) -> None:
    daemon = start("--preload", "--drain-delay", "0.5", "--log-level", "debug", workers=1)
    (old,) = daemon.worker_pids()
    (mold,) = [process.pid for process in daemon.processes() if "mold" in title(process)]
    daemon.signal(signal.SIGSTOP, mold)
    daemon.signal(signal.SIGTTIN)
    daemon.wait_log(r"worker 1 \(generation 1\) is to be forked")
    daemon.signal(signal.SIGSTOP)
    daemon.signal(signal.SIGCONT, mold)
    finishes_what_it_has_accepted(daemon, signum, daemon.wait_serving(but={old}))


def finishes_what_it_has_accepted(daemon: Daemon, signum: signal.Signals, worker: int) -> None:
    """The master, which is stopped, gets this signal and goes on."""
    (connection,) = daemon.connect_to(worker, 1)
    with connection:
        connection.ask("/slow/2")
        daemon.signal(signum)
        daemon.signal(signal.SIGCONT)
        daemon.wait_log("was ready just then")
        assert connection.answer().text.split()[1] == str(worker)
    assert (daemon.wait_exit() if signum is signal.SIGTERM else daemon.stop()) == 0
    assert "SIGKILL" not in daemon.log()
    assert "the master is gone" not in daemon.log()


def test_a_request_of_an_old_worker_is_completed_by_it(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = start("--idle-grace", "0.3", app=app.target, workers=1)  # shorter than the request takes
    with Connection(daemon.port) as connection:
        old = connection.get().text
        connection.ask("/slow/1.5")
        app.version("2")
        daemon.signal(signal.SIGHUP)
        wait_version(daemon, "2")
        answer = connection.answer()
        assert (answer.text, answer.closes) == (old, True)
        connection.expect_close()


@pytest.mark.parallel
def test_same_size_within_the_same_second_is_new_code_too(start: Start, tmp_path: Path) -> None:
    # The byte code that Python caches is checked by size and by the time in whole seconds.
    app = AppFile(tmp_path)
    daemon = start(app=app.target, workers=1)
    for number in "23":
        app.version(number)
        daemon.signal(signal.SIGHUP)
        wait_version(daemon, number)


@pytest.mark.parallel
def test_a_broken_deploy_leaves_the_old_code_serving(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = start(app=app.target, tolerated="Traceback")
    first = daemon.worker_pids()
    with load(daemon.port, expect=r"[12] \d+") as result:
        line = app.broken()
        daemon.signal(signal.SIGHUP)
        daemon.wait_log(rf"app\.py(:|\", line |, line ){line}\b")
        daemon.wait_log("this version is broken")
        daemon.wait_workers(2)
        assert daemon.worker_pids() == first
        assert version(daemon) == "1"
        app.version("2")
        daemon.signal(signal.SIGHUP)
        wait_version(daemon, "2")
    assert result.failed == 0, result.describe()
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_a_removed_app_leaves_the_old_code_serving(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = start(app=app.target)
    first = daemon.worker_pids()
    with load(daemon.port, expect=r"1 \d+") as result:
        app.path.unlink()
        mark = daemon.mark()
        daemon.signal(signal.SIGHUP)
        daemon.wait_log(r"ERROR.*app\.py", since=mark)
        daemon.wait_workers(2)
    assert daemon.worker_pids() == first
    assert result.failed == 0, result.describe()
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_reloads_faster_than_boots_end_with_the_newest_code(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = start(app=app.target)
    with load(daemon.port, expect=r"\d \d+") as result:
        for number in "23456789":
            app.version(number)
            daemon.signal(signal.SIGHUP)
        wait_version(daemon, "9")
    assert result.failed == 0, result.describe()


HANGS = "import time\ntime.sleep(60)"
DIES_LATER = "import threading\nthreading.Timer(3, os._exit, [9]).start()"


@pytest.mark.parallel
@pytest.mark.parametrize(
    ("first", "said"),
    [(HANGS, "not ready within"), (DIES_LATER, "exit code 9"), ("os._exit(9)", "exit code 9"), ("1 +", "SyntaxError")],
    ids=["hangs at import", "dies 3 s after ready", "ends at import", "syntax error"],
)
def test_a_generation_that_does_not_last_is_rolled_back(start: Start, tmp_path: Path, first: str, said: str) -> None:
    app = AppFile(tmp_path)
    soon = ("--startup-timeout", "5") if first is HANGS else ()
    daemon = start(*soon, app=app.target, tolerated="Traceback|Fatal Python error")
    app.version("2", first)
    with load(daemon.port, expect=r"\d \d+") as result:
        daemon.signal(signal.SIGHUP)
        daemon.wait_log(said)
        daemon.wait_log("reload failed")
        wait_version(daemon, "1")
        app.version("3")
        daemon.signal(signal.SIGHUP)
        wait_version(daemon, "3")
    # A worker that ends itself takes along what it was doing; nothing else may be lost, and nobody be refused.
    died_serving = first is DIES_LATER
    outcomes = set(result.outcomes) - {names.OK}
    assert outcomes <= ({names.RESET, names.CLOSED, names.STALE} if died_serving else set()), result.describe()
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_a_reload_is_over_when_the_old_generation_is_gone(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = start(*SHORT_TRIAL, app=app.target)
    first = daemon.worker_pids()
    app.version("2")
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("reload done")
    daemon.wait_workers(2, but=first)
    assert [worker.generation for worker in daemon.workers()] == [2, 2]
    assert [worker.slot for worker in daemon.workers()] == [0, 1]
