"""The real daemon under test, run by pytest-xprocess and watched from outside: log, processes, exit code."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

import psutil
from xprocess import ProcessStarter  # type: ignore[import-untyped] # pytest-xprocess has no type hints
from xprocess.xprocess import XProcess  # type: ignore[import-untyped] # as above

from preforkd.workers.scoreboard import Scoreboard
from tests.e2e import client
from tests.e2e.deadline import DeadlineError, until

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests" / "apps"
EXAMPLES = ROOT / "deploy" / "examples"
SITE = f"{APPS / 'site.py'}:Site"

SHORT_TRIAL = ("--trial", "0.5")
"""For tests that wait for the end of a reload, and not for what its trial is there for."""
BOOT = 30.0  # seconds for a boot, and for whatever else no promise is made about, on a busy machine
READY = r"stop: kill -TERM \d+"  # the last line of the start-up log
TITLE = re.compile(r"preforkd: worker (\d+) \(generation (\d+)\)")
# What the daemon's environment must not inherit from the one of the tests.
FOREIGN = re.compile(
    r"PREFORKD_.*|PORT|WEB_CONCURRENCY|FORWARDED_ALLOW_IPS|NOTIFY_SOCKET|WATCHDOG_.*|LISTEN_.*|PYTHON.*"
)
# Never in the log of a daemon, whatever happens to it, unless a test provokes it.
DEFECTS = re.compile(
    r"Traceback \(most recent call last\)|Exception ignored|never retrieved|was never awaited|Task was destroyed"
    r"|ResourceWarning|DeprecationWarning|Fatal Python error| CRITICAL "
)


@dataclass(frozen=True, order=True, slots=True)
class Worker:
    """A worker as its process title shows it."""

    slot: int
    generation: int
    pid: int


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives to clients: none of them takes it meanwhile.

    Nor does another process of pytest-xdist: each has ports of its own.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        port = random.randrange(20000 + process, 32000, processes)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    """Whether a connection to the port is accepted."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def catches(pid: int, signum: signal.Signals) -> bool:
    """Whether the process has a handler for the signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signum - 1) & 1)


class Daemon:
    """One `preforkd` process with its workers.

    Args:
        xprocess: the fixture of pytest-xprocess.
        name: unique for this test run, so that runs at the same time or aborted ones never share a process.
        command: what to run.
        port: where it serves; None: the command says.
        environment: in addition to that of the tests.
        tolerated: what its log may show although `DEFECTS` forbids it.
    """

    def __init__(
        self,
        xprocess: XProcess,
        name: str,
        command: list[str],
        *,
        port: int | None,
        environment: Mapping[str, str],
        tolerated: str,
    ) -> None:
        self._xprocess = xprocess
        self.name = name
        self._command = command
        self._port = port
        inherited = {key: value for key, value in os.environ.items() if not FOREIGN.fullmatch(key)}
        parser = {"PREFORKD_PARSER": os.environ["TESTS_PARSER"]} if "TESTS_PARSER" in os.environ else {}
        self._environment = inherited | parser | dict(environment)
        self.tolerate(tolerated)
        self._started = time.time()
        self._popen: subprocess.Popen[bytes]
        self._log_path: Path | None = None
        self._last_log = ""

    def launch(self, *, wait: bool) -> None:
        """Start it.

        Args:
            wait: return when it is ready; False: at once.
        """
        self._xprocess.ensure(self.name, self._starter(wait=wait), persist_logs=False)

    def _starter(self, *, wait: bool) -> type[ProcessStarter]:
        daemon = self

        class Preforkd(ProcessStarter):  # type: ignore[misc] # pytest-xprocess has no type hints
            args = daemon._command
            env = daemon._environment
            timeout = BOOT
            pattern = READY
            terminate_on_interrupt = True

            def startup_check(self) -> bool:
                return daemon._port is None or listens(daemon._port)

            def wait(self, log_file: TextIO) -> bool:
                """As the plugin's own, but every 10 ms, and it notices at once when the daemon dies."""
                resources = self.process.resources[-1]
                daemon._popen, daemon._log_path = resources.popen, Path(str(resources.info[0].logpath))
                # The plugin would read the log into the report of a failing test; the fixture does so for all daemons.
                self.process.config._extlogfiles.pop(daemon.name)
                if wait:
                    daemon.until(self._is_ready, self.timeout, f"a line with {self.pattern!r} and a connection")
                return True

            def _is_ready(self) -> bool:
                if daemon._popen.poll() is not None:
                    raise DeadlineError(daemon.explain(f"exit {daemon._popen.returncode} instead of getting ready"))
                return re.search(self.pattern, daemon.log()) is not None and self.startup_check()

        return Preforkd

    @property
    def pid(self) -> int:
        """Of the master."""
        return self._popen.pid

    @property
    def port(self) -> int:
        """Where it serves."""
        assert self._port is not None, "its arguments say where it serves"
        return self._port

    def signal(self, signum: signal.Signals, pid: int | None = None) -> None:
        """Send a signal to the master, or to one of its workers."""
        os.kill(pid or self.pid, signum)

    def wait_exit(self, within: float = BOOT) -> int:
        """The master's exit code, as a shell would show it (128 + n for a death by signal n)."""
        try:
            code = self._popen.wait(within)
        except subprocess.TimeoutExpired:
            raise DeadlineError(self.explain(f"still running after {within:g} s")) from None
        return code if code >= 0 else 128 - code

    def stop(self, within: float = BOOT) -> int:
        """TERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_exit(within)

    def log(self) -> str:
        """All that it has written so far."""
        if self._log_path is None:
            return self._last_log
        return self._log_path.read_text(errors="surrogateescape")

    def mark(self) -> int:
        """Where the log ends now; `wait_log(since=...)` looks behind it."""
        return len(self.log())

    def wait_log(self, pattern: str, within: float = BOOT, *, since: int = 0) -> re.Match[str]:
        """The first place in the log that matches."""
        search = re.compile(pattern, re.MULTILINE).search
        return self.until(lambda: search(self.log(), since), within, f"a line with {pattern!r}")

    def until(self, look: Callable[[], T | None], within: float, what: str) -> T:
        """As `deadline.until`, with the daemon's state in the message of a failure."""
        return until(look, within, lambda: self.explain(what))

    def explain(self, what: str) -> str:
        """What went wrong, with the processes and the end of the log."""
        processes = [f"{process.pid} {title(process)}" for process in self.processes()]
        return "\n  ".join([what, "processes:", *processes, "log:", *self.log().splitlines()[-30:]])

    def processes(self) -> list[psutil.Process]:
        """The master and all that it has started and that is not gone, also when the master itself is.

        All of them are in the process group that pytest-xprocess has made for the master.
        """
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) != self.pid or process.status() == psutil.STATUS_ZOMBIE:
                return False
            # The number of a process group is used again one day.
            return process.create_time() >= self._started - 1
        return False

    def workers(self) -> list[Worker]:
        """Those that have said by their title that they are workers, by slot and generation."""
        return sorted(self._titled_workers())

    def _titled_workers(self) -> Iterator[Worker]:
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.pid).children(recursive=True):
                if match := TITLE.fullmatch(title(process)):
                    yield Worker(int(match[1]), int(match[2]), process.pid)

    def worker_pids(self) -> set[int]:
        """Of all workers."""
        return {worker.pid for worker in self.workers()}

    def wait_workers(self, count: int, within: float = BOOT, *, but: Set[int] = frozenset()) -> list[Worker]:
        """Exactly `count` workers, none of them one of `but`."""

        def look() -> list[Worker] | None:
            workers = self.workers()
            return workers if len(workers) == count and not but & {worker.pid for worker in workers} else None

        return self.until(look, within, f"{count} workers other than {sorted(but)}")

    def wait_serving(self, within: float = BOOT, *, but: Set[int] = frozenset()) -> int:
        """A new connection is answered by a worker that is not one of `but`; its pid, as `Site` answers it."""

        def look() -> int | None:
            pid = int(client.get(self.port).text.split()[1])
            return pid if pid not in but else None

        return self.until(look, within, f"an answer from another worker than {sorted(but)}")

    def connect_to(self, pid: int, count: int) -> list[client.Connection]:
        """Idle keep-alive connections that this worker holds."""
        found: list[client.Connection] = []
        strangers: list[client.Connection] = []  # held meanwhile: a worker that is ahead leaves the next one to others

        def look() -> bool:
            connection = client.Connection(self.port)
            mine = connection.get().text.split()[1] == str(pid)
            (found if mine else strangers).append(connection)
            return len(found) == count

        try:
            self.until(look, 5, f"{count} connections to worker {pid}")
        finally:
            for connection in strangers:
                connection.close()
        return found

    def wait_gone(self, within: float = 2.0) -> None:
        """No process of it is left."""
        self.until(lambda: not self.processes(), within, "every process gone")

    def tolerate(self, pattern: str) -> None:
        """Let its log show what `DEFECTS` forbids: these lines."""
        self._tolerated = re.compile(pattern)

    def defects(self) -> list[str]:
        """Lines of the log that no daemon should ever write."""
        lines = self.log().splitlines()
        return [line for line in lines if DEFECTS.search(line) and not self._tolerated.search(line)]

    def end(self) -> None:
        """End whatever is left of it, by force, and remove what it has left on disk; `log()` still knows it."""
        if self._log_path is None:
            return  # it was never started, or has been ended
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._popen.wait(BOOT)
        self._last_log, folder, self._log_path = self.log(), self._log_path.parent, None
        self._xprocess.resources[:] = [kept for kept in self._xprocess.resources if kept.popen is not self._popen]
        shutil.rmtree(folder, ignore_errors=True)


def title(process: psutil.Process) -> str:
    """What `ps` shows of a process."""
    try:
        return " ".join(process.cmdline()).rstrip()  # setproctitle fills what was there before with zeros
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


@contextmanager
def scoreboard(daemon: Daemon) -> Iterator[Scoreboard]:
    """The daemon's own page."""
    for link in Path(f"/proc/{daemon.pid}/fd").iterdir():
        if "preforkd-scoreboard" in str(link.readlink()):
            descriptor = os.open(link, os.O_RDWR)
            yield Scoreboard(descriptor)
            os.close(descriptor)
            return
    raise AssertionError("no scoreboard")
