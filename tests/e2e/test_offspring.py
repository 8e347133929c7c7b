"""Processes that the app forks: to them their worker was a plain Python program, and what they do is theirs."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from xprocess.xprocess import XProcess  # type: ignore[import-untyped] # pytest-xprocess has no type hints

from tests.e2e.client import Connection, get
from tests.e2e.conftest import Start, shared_daemon
from tests.e2e.daemon import APPS, Daemon, alive, listens

pytestmark = [
    pytest.mark.parallel,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

FORKING = APPS / "forking.py"
KINDS = {
    "protocol": ("Site", ()),
    "asgi": ("asgi", ("--interface", "asgi")),
    "wsgi in a thread": ("wsgi", ("--threads", "2")),
    "wsgi on the loop": ("wsgi", ("--threads", "0")),
    "asgi from a mold": ("asgi", ("--preload",)),
    "wsgi from a mold": ("wsgi", ("--preload", "--threads", "2")),
}
SOON = 5.0  # seconds
OURS = signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTERM, signal.SIGUSR2


@pytest.fixture(scope="module", params=KINDS)
def daemon(request: pytest.FixtureRequest, xprocess: XProcess) -> Iterator[Daemon]:
    """One for all tests of a kind; what their children have left is ended before it has to stop."""
    attribute, options = KINDS[request.param]
    name = f"offspring-{request.param.replace(' ', '-')}"
    with shared_daemon(
        xprocess, name, *options, app=f"{FORKING}:{attribute}", tolerated="Traceback|LookupError"
    ) as start:
        (daemon,) = start.daemons
        yield daemon
        for process in daemon.processes():
            with suppress(psutil.NoSuchProcess):
                if "child of" in " ".join(process.cmdline()):
                    process.kill()


def ask(daemon: Daemon, name: str) -> str:
    answer = get(daemon.port, f"/{name}")
    assert answer.status == 200, answer.text
    return answer.text


def status(daemon: Daemon, pid: int) -> int:
    """The exit code of a child of the worker, as its parent sees it."""
    return int(ask(daemon, f"status/{pid}"))


def shown(pid: int, field: str) -> set[int]:
    """The signals in a field of /proc/PID/status."""
    mask = int(re.search(rf"^{field}:\t(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1], 16)  # type: ignore[index] # it is there
    return {number for number in range(1, 32) if mask >> (number - 1) & 1}


def settled(daemon: Daemon, pid: int) -> int:
    """Wait until what runs at a fork has run in the child."""
    daemon.until(lambda: "child of" in " ".join(psutil.Process(pid).cmdline()), SOON, f"the title of {pid}")
    daemon.until(lambda: not shown(pid, "SigBlk"), SOON, f"the signals of {pid}")
    return pid


def test_a_child_that_is_ended_ends_and_its_worker_serves_on(daemon: Daemon) -> None:
    worker = ask(daemon, "who")
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
        pid = settled(daemon, int(ask(daemon, "waits")))
        daemon.signal(signum, pid)
        ended = status(daemon, pid)
        # INT raises KeyboardInterrupt, which is what it does in a Python program.
        assert ended == -signum, signum.name
    assert ask(daemon, "forks_and_kills") == str(-signal.SIGTERM), "however soon"
    assert ask(daemon, "terminated") == str(-signal.SIGTERM)
    assert ask(daemon, "who") == worker
    assert "got a TERM" not in daemon.log()


def test_signals_mean_in_a_child_what_they_mean_in_a_python_program(daemon: Daemon) -> None:
    pid = settled(daemon, int(ask(daemon, "waits")))
    assert shown(pid, "SigIgn") == {signal.SIGPIPE, signal.SIGXFSZ}
    fatal = {signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL}  # a stack, and then as ever
    assert shown(pid, "SigCgt") - fatal == {signal.SIGINT}
    psutil.Process(pid).kill()


def test_a_handler_of_the_app_stays_in_its_children(daemon: Daemon) -> None:
    if "wsgi" in daemon.name and "loop" not in daemon.name:
        pytest.skip("in a thread no handler can be set")
    pid = settled(daemon, int(ask(daemon, "waits_with_a_handler")))
    daemon.signal(signal.SIGUSR1, pid)
    daemon.wait_log(f"the app's own handler in {pid}")
    psutil.Process(pid).kill()


def test_programs_that_the_app_starts_find_all_signals_as_they_are(daemon: Daemon) -> None:
    names = ["signals_of_programs", *(["subprocess"] if "asgi" in daemon.name else [])]
    for name in names:
        for text in json.loads(ask(daemon, name)):
            masks = {field: int(value, 16) for field, value in re.findall(r"^(\w+):\s+(\w+)$", text, re.MULTILINE)}
            ignored = [signum.name for signum in OURS if masks["SigIgn"] >> (signum - 1) & 1]
            assert (ignored, masks["SigBlk"]) == ([], 0)
    assert ask(daemon, "who") == ask(daemon, "who")


def test_a_child_has_nothing_of_the_daemons(daemon: Daemon) -> None:
    with Connection(daemon.port) as idle, Connection(daemon.port) as asking:
        idle.get("/who")
        pid = settled(daemon, int(asking.get("/waits").text))
        opened = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [name for name in opened if re.match(r"/memfd:preforkd|.*poll\]", name)]
        assert not psutil.Process(pid).net_connections("all")
        assert "memfd" not in Path(f"/proc/{pid}/maps").read_text()
        asking.ask("/who", headers=[("Connection", "close")])
        assert asking.answer().closes
        asking.expect_close()
    psutil.Process(pid).kill()


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("exits", 7, ""),
        ("exits_with_text", 1, "the child's last words"),
        ("fails", 1, "LookupError: in the child"),
        ("returns", 0, ""),
        ("loops", 0, "a loop of its own: 0, True"),
    ],
)
def test_a_child_ends_as_a_program_does(daemon: Daemon, name: str, code: int, said: str) -> None:
    mark, worker = daemon.mark(), ask(daemon, "who")
    with Connection(daemon.port) as connection:
        pid = int(connection.get(f"/{name}").text)
        assert status(daemon, pid) == code
        assert connection.get("/who").text == worker, "one answer, by the worker"
    said_by_it = daemon.log()[mark:]
    assert said in said_by_it
    assert not re.search(r"(ERROR|WARNING) .*", said_by_it), said_by_it
    assert said_by_it.count(f"GET /{name} ") == 1, "one line for the request"


def test_an_exit_function_of_the_child_runs_in_it_and_none_of_the_worker(daemon: Daemon) -> None:
    mark = daemon.mark()
    pid = int(ask(daemon, "tidy"))
    assert status(daemon, pid) == 5
    log = daemon.log()[mark:]
    assert log.count("finally") == 1
    assert log.count("an exit function of the child") == 1
    assert log.count("printed by the child") == 1


def test_an_orphan_is_nobodys_worker(daemon: Daemon) -> None:
    worker = ask(daemon, "who")
    pid = int(ask(daemon, "grandchild"))
    assert status(daemon, pid) == 0
    orphan = int(daemon.wait_log(r"^orphan (\d+) in")[1])
    settled(daemon, orphan)
    daemon.signal(signal.SIGTERM, orphan)
    daemon.until(lambda: not alive(orphan), SOON, "the orphan is gone")
    assert ask(daemon, "who") == worker
    assert "ended" not in daemon.log()


def test_process_pools_work(daemon: Daemon) -> None:
    assert alive(int(ask(daemon, "pool")))
    pid = settled(daemon, int(ask(daemon, "process")))
    assert not shown(pid, "SigIgn") - {signal.SIGPIPE, signal.SIGXFSZ}


def test_a_child_that_awaits_or_ends_in_a_thread_ends_too(daemon: Daemon) -> None:
    if "asgi" not in daemon.name:
        pytest.skip("for those who await")
    assert status(daemon, int(ask(daemon, "awaits"))) == 0
    assert status(daemon, int(ask(daemon, "in-a-thread"))) == 7


# With the end of the worker, and of the daemon


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["alone", "preload"])
def test_a_child_that_lives_on_keeps_neither_port_nor_daemon(start: Start, options: tuple[str, ...]) -> None:
    daemon = start(*options, app=f"{FORKING}:asgi", workers=1)
    pid = settled(daemon, int(ask(daemon, "waits")))
    (worker,) = daemon.worker_pids()
    daemon.signal(signal.SIGKILL, worker)
    daemon.wait_log("ended: signal SIGKILL")
    daemon.wait_workers(1, but={worker})
    assert alive(pid)
    assert daemon.stop(5) == 0
    assert alive(pid)
    assert not listens(daemon.port)
    new = start(app=f"{FORKING}:asgi", workers=1, port=daemon.port)
    assert get(new.port).status == 200
    assert new.stop() == 0


def test_children_of_the_import_are_the_apps_too(start: Start, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(
        f"import os, sys, time\nsys.path.insert(0, {str(FORKING.parent)!r})\n"
        "if os.fork() == 0:\n    os.write(1, b'child %d\\n' % os.getpid())\n    time.sleep(600)\n"
        "if os.fork() == 0:\n    sys.exit(0)\n"
        "from forking import asgi as app\n"
        "if os.fork() == 0:\n    os.write(1, b'returned\\n')\nelse:\n    os.wait(), os.wait()\n"
    )
    for options in ((), ("--preload",)):
        daemon = start(*options, app=f"{app}:app", workers=1)
        pid = int(daemon.wait_log(r"^child (\d+)$")[1])
        assert not psutil.Process(pid).net_connections("all")
        assert shown(pid, "SigIgn") == {signal.SIGPIPE, signal.SIGXFSZ}
        assert "memfd" not in Path(f"/proc/{pid}/maps").read_text()
        assert daemon.log().count("is ready after") == 1
        daemon.signal(signal.SIGTERM, pid)
        daemon.until(lambda pid=pid: not alive(pid), SOON, "the child is gone")  # type: ignore[misc] # its default is its type
        assert get(daemon.port, "/who").status == 200
        assert daemon.stop() == 0
        assert not re.search("ERROR|WARNING", daemon.log())


@pytest.mark.parametrize(
    ("name", "who"), [("stubborn", r"process (\d+) \(the-stubborn-one\)"), ("thread", "thread the-endless-one")]
)
def test_what_does_not_end_is_named_and_holds_a_worker_for_the_shutdowns_share_alone(
    start: Start, name: str, who: str
) -> None:
    daemon = start("--graceful-timeout", "60", "--shutdown-timeout", "1.5", app=f"{FORKING}:asgi", workers=1)
    ask(daemon, name)
    if name == "stubborn":
        daemon.wait_log("stubborn in")
    assert daemon.stop(20) == 0
    daemon.wait_log(rf"WARNING worker 0\[\d+\] the end of this worker waits for {who}")
    daemon.wait_log(rf"this worker ends without waiting longer for {who}")
    daemon.wait_log(r"worker 0 \(generation 1\) ended: exit code 0")


def test_a_process_pool_ends_with_its_worker(start: Start) -> None:
    daemon = start(app=f"{FORKING}:asgi", workers=1)
    pid = int(ask(daemon, "pool"))
    assert daemon.stop() == 0
    daemon.until(lambda: not alive(pid), SOON, "the pool is gone")
    daemon.wait_gone()
    assert "waits for" not in daemon.log()
