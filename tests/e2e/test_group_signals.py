"""Signals that reach master and workers alike: KillMode=control-group, `stopasgroup`, Ctrl-C, `kill -TERM -GROUP`.

What all of them get means what it means to the master alone, whoever hears of it first.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tests.e2e.apps import AppFile
from tests.e2e.client import Connection, get
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import APPS, Daemon, listens
from tests.e2e.load import load

AT_ONCE = 0.5  # seconds
GRACE = 2.0  # --idle-grace: how long idle connections get
DELAY = 1.0  # --drain-delay
SLOW_IMPORT = f"{APPS / 'slow_import.py'}:Site"
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def signal_all(daemon: Daemon, signum: signal.Signals, *, workers_first: bool = False) -> None:
    """Send a signal to the master and everything that it has started.

    Args:
        daemon: whose.
        signum: which.
        workers_first: the master gets it only when every worker has, and can have said so.
    """
    if not workers_first:
        os.killpg(daemon.pid, signum)
        return
    for process in daemon.processes():
        if process.pid != daemon.pid:
            process.send_signal(signum)
    time.sleep(0.1)  # the order is what is under test
    daemon.signal(signum)


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["alone", "preload"])
@pytest.mark.parametrize("workers_first", [False, True], ids=["together", "workers first"])
def test_term_to_all_keeps_the_lame_duck_and_then_drains(
    start: Start, options: Sequence[str], workers_first: bool
) -> None:
    daemon = start("--drain-delay", str(DELAY), "--health-path", "/healthz", *options)
    with Connection(daemon.port) as slow:
        slow.ask(f"/slow/{DELAY + 0.5}")
        with load(daemon.port, clients=2, one_shot=2, expect=r"1 \d+") as result:
            began = time.monotonic()
            signal_all(daemon, signal.SIGTERM, workers_first=workers_first)
            daemon.wait_log("still accepting for")
            daemon.until(lambda: get(daemon.port, "/healthz").status == 503, AT_ONCE, "readiness 503")
            while time.monotonic() < began + DELAY - 0.5:
                assert get(daemon.port).status == 200, "it accepts for all of --drain-delay"
        daemon.until(lambda: not listens(daemon.port), 1.0, "new connections refused")
        assert time.monotonic() - began >= DELAY
        answer = slow.answer()
        assert (answer.status, answer.closes) == (200, True)
    assert result.failed == 0, result.describe()
    assert daemon.wait_exit(GRACE + 1) == 0
    daemon.wait_gone(AT_ONCE)
    assert "lost since" not in daemon.log()
    if not workers_first:
        assert not re.search("WARNING|ERROR", daemon.log()), "an orderly stop"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_of_all_completes_what_was_begun(start: Start, signum: signal.Signals) -> None:
    daemon = start("--drain-delay", "0" if signum == signal.SIGTERM else "10")
    with Connection(daemon.port) as slow, Connection(daemon.port) as idle:
        idle.get()
        slow.ask("/slow/0.7")
        signal_all(daemon, signum)
        daemon.until(lambda: not listens(daemon.port), AT_ONCE, "new connections refused")
        daemon.until(lambda: idle.get().closes, 0.1, "a request on an idle connection is answered, with close")
        assert slow.answer().status == 200
    assert daemon.wait_exit(GRACE + 1) == 0
    daemon.wait_gone(AT_ONCE)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGQUIT, 131), (signal.SIGABRT, 134), (signal.SIGKILL, 137)])
def test_what_ends_a_process_at_once_ends_all_at_once(start: Start, signum: signal.Signals, code: int) -> None:
    daemon = start("--preload", tolerated="Fatal Python error")
    with Connection(daemon.port) as connection:
        connection.ask("/slow/20")
        signal_all(daemon, signum)
        assert daemon.wait_exit(AT_ONCE) == code
    daemon.wait_gone(AT_ONCE)


def test_a_second_term_to_all_ends_the_stop_at_once(start: Start) -> None:
    daemon = start("--drain-delay", "10")
    with Connection(daemon.port) as connection:
        connection.ask("/slow/20")
        signal_all(daemon, signal.SIGTERM)
        daemon.wait_log("still accepting for")
        signal_all(daemon, signal.SIGTERM)
        assert daemon.wait_exit(AT_ONCE) == 128 + signal.SIGTERM
    daemon.wait_gone(AT_ONCE)


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["alone", "preload"])
@pytest.mark.parametrize("workers_first", [False, True], ids=["together", "workers first"])
def test_term_to_all_in_the_middle_of_a_boot_is_obeyed_at_once(
    start: Start, options: Sequence[str], workers_first: bool
) -> None:
    daemon = start(*options, app=SLOW_IMPORT, workers=6, wait=False)
    daemon.until(lambda: len(daemon.processes()) == (2 if options else 7), 10, "those that import")
    signal_all(daemon, signal.SIGTERM, workers_first=workers_first)
    assert daemon.wait_exit(2 * AT_ONCE) == 0
    daemon.wait_gone(AT_ONCE)


@pytest.mark.parallel
@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["alone", "preload"])
@pytest.mark.parametrize("workers_first", [False, True], ids=["together", "workers first"])
def test_term_to_all_in_the_middle_of_a_reload_is_one_stop(
    start: Start, tmp_path: Path, options: Sequence[str], workers_first: bool
) -> None:
    app = AppFile(tmp_path)
    daemon = start("--drain-delay", str(DELAY), *options, app=app.target)
    before = len(daemon.processes())
    app.version("2", "import time\ntime.sleep(60)")
    daemon.signal(signal.SIGHUP)
    daemon.until(lambda: len(daemon.processes()) > before, 10, "the next generation boots")
    began = time.monotonic()
    signal_all(daemon, signal.SIGTERM, workers_first=workers_first)
    daemon.wait_log("still accepting for")
    while time.monotonic() < began + DELAY - 0.3:
        assert get(daemon.port).text.startswith("1 ")
    assert daemon.wait_exit(DELAY + GRACE) == 0
    daemon.wait_gone(AT_ONCE)


@pytest.mark.parallel
@pytest.mark.parametrize("workers_first", [False, True], ids=["together", "workers first"])
def test_term_to_all_while_the_old_generation_stands_by_is_one_stop(
    start: Start, tmp_path: Path, workers_first: bool
) -> None:
    app = AppFile(tmp_path)
    daemon = start("--drain-delay", "0.5", app=app.target)
    app.version("2")
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("the old one stands by")
    began = time.monotonic()
    signal_all(daemon, signal.SIGTERM, workers_first=workers_first)
    daemon.wait_log("still accepting for")
    while time.monotonic() < began + 0.3:
        assert get(daemon.port).text.startswith("2 ")
    assert daemon.wait_exit(GRACE + 1) == 0
    daemon.wait_gone(AT_ONCE)


@pytest.mark.parallel
@pytest.mark.parametrize("milliseconds", [0, 150, 300, 450, 650])
def test_term_to_all_in_the_middle_of_an_upgrade_is_one_stop(start: Start, milliseconds: int) -> None:
    daemon = start("--drain-delay", "0.5")
    daemon.signal(signal.SIGUSR2)
    time.sleep(milliseconds / 1000)  # the moment is what is under test
    signal_all(daemon, signal.SIGTERM)
    daemon.wait_log("TERM: stopping within", 5)
    assert get(daemon.port).status == 200
    assert daemon.wait_exit(GRACE + 1) == 0
    daemon.wait_gone(AT_ONCE)
    assert "does not boot" not in daemon.log()


@pytest.mark.parallel
@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs unshare and root")
def test_term_to_every_process_of_a_container_is_one_stop(start: Start) -> None:
    daemon = start("--drain-delay", str(DELAY), command=[*NAMESPACE, *COMMAND])
    began = time.monotonic()
    inside = psutil.Process(daemon.pid).children(recursive=True)
    for process in reversed(inside):  # PID 1 last
        process.send_signal(signal.SIGTERM)
    daemon.wait_log("still accepting for")
    while time.monotonic() < began + DELAY - 0.3:
        assert get(daemon.port).status == 200
    assert daemon.wait_exit(DELAY + GRACE) == 0


# TERM to one worker


@pytest.mark.parallel
@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["alone", "preload"])
def test_term_to_a_worker_replaces_it_successor_first(start: Start, tmp_path: Path, options: Sequence[str]) -> None:
    app = AppFile(tmp_path)
    app.version("1", "import time\ntime.sleep(0.7)")
    daemon = start(*options, app=app.target, workers=1)
    (old,) = daemon.worker_pids()
    with load(daemon.port, clients=2, one_shot=2, expect=r"1 \d+") as result, Connection(daemon.port) as slow:
        slow.ask("/slow/1.5")
        daemon.signal(signal.SIGTERM, old)
        daemon.wait_log("got a TERM: it serves until its successor is ready")
        daemon.wait_serving(but={old})
        assert slow.answer().text == f"1 {old}"
        daemon.wait_workers(1, but={old})
    assert result.failed == 0, result.describe()
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_terms_to_all_workers_but_not_the_master_replace_one_after_the_other(start: Start) -> None:
    daemon = start(workers=3)
    old = daemon.worker_pids()
    with load(daemon.port, clients=2, one_shot=2, expect=r"1 \d+") as result:
        for pid in old:
            daemon.signal(signal.SIGTERM, pid)
        daemon.wait_workers(3, but=old)
    assert result.failed == 0, result.describe()
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_term_to_a_worker_whose_successor_does_not_boot_loses_nothing(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = start(app=app.target, workers=1, tolerated="Traceback")
    (old,) = daemon.worker_pids()
    app.broken()
    daemon.signal(signal.SIGTERM, old)
    daemon.wait_log("did not boot")
    assert get(daemon.port).text == f"1 {old}"
    app.version("2")
    daemon.wait_serving(but={old})
    daemon.wait_workers(1, but={old})
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_a_worker_whose_master_is_stopped_waits_for_it_and_one_whose_master_is_dead_does_not(start: Start) -> None:
    daemon = start(workers=1)
    (worker,) = daemon.worker_pids()
    daemon.signal(signal.SIGSTOP)
    daemon.signal(signal.SIGTERM, worker)
    assert get(daemon.port).text == f"1 {worker}"
    daemon.signal(signal.SIGKILL)
    daemon.wait_exit()
    daemon.wait_gone(GRACE)


@pytest.mark.parallel
def test_a_boot_that_gets_a_term_is_begun_anew(start: Start) -> None:
    daemon = start(app=SLOW_IMPORT, workers=1, wait=False)
    daemon.until(lambda: len(daemon.processes()) == 2, 10, "a worker that imports")
    (first,) = daemon.until(daemon.worker_pids, 10, "its title")
    daemon.signal(signal.SIGTERM, first)
    daemon.until(lambda: daemon.worker_pids() - {first}, 5, "another one")
    assert daemon.stop(1.0) == 0


@pytest.mark.parallel
def test_the_lame_duck_survives_what_a_supervisor_does(start: Start) -> None:
    """CONT behind the TERM, as systemd sends it."""
    daemon = start("--drain-delay", "0.5")
    os.killpg(daemon.pid, signal.SIGTERM)
    os.killpg(daemon.pid, signal.SIGCONT)
    daemon.wait_log("still accepting for")
    assert get(daemon.port).status == 200
    assert daemon.wait_exit(GRACE + 1) == 0
