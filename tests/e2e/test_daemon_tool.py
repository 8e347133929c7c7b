"""The tool that runs the daemon sees how a daemon fails: here a script plays one."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.daemon import Daemon, alive
from tests.e2e.deadline import DeadlineError, until

PREAMBLE = "import os, signal, socket, subprocess, sys, time\n"
LISTEN = "listener = socket.create_server(('127.0.0.1', int(sys.argv[-1].rpartition(':')[2])))\n"
READY = "print('stop: kill -TERM 1', flush=True)\n"


class Play:
    """Starts a script in place of the daemon."""

    def __init__(self, start: Start, folder: Path) -> None:
        self._start = start
        self._script = folder / "script.py"

    def __call__(self, *code: str, wait: bool = True, tolerated: str = "(?!)") -> Daemon:
        self._script.write_text(PREAMBLE + "".join(code))
        command = (sys.executable, str(self._script))
        return self._start(app=None, workers=None, command=command, wait=wait, tolerated=tolerated)


@pytest.fixture
def play(start: Start, tmp_path: Path) -> Play:
    """Start scripts in place of daemons."""
    return Play(start, tmp_path)


def test_ready_means_a_log_line_and_a_connection(play: Play) -> None:
    daemon = play(LISTEN, READY, "time.sleep(60)")
    assert alive(daemon.pid)
    assert [process.pid for process in daemon.processes()] == [daemon.pid]


def test_the_exit_code_is_the_true_one(play: Play) -> None:
    assert play("sys.exit(7)", wait=False).wait_exit() == 7


def test_a_death_by_a_signal_is_128_and_more(play: Play) -> None:
    daemon = play(LISTEN, READY, "time.sleep(60)")
    daemon.signal(signal.SIGKILL)
    assert daemon.wait_exit() == 137


def test_a_daemon_that_dies_instead_of_getting_ready_is_noticed_at_once_with_its_log(play: Play) -> None:
    with pytest.raises(DeadlineError, match=r"exit 3 instead of getting ready(.|\n)*the reason"):
        play("print('the reason')\nsys.exit(3)")


def test_a_daemon_that_runs_on_is_noticed_with_its_log(play: Play) -> None:
    daemon = play(LISTEN, READY, "time.sleep(60)")
    with pytest.raises(DeadlineError, match=r"still running(.|\n)*kill -TERM"):
        daemon.wait_exit(0.1)


def test_an_orphan_is_seen_and_ended(play: Play) -> None:
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    daemon = play(child, "sys.exit(0)", wait=False)
    daemon.wait_exit()
    (orphan,) = daemon.processes()
    with pytest.raises(DeadlineError, match="every process gone"):
        daemon.wait_gone(0.1)
    daemon.end()
    until(lambda: not alive(orphan.pid), 5, "the orphan is gone")


def test_a_log_line_that_does_not_come_is_a_failure(play: Play) -> None:
    daemon = play(LISTEN, READY, "print('more', flush=True)\ntime.sleep(60)")
    assert daemon.wait_log("^more$")
    with pytest.raises(DeadlineError, match=r"not within 0\.1 s"):
        daemon.wait_log("kill -TERM", 0.1, since=daemon.mark())


def test_a_traceback_in_the_log_is_a_defect_unless_it_is_tolerated(play: Play) -> None:
    daemon = play("raise ValueError", wait=False)
    assert daemon.wait_exit() == 1
    assert daemon.defects() == ["Traceback (most recent call last):"]
    daemon.tolerate("Traceback")  # or the fixture would fail this test
    assert daemon.defects() == []
