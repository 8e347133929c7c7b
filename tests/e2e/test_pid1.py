"""As PID 1 of a container, in a process namespace of its own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.client import Connection, get
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import Daemon, catches

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def _can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not _can_unshare(), reason="needs unshare (util-linux) and the right to use it")


def master(daemon: Daemon) -> psutil.Process:
    """PID 1 inside the namespace; `daemon.pid` is the `unshare` outside it."""
    (process,) = daemon.until(lambda: psutil.Process(daemon.pid).children(), 5, "PID 1")
    return process


def cpu_seconds(process: psutil.Process) -> float:
    """How long it has run on a CPU: on a busy machine that is what a program can answer for."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9


def test_term_is_obeyed_from_the_first_50_milliseconds_on(start: Start) -> None:
    daemon = start(command=[*NAMESPACE, *COMMAND], wait=False)
    process = master(daemon)
    daemon.until(lambda: catches(process.pid, signal.SIGTERM), 5, "a handler of TERM")
    assert cpu_seconds(process) < 0.05
    process.send_signal(signal.SIGTERM)
    assert daemon.wait_exit(1.0) == 0


@pytest.mark.parametrize("milliseconds", [0, 50, 150, 300])
def test_term_is_obeyed_in_the_middle_of_the_start(start: Start, milliseconds: int) -> None:
    daemon = start(command=[*NAMESPACE, *COMMAND], wait=False)
    process = master(daemon)
    daemon.until(lambda: catches(process.pid, signal.SIGTERM), 5, "a handler of TERM")
    time.sleep(milliseconds / 1000)  # the moment is what is under test
    process.send_signal(signal.SIGTERM)
    assert daemon.wait_exit(1.0) == 0


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGQUIT, 131)])
def test_every_way_to_stop_works(start: Start, signum: signal.Signals, code: int) -> None:
    daemon = start(command=[*NAMESPACE, *COMMAND])
    assert get(daemon.port).status == 200
    master(daemon).send_signal(signum)
    assert daemon.wait_exit(1.0) == code
    daemon.wait_gone(0.5)


def test_orphans_are_reaped_and_never_mistaken_for_workers(start: Start) -> None:
    daemon = start(command=[*NAMESPACE, *COMMAND])
    process, before = master(daemon), daemon.worker_pids()
    assert get(daemon.port, "/orphans/4").status == 200
    daemon.until(lambda: len(process.children()) == 6, 5, "four orphans are adopted")
    daemon.until(lambda: {child.pid for child in process.children()} == before, 2, "and reaped")
    assert "ended" not in daemon.log()
    process.send_signal(signal.SIGTERM)
    assert daemon.wait_exit(1.0) == 0


def test_a_killed_master_takes_the_container_with_it(start: Start) -> None:
    daemon = start(command=[*NAMESPACE, *COMMAND])
    with Connection(daemon.port) as connection:
        connection.get()
        master(daemon).kill()
        daemon.wait_exit()
    daemon.wait_gone(1.0)
