"""The file with the master's process id: never taken from a daemon that runs, never left to one that does not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from preforkd.daemon.pidfile import PidFile, PidFileError, Process, look_up

OURS, OTHER = 4242, 4243


def nobody(_pid: int) -> Process | None:
    return None


def living(title: str, age: float = 3600.0) -> Process:
    return Process(title, time.time() - age)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "preforkd.pid"


def test_it_holds_the_id_and_is_readable_whatever_the_umask(path: Path) -> None:
    before = os.umask(0o077)
    try:
        PidFile(str(path), OURS, nobody).write()
    finally:
        os.umask(before)
    assert path.read_text() == f"{OURS}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path], "nothing is left beside it"


def test_a_reader_sees_the_old_file_or_the_new_one(path: Path) -> None:
    path.write_text("old\n")
    with path.open() as reader:
        PidFile(str(path), OURS, nobody).write()
        assert reader.read() == "old\n", "it was replaced by rename"


def test_a_link_in_its_place_is_replaced_and_not_followed(path: Path) -> None:
    target = path.with_name("precious")
    target.write_text("precious")
    path.symlink_to(target)
    PidFile(str(path), OURS, nobody).write()
    assert (target.read_text(), path.is_symlink(), path.read_text()) == ("precious", False, f"{OURS}\n")


def test_it_is_removed_at_the_end(path: Path) -> None:
    file = PidFile(str(path), OURS, nobody)
    file.check()
    file.write()
    file.remove()
    assert not path.exists()
    file.remove()  # a second time is none


def test_one_that_was_never_written_removes_nothing(path: Path) -> None:
    path.write_text(f"{OURS}\n")
    file = PidFile(str(path), OURS, nobody)
    file.check()
    file.remove()
    assert path.exists(), "it is that of process 1 of another container"


@pytest.mark.parametrize("pid", [OURS, OTHER], ids=["same id", "other id"])
def test_the_file_of_another_daemon_in_its_place_is_left_there(path: Path, pid: int) -> None:
    file = PidFile(str(path), OURS, nobody)
    file.write()
    PidFile(str(path), pid, nobody).write()
    file.remove()
    assert path.read_text() == f"{pid}\n"


def test_a_file_that_somebody_has_rewritten_is_left_there(path: Path) -> None:
    file = PidFile(str(path), OURS, nobody)
    file.write()
    path.write_text("1\n")
    file.remove()
    assert path.read_text() == "1\n"


def test_the_file_of_a_process_that_runs_is_refused_with_its_name(path: Path) -> None:
    path.write_text(f"{OTHER}\n")
    with pytest.raises(PidFileError, match=rf"process {OTHER} \(preforkd: master \[a:b\]\), which runs"):
        PidFile(str(path), OURS, lambda pid: living("preforkd: master [a:b]")).check()
    with pytest.raises(PidFileError, match=rf"that of process {OTHER}, which runs"):
        PidFile(str(path), OURS, lambda pid: living("")).check()


@pytest.mark.parametrize(
    "content", [f"{OTHER}\n", f"{OURS}\n", "", "\n", "abc\n", "-1\n", "0\n", "99999999999999\n", "\0\0\0"]
)
def test_a_stale_file_is_replaced(path: Path, content: str) -> None:
    path.write_text(content)
    file = PidFile(str(path), OURS, nobody)
    file.check()
    file.write()
    assert path.read_text() == f"{OURS}\n"


def test_a_process_that_is_younger_than_the_file_has_not_written_it(path: Path) -> None:
    path.write_text(f"{OTHER}\n")
    os.utime(path, (time.time() - 100, time.time() - 100))
    PidFile(str(path), OURS, lambda pid: living("cron", age=50)).check()
    with pytest.raises(PidFileError):
        PidFile(str(path), OURS, lambda pid: living("cron", age=100)).check()


def test_a_master_that_looks_younger_because_the_clock_was_set_has_written_it(path: Path) -> None:
    path.write_text(f"{OTHER}\n")
    os.utime(path, (100, 100))
    with pytest.raises(PidFileError):
        PidFile(str(path), OURS, lambda pid: living("preforkd: master [a:b]", age=50)).check()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda path: path.mkdir(), "is not a regular file"),
        (lambda path: os.mkfifo(path), "is not a regular file"),
        (lambda path: path.parent.rmdir(), "does not exist"),
    ],
)
def test_what_cannot_be_a_pid_file_is_said_before_anything_starts(tmp_path: Path, made: object, said: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert callable(made)
    made(folder / "pid")
    with pytest.raises(PidFileError, match=said):
        PidFile(str(folder / "pid"), OURS, nobody).check()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write to: /proc")
def test_a_folder_that_cannot_be_written_to_is_said_before_anything_starts() -> None:
    with pytest.raises(PidFileError, match="the folder /proc/self is not writable"):
        PidFile("/proc/self/pid", OURS, nobody).check()


def test_a_folder_that_has_gone_is_an_error_and_leaves_nothing(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PidFile(str(path / "below"), OURS, nobody).write()


def test_a_process_is_looked_up_with_its_title_and_start() -> None:
    own = look_up(os.getpid())
    assert own is not None
    assert "pytest" in own.title or "python" in own.title
    assert time.time() - 3600 * 24 < own.started <= time.time() + 1


def test_a_zombie_is_no_process() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    assert look_up(process.pid) is not None
    assert process.stdin is not None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert look_up(process.pid) is None
    process.wait()
    assert look_up(process.pid) is None
