"""What becomes of the logs when nobody takes them: no line is waited for, none is torn, and what is lost is counted."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preforkd.workers.output import ROOM
from preforkd.workers.scoreboard import Field
from tests.e2e.apps import AppFile
from tests.e2e.client import Connection, get
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import Daemon, listens, scoreboard
from tests.e2e.watching import Admin

pytestmark = pytest.mark.parallel

LONG = 6000  # of a path: its line is longer than a pipe takes at once for sure
ENOUGH = ROOM // LONG + 100  # requests whose lines are more than are kept
LINE = re.compile(r'127\.0\.0\.1 - - \[[^]]+\] "GET /who\?(\d+)(?:=x+)? HTTP/1\.1" 200 \d+ "-" "-"\n')
LOST = re.compile(r"([\d,]+) lines? of the access log (?:was|were) lost")


def redirected(redirection: str) -> list[str]:
    return ["sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND]


class Fifo:
    """A pipe with a name, which is open, and which nobody reads until `read_until()`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self.descriptor = os.open(path, os.O_RDWR)

    def fill(self) -> None:
        """Until not one byte more finds room."""
        other = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        for size in (4096, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(other, b"x" * size)
        os.close(other)

    def read_until(self, enough: Callable[[str], bool], within: float = 30) -> str:
        """What comes, in little pieces, until it is enough."""
        data = b""
        deadline = time.monotonic() + within
        while not enough(data.decode()):
            assert time.monotonic() < deadline, data[-1000:]
            if select.select([self.descriptor], [], [], 0.1)[0]:
                data += os.read(self.descriptor, 30000)
        return data.decode()


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    fifo = Fifo(tmp_path / "fifo")
    yield fifo
    os.close(fifo.descriptor)


def ask(daemon: Daemon, count: int) -> None:
    """Requests whose lines are long."""
    with Connection(daemon.port) as connection:
        for number in range(count):
            assert connection.get(f"/who?{number}={'x' * LONG}").status == 200


def lost_lines(daemon: Daemon) -> int:
    """As the log says."""
    return sum(int(number.replace(",", "")) for number in LOST.findall(daemon.log()))


def test_a_pipe_that_nobody_reads_stops_nothing_and_what_is_lost_is_counted(
    start: Start, fifo: Fifo, tmp_path: Path
) -> None:
    admin = Admin(start, tmp_path, "--limit-request-line", "20000", command=redirected(f">{fifo.path}"))
    daemon = admin.daemon
    before = daemon.worker_pids()
    ask(daemon, 2 * ENOUGH)
    assert not fcntl.fcntl(fifo.descriptor, fcntl.F_GETFL) & os.O_NONBLOCK
    daemon.wait_log("the access log cannot be written to standard output: nobody reads it; .* lost so far")
    assert len(re.findall("cannot be written", daemon.log())) <= 4, "once every ten seconds and worker"
    text = fifo.read_until(lambda text: len(LINE.findall(text)) + lost_lines(daemon) >= 2 * ENOUGH)
    assert LINE.sub("", text) == "", "whole lines, and nothing else"
    assert len(LINE.findall(text)) + lost_lines(daemon) == 2 * ENOUGH
    with scoreboard(daemon) as board:
        rows = [board.row(index) for index in range(board.used)]
        daemon.until(lambda: sum(row[Field.LOST_ACCESS_LINES] for row in rows) == lost_lines(daemon), 5, "the counters")
    assert admin.status()["lost_lines"] == {"log": 0, "access_log": lost_lines(daemon)}
    assert daemon.worker_pids() == before
    assert daemon.stop() == 0


def test_nothing_is_lost_while_there_is_room_and_the_end_does_not_wait(start: Start, fifo: Fifo) -> None:
    daemon = start("--limit-request-line", "20000", workers=1, command=redirected(f">{fifo.path}"))
    ask(daemon, 60)
    text = fifo.read_until(lambda text: len(LINE.findall(text)) == 60)
    assert [int(number) for number in LINE.findall(text)] == list(range(60))
    assert LINE.sub("", text) == ""
    ask(daemon, 60)
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 5
    daemon.wait_log(r"\d+ lines of the access log were lost: standard output could not be written \(nobody reads it\)")


def test_a_full_standard_error_leaves_master_and_workers_awake(start: Start, fifo: Fifo) -> None:
    command = redirected(f"2>{fifo.path} >/dev/null")
    daemon = start("--log-level", "debug", workers=1, command=command, wait=False)
    daemon.until(lambda: listens(daemon.port), 30, "an answer")
    fifo.fill()
    for _ in range(20):
        daemon.signal(signal.SIGUSR1)
        get(daemon.port, "/fail")
    for signum in (signal.SIGTTIN, signal.SIGTTOU):
        daemon.signal(signum)
    daemon.wait_workers(1)
    assert get(daemon.port).status == 200
    daemon.signal(signal.SIGUSR2, next(iter(daemon.worker_pids())))  # the stacks find no room either
    assert get(daemon.port).status == 200
    assert daemon.stop(10) == 0


def test_a_full_disk_is_said_once_and_stops_nothing(start: Start) -> None:
    daemon = start("--access-log-file", "/dev/full", workers=1)
    with Connection(daemon.port) as connection:
        for _ in range(200):
            connection.get()
    daemon.wait_log("the access log cannot be written to /dev/full: No space left on device")
    assert daemon.log().count("No space left") == 1
    assert daemon.stop() == 0
    daemon.wait_log(r"200 lines of the access log were lost: /dev/full could not be written \(No space left")


def test_a_log_goes_on_when_there_is_room_again_and_half_a_line_stays_alone(start: Start, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: a write fails in the middle of a line, as on a full one."""
    path = tmp_path / "access.log"
    site = AppFile(tmp_path)
    site.version("1", first="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))")
    daemon = start("--access-log-file", str(path), app=site.target, workers=1)
    with Connection(daemon.port) as connection:
        for number in range(800):
            connection.get(f"/who?{number}")
    daemon.wait_log("the access log cannot be written to .*: File too large")
    path.rename(tmp_path / "old.log")
    daemon.signal(signal.SIGUSR1)

    def numbers() -> list[int]:
        return [int(number) for number in LINE.findall(path.read_text() if path.exists() else "")]

    daemon.until(lambda: 799 in numbers(), 10, "the last line in the new file")
    assert LINE.sub("", path.read_text()) == "", "no half line in the new file"
    old = [int(number) for number in LINE.findall((tmp_path / "old.log").read_text())]
    assert len(old) + len(numbers()) + lost_lines(daemon) == 800
    assert lost_lines(daemon) == 1, "that of which the old file has a half"


def test_a_reader_that_has_gone_stops_nothing(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    daemon = start(workers=1, command=redirected(f">{path}"))
    assert get(daemon.port).status == 200
    daemon.until(lambda: select.select([reader], [], [], 0)[0], 5, "a line")
    os.close(reader)
    for _ in range(50):
        assert get(daemon.port).status == 200
    daemon.wait_log("the access log cannot be written to standard output: Broken pipe")
    assert daemon.log().count("Broken pipe") == 1
    assert daemon.stop() == 0


def test_a_terminal_that_is_stopped_stops_nothing(start: Start) -> None:
    ours, theirs = pty.openpty()
    try:
        daemon = start("--limit-request-line", "20000", workers=1, command=redirected(f">{os.ttyname(theirs)}"))
        assert get(daemon.port).status == 200
        daemon.until(lambda: select.select([ours], [], [], 0)[0], 5, "a line")
        termios.tcflow(theirs, termios.TCOOFF)  # Ctrl-S
        ask(daemon, ENOUGH)
        daemon.wait_log("the access log cannot be written to standard output: nobody reads it; .* lost so far")
        termios.tcflow(theirs, termios.TCOON)

        def flows() -> bool:
            if select.select([ours], [], [], 0)[0]:
                os.read(ours, 65536)
            return lost_lines(daemon) > 0

        daemon.until(flows, 30, "the number of lost lines")
        assert daemon.stop() == 0
    finally:
        os.close(theirs)
        os.close(ours)


def test_what_an_app_has_printed_for_nobody_holds_its_end_for_a_second(
    start: Start, fifo: Fifo, tmp_path: Path
) -> None:
    site = AppFile(tmp_path)
    site.version("1", first='print("x" * 8000, end="")')
    daemon = start("--no-access-log", app=site.target, workers=1, command=redirected(f">{fifo.path}"))
    fifo.fill()
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 4
    assert "SIGKILL" not in daemon.log()
