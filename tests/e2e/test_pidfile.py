"""--pid: written when the daemon is ready, never stolen, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.apps import AppFile
from tests.e2e.client import get
from tests.e2e.conftest import Start
from tests.e2e.daemon import SHORT_TRIAL, SITE, Daemon

pytestmark = pytest.mark.parallel


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "preforkd.pid"


def started(start: Start, path: Path) -> Daemon:
    """A daemon whose file is there: it is written when the log has said that the daemon is ready."""
    daemon = start(*SHORT_TRIAL, "--pid", str(path))
    daemon.until(path.exists, 1, "the file")
    return daemon


def test_it_is_there_when_the_daemon_is_ready_and_gone_when_it_has_ended(start: Start, path: Path) -> None:
    daemon = started(start, path)
    assert path.read_text() == f"{daemon.pid}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    mark = daemon.mark()
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("reload done", since=mark)
    assert path.read_text() == f"{daemon.pid}\n"
    assert daemon.stop() == 0
    assert not path.exists()


def test_it_is_not_there_before_the_daemon_is_ready(start: Start, path: Path, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    app.version("1", "time.sleep(1)")
    daemon = start("--pid", str(path), app=app.target, wait=False)
    seen = daemon.until(lambda: " is ready" in daemon.log() or (path.exists() and "early"), 10, "ready")
    assert seen is True
    daemon.until(path.exists, 1, "the file")


def test_a_boot_that_fails_leaves_none(start: Start, path: Path, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    app.broken()
    daemon = start("--pid", str(path), app=app.target, wait=False, tolerated="Traceback")
    assert daemon.wait_exit() == 3
    assert not path.exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT])
def test_every_way_to_stop_removes_it(start: Start, path: Path, signum: signal.Signals) -> None:
    daemon = started(start, path)
    daemon.signal(signum)
    daemon.wait_exit()
    assert not path.exists()


def test_the_file_of_a_daemon_that_runs_is_refused_before_any_fork(start: Start, path: Path) -> None:
    first = started(start, path)
    second = start("--pid", str(path), wait=False)
    assert second.wait_exit(5) == 2
    second.wait_log(rf"--pid on the command line: .*{path} is that of process {first.pid} \(preforkd: master", 0.1)
    assert path.read_text() == f"{first.pid}\n"
    assert get(first.port).status == 200


def test_what_a_killed_daemon_has_left_is_replaced(start: Start, path: Path) -> None:
    first = started(start, path)
    first.signal(signal.SIGKILL)
    first.wait_exit()
    assert path.read_text() == f"{first.pid}\n"
    second = start("--pid", str(path))
    second.until(lambda: path.read_text() == f"{second.pid}\n", 1, "its own process id in the file")


def test_the_file_of_any_process_that_runs_is_refused(start: Start, path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        path.write_text(f"{other.pid}\n")
        daemon = start("--pid", str(path), wait=False)
        assert daemon.wait_exit(5) == 2
        assert path.read_text() == f"{other.pid}\n"
        other.communicate(b"\n")


def test_a_file_that_has_become_anothers_is_left_alone(start: Start, path: Path) -> None:
    daemon = started(start, path)
    path.unlink()
    path.write_text(f"{os.getpid()}\n")
    assert daemon.stop() == 0
    assert path.read_text() == f"{os.getpid()}\n"


def test_a_folder_that_is_not_there_is_an_error_before_any_fork(start: Start, path: Path) -> None:
    daemon = start("--pid", str(path / "below" / "x"), wait=False)
    assert daemon.wait_exit(5) == 2
    daemon.wait_log("--pid on the command line: the folder .* does not exist", 0.1)


def test_a_relative_path_starts_where_the_app_does(start: Start, tmp_path: Path) -> None:
    daemon = start("--chdir", str(tmp_path), "--pid", "here.pid", app=SITE)
    daemon.until((tmp_path / "here.pid").exists, 1, "the file")
    assert (tmp_path / "here.pid").read_text() == f"{daemon.pid}\n"
    assert daemon.stop() == 0
    assert not (tmp_path / "here.pid").exists()


def test_an_upgrade_keeps_it(start: Start, path: Path) -> None:
    daemon = started(start, path)
    mark = daemon.mark()
    daemon.signal(signal.SIGUSR2)
    daemon.wait_log("reload done", since=mark)
    assert path.read_text() == f"{daemon.pid}\n"
    assert daemon.stop() == 0
    assert not path.exists()
