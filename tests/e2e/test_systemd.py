"""Under systemd: what it is told of a boot, a reload and a stop, and the sockets that it passes."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.apps import AppFile
from tests.e2e.client import Connection, get
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import SHORT_TRIAL, Daemon, free_port, listens
from tests.e2e.load import load

# What systemd does: bind, listen, name, pass, exec. Arguments: a JSON list of [name, port], then the command.
LAUNCHER = """
import json, os, socket, sys
FIRST = 3
named = json.loads(sys.argv[1])
made = [socket.create_server(("127.0.0.1", port)) for name, port in named]
spare = [os.dup(sock.fileno()) for sock in made]  # out of the way of the numbers to be given
spare = [os.dup2(fd, 100 + index) for index, fd in enumerate(spare)]
for index, fd in enumerate(spare):
    os.dup2(fd, FIRST + index, inheritable=True)
    os.set_inheritable(fd, False)
os.environ.update(LISTEN_FDS=str(len(named)), LISTEN_PID=str(os.getpid()))
os.environ["LISTEN_FDNAMES"] = ":".join(name for name, port in named)
os.execv(sys.argv[2], sys.argv[2:])
"""


def activating(*sockets: tuple[str, int]) -> Sequence[str]:
    """A command that passes these sockets to the daemon, by name and port, as systemd would."""
    return [sys.executable, "-c", LAUNCHER, json.dumps(sockets), *COMMAND]


class ServiceManager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self.heard: list[tuple[float, str]] = []

    def listen(self) -> list[str]:
        """All assignments so far."""
        while True:
            try:
                datagram = self._socket.recv(65536)
            except BlockingIOError:
                return [text for _, text in self.heard]
            self.heard += [(time.monotonic(), line) for line in datagram.decode().split("\n")]

    def wait(self, daemon: Daemon, prefix: str, times: int = 1, within: float = 15.0) -> str:
        """The assignment that begins so, when it has been heard that many times."""

        def look() -> str | None:
            found = [one for one in self.listen() if one.startswith(prefix)]
            return found[times - 1] if len(found) >= times else None

        return daemon.until(look, within, f"{prefix} for the {times}. time in {self.listen()}")

    def count(self, prefix: str) -> int:
        """How often an assignment that begins so has been heard."""
        return sum(one.startswith(prefix) for one in self.listen())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    manager = ServiceManager(tmp_path / "notify")
    yield manager
    manager.close()


def test_ready_is_said_when_the_daemon_serves_and_not_before(
    start: Start, manager: ServiceManager, tmp_path: Path
) -> None:
    app = AppFile(tmp_path)
    app.version("1", "time.sleep(1)")
    daemon = start(app=app.target, environment=manager.environment, wait=False)
    manager.wait(daemon, "STATUS=booting: 0 of 2 workers ready")
    while not manager.count("READY=1"):
        before = listens(daemon.port)
        time.sleep(0.01)  # as often as the ready line could come
    assert not before or listens(daemon.port)
    assert get(daemon.port).status == 200
    manager.wait(daemon, "STATUS=serving: 2 of 2 workers ready (generation 1)")
    assert manager.count("READY=1") == 1
    assert manager.count("STOPPING") == manager.count("RELOADING") == 0


@pytest.mark.parallel
def test_a_reload_is_told_from_its_beginning_to_its_end(start: Start, manager: ServiceManager, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = start(*SHORT_TRIAL, app=app.target, environment=manager.environment)
    manager.wait(daemon, "READY=1")
    app.version("2")
    asked = time.monotonic_ns() // 1000
    daemon.signal(signal.SIGHUP)
    begun = manager.wait(daemon, "MONOTONIC_USEC=")
    assert manager.listen()[manager.listen().index(begun) - 1] == "RELOADING=1"
    assert asked <= int(begun.partition("=")[2]) <= time.monotonic_ns() // 1000
    assert manager.count("READY=1") == 1
    manager.wait(daemon, "READY=1", times=2)
    assert get(daemon.port).text.startswith("2 ")
    manager.wait(daemon, "STATUS=serving: 2 of 2 workers ready (generation 2)")


def test_a_reload_that_is_refused_or_fails_ends_for_systemd_too(
    start: Start, manager: ServiceManager, tmp_path: Path
) -> None:
    app = AppFile(tmp_path)
    daemon = start(app=app.target, environment=manager.environment, tolerated="Traceback")
    app.broken()
    daemon.signal(signal.SIGHUP)
    manager.wait(daemon, "READY=1", times=2)
    manager.wait(daemon, "STATUS=serving: 2 of 2 workers ready (generation 1); the last reload failed")
    app.path.unlink()
    daemon.signal(signal.SIGHUP)
    manager.wait(daemon, "RELOADING=1", times=2)
    manager.wait(daemon, "READY=1", times=3)
    assert get(daemon.port).text.startswith("1 ")


def test_a_stop_is_told_at_once_and_time_asked_for(start: Start, manager: ServiceManager) -> None:
    daemon = start(environment=manager.environment)
    with Connection(daemon.port) as connection:
        connection.ask("/slow/1")
        daemon.signal(signal.SIGTERM)
        told = time.monotonic()
        manager.wait(daemon, "STOPPING=1", within=0.5)
        manager.wait(daemon, "EXTEND_TIMEOUT_USEC=", times=2, within=0.5)  # the first was for the boot
        manager.wait(daemon, "STATUS=stopping: ", within=0.5)
        assert time.monotonic() - told < 0.5
        assert connection.answer().status == 200
    assert daemon.wait_exit() == 0
    assert manager.count("STOPPING=1") == 1
    assert manager.listen()[-1] == "STATUS=ended"


def test_a_boot_that_fails_is_never_ready(start: Start, manager: ServiceManager, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    app.broken()
    daemon = start(app=app.target, environment=manager.environment, wait=False, tolerated="Traceback")
    assert daemon.wait_exit() == 3
    assert manager.count("READY=1") == 0


def test_the_watchdog_hears_from_a_master_that_runs_and_from_no_other(start: Start, manager: ServiceManager) -> None:
    daemon = start(environment={**manager.environment, "WATCHDOG_USEC": "600000"})
    for times in range(2, 8):
        manager.wait(daemon, "WATCHDOG=1", times=times, within=0.5)
    daemon.signal(signal.SIGSTOP)
    time.sleep(0.1)  # what it had sent before
    before = manager.count("WATCHDOG=1")
    time.sleep(0.7)  # two heartbeats and more
    assert manager.count("WATCHDOG=1") == before
    daemon.signal(signal.SIGCONT)
    manager.wait(daemon, "WATCHDOG=1", times=before + 1, within=0.5)


def test_neither_workers_nor_the_app_see_what_systemd_has_said(start: Start, manager: ServiceManager) -> None:
    port = free_port()
    daemon = start(
        "--bind",
        "systemd:web",
        command=activating(("web", port)),
        environment={**manager.environment, "WATCHDOG_USEC": "10000000", "INVOCATION_ID": "kept"},
    )
    seen = json.loads(get(daemon.port, "/environment").text)
    assert seen["INVOCATION_ID"] == "kept"
    assert not [name for name in seen if name.startswith(("NOTIFY_", "WATCHDOG_", "LISTEN_"))]


def test_a_daemon_that_systemd_has_gone_from_serves_on(start: Start, manager: ServiceManager) -> None:
    daemon = start(environment={"NOTIFY_SOCKET": manager.environment["NOTIFY_SOCKET"] + ".nobody"})
    assert get(daemon.port).status == 200
    assert daemon.log().count("systemd cannot be told anything") == 1
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_sockets_by_name_are_served_and_survive_a_reload(start: Start) -> None:
    web, admin = free_port(), free_port()
    daemon = start(
        *SHORT_TRIAL,
        "--bind",
        "systemd:web",
        "--bind",
        "systemd:api",
        port=None,
        command=activating(("api", admin), ("web", web)),
    )
    daemon.wait_log("serving ")
    with load(web, expect=r"1 \d+") as one, load(admin, expect=r"1 \d+") as other:
        mark = daemon.mark()
        daemon.signal(signal.SIGHUP)
        daemon.wait_log("reload done", since=mark)
    assert (one.failed, other.failed) == (0, 0), one.describe() + other.describe()
    assert daemon.stop() == 0


def test_all_sockets_are_served_when_none_is_named(start: Start) -> None:
    ports = [free_port(), free_port()]
    daemon = start("--bind", "systemd:", port=None, command=activating(*(("same", port) for port in ports)))
    daemon.wait_log("serving ")
    assert [get(port).status for port in ports] == [200, 200]


@pytest.mark.parallel
def test_a_socket_that_is_configured_away_can_come_back(start: Start, tmp_path: Path) -> None:
    web, other = free_port(), free_port()
    config = tmp_path / "preforkd.toml"
    config.write_text('bind = ["systemd:web"]\n')
    daemon = start(*SHORT_TRIAL, "--config", str(config), port=None, command=activating(("web", web), ("other", other)))
    daemon.wait_log("serving ")
    for names, served in (('"systemd:other"', other), ('"systemd:web"', web)):
        mark = daemon.mark()
        config.write_text(f"bind = [{names}]\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_log("reload done", since=mark)
        assert get(served).status == 200


def test_who_connects_before_the_daemon_is_ready_is_answered(start: Start, tmp_path: Path) -> None:
    port = free_port()
    app = AppFile(tmp_path)
    app.version("1", "time.sleep(1)")
    daemon = start("--bind", "systemd:web", app=app.target, port=None, command=activating(("web", port)), wait=False)
    daemon.until(lambda: listens(port), 5, "systemd's socket")
    assert " is ready" not in daemon.log()
    assert get(port).status == 200


@pytest.mark.parallel
def test_an_upgrade_keeps_the_sockets_and_tells_systemd(start: Start, manager: ServiceManager, tmp_path: Path) -> None:
    web, other = free_port(), free_port()
    config = tmp_path / "preforkd.toml"
    config.write_text('bind = ["systemd:web"]\n')
    daemon = start(
        *SHORT_TRIAL,
        "--config",
        str(config),
        port=None,
        command=activating(("web", web), ("other", other)),
        environment=manager.environment,
    )
    manager.wait(daemon, "READY=1")
    with load(web, expect=r"1 \d+") as result:
        daemon.signal(signal.SIGUSR2)
        manager.wait(daemon, "RELOADING=1")
        manager.wait(daemon, "READY=1", times=2)
    assert result.failed == 0, result.describe()
    assert not [name for name in json.loads(get(web, "/environment").text) if name.startswith(("NOTIFY_", "LISTEN_"))]
    config.write_text('bind = ["systemd:web", "systemd:other"]\n')
    daemon.signal(signal.SIGHUP)
    manager.wait(daemon, "READY=1", times=3)
    assert get(other).status == 200
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        pytest.param(COMMAND, "cannot bind systemd:web: .*LISTEN_FDS is not set", id="not by systemd"),
        pytest.param(
            activating(("wep", free_port())),
            'cannot bind systemd:web: .* no socket named "web", only "wep"; did you mean systemd:wep',
            id="another name",
        ),
    ],
)
def test_a_socket_that_was_not_passed_is_an_error_before_any_fork(
    start: Start, command: Sequence[str], said: str
) -> None:
    daemon = start("--bind", "systemd:web", port=None, command=command, wait=False)
    assert daemon.wait_exit(5) == 2
    daemon.wait_log(said, 0.1)


def test_a_socket_that_nothing_uses_is_named_in_a_warning(start: Start) -> None:
    daemon = start(command=activating(("forgotten", free_port())))
    daemon.wait_log('systemd has passed the socket "forgotten", which neither --bind nor --admin names', 0.1)


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="needs systemd's own tool for it")
def test_systemds_own_tool_passes_its_sockets(start: Start) -> None:
    port = free_port()
    tool = ("systemd-socket-activate", f"--listen=127.0.0.1:{port}", "--fdname=web")
    daemon = start("--bind", "systemd:web", port=None, command=[*tool, *COMMAND], wait=False)
    daemon.wait_log("Listening on")
    assert get(port).status == 200  # this very connection starts the daemon
    daemon.wait_log("serving .* on http://127.0.0.1")
    assert daemon.stop() == 0
