"""preforkctl profile, memory and log-level: looking into a worker that serves, or is blocked, or dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import client
from tests.e2e.client import Connection
from tests.e2e.conftest import Start
from tests.e2e.deadline import until
from tests.e2e.load import load
from tests.e2e.test_ctl import ENVIRONMENT, SCRIPT, ctl
from tests.e2e.test_ctl_top import Terminal
from tests.e2e.watching import Admin, UnixConnection

pytestmark = pytest.mark.parallel

APP = """
import os
import sys
import tracemalloc
from pathlib import Path

from preforkd.workers import Response, ServerHttpProtocol

kept = []


def busy_here(go):
    while not go.exists():
        sum(range(100))


def how():
    return f"{sys.getswitchinterval()} {tracemalloc.is_tracing()}"


class Kept:
    def __init__(self):
        self.itself = self


class App(ServerHttpProtocol):
    async def handle_request(self, message, payload):
        self.keep_alive(True)
        if message.path.startswith("/busy"):
            busy_here(Path(message.path.removeprefix("/busy")))
        elif message.path.startswith("/fork"):
            parent = how()
            pid = os.fork()
            if not pid:
                Path(message.path.removeprefix("/fork")).write_text(f"{parent} {how()}")
                os._exit(0)
            os.waitpid(pid, 0)
        elif message.path == "/leak":
            kept.append(bytearray(100_000))
            kept.append(Kept())
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Length", "0")
        response.send_headers()
        await response.write_eof()
"""


def app_in(folder: Path) -> str:
    path = folder / "app.py"
    path.write_text(APP)
    return f"{path}:App"


def profile(admin: Admin, *arguments: str) -> subprocess.Popen[str]:
    command = [SCRIPT, "--admin", f"unix:{admin.path}", "profile", "0", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def is_examined(admin: Admin) -> bool:
    """Whether a worker is at work on it."""
    connection = UnixConnection(admin.path)
    try:
        connection.request("GET", "/control/examination")
        return bool(json.loads(connection.getresponse().read())["state"] == "running")
    finally:
        connection.close()


def weight_of(found: dict[str, Any], name: str) -> int:
    names = [one["name"] for one in found["shared"]["frames"]]
    thread = found["profiles"][0]
    pairs = zip(thread["samples"], thread["weights"], strict=True)
    return sum(weight for stack, weight in pairs if any(names[frame] == name for frame in stack))


def test_a_blocked_worker_is_profiled_and_the_file_is_as_speedscope_reads_it(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path, workers=1, app=app_in(tmp_path), tolerated="")
    with Connection(admin.daemon.port) as busy:
        busy.ask(f"/busy{tmp_path}/go")
        done = profile(admin, "--seconds", "0.5", "--output", str(tmp_path / "found.json"))
        _, said = done.communicate(timeout=60)
        (tmp_path / "go").touch()
        assert busy.answer().status == 200
    assert done.returncode == 0, said
    assert "written to" in said
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert set(found) == {"$schema", "name", "exporter", "activeProfileIndex", "shared", "profiles"}
    for one in found["profiles"]:
        assert set(one) == {"type", "name", "unit", "startValue", "endValue", "samples", "weights"}
        assert (one["type"], one["unit"], one["startValue"]) == ("sampled", "microseconds", 0)
        assert len(one["samples"]) == len(one["weights"])
        assert sum(one["weights"]) == one["endValue"]
        assert all(0 <= frame < len(found["shared"]["frames"]) for stack in one["samples"] for frame in stack)
    assert found["profiles"][0]["name"] == "main thread"
    assert found["profiles"][0]["endValue"] >= 400_000
    assert weight_of(found, "busy_here") > 0
    assert weight_of(found, "(event loop)") == found["profiles"][0]["endValue"]
    assert any(one["name"].startswith("task ") for one in found["shared"]["frames"])


def test_a_worker_serves_on_while_it_is_profiled_and_a_second_one_is_refused(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path, workers=1)
    with load(admin.daemon.port) as result:
        first = profile(admin, "--seconds", "60", "--format", "collapsed", "--output", "-")
        admin.daemon.until(lambda: is_examined(admin), 10, "it is profiled")
        second = profile(admin)
        assert second.communicate(timeout=60)[1].startswith("refused: the worker of slot 0 is being examined (profile)")
        assert second.returncode == 1
        first.send_signal(signal.SIGINT)
        text, said = first.communicate(timeout=60)
    assert (first.returncode, result.failed) == (0, 0), said
    lines = text.splitlines()
    assert lines
    assert all(line.rpartition(" ")[2].isdigit() and line.partition(";")[2] for line in lines)
    assert any("(event loop)" in line for line in lines)


def test_the_death_of_a_worker_that_is_profiled_is_said(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path, workers=1)
    done = profile(admin, "--seconds", "60", "--output", str(tmp_path / "none"))
    admin.daemon.until(lambda: is_examined(admin), 10, "it is profiled")
    admin.daemon.signal(signal.SIGKILL, admin.daemon.workers()[0].pid)
    said = done.communicate(timeout=60)[1]
    assert (done.returncode, said) == (1, "failed: the worker has ended meanwhile; the log says why\n")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("verb", ["profile", "memory"])
def test_a_process_that_the_app_forks_meanwhile_is_as_without(start: Start, tmp_path: Path, verb: str) -> None:
    admin = Admin(start, tmp_path, workers=1, app=app_in(tmp_path))
    assert admin.control(f"{verb}?slot=0&seconds=60")[0] == 202
    admin.daemon.until(lambda: is_examined(admin), 10, "it is at work")
    plain = f"{sys.getswitchinterval()} False"

    def forks() -> bool:
        assert client.get(admin.daemon.port, f"/fork{tmp_path}/found").status == 200
        *parent, interval, traced = (tmp_path / "found").read_text().split()
        assert f"{interval} {traced}" == plain
        return " ".join(parent) != plain

    for _ in range(3):
        admin.daemon.until(forks, 10, "it was forked while it mattered")


def test_what_cannot_be_profiled_or_written_is_one_line(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path, workers=1)
    at = ("--admin", f"unix:{admin.path}")
    assert ctl(*at, "profile", "7", "--output", "-").stderr == "refused: slot 7 has no worker that serves\n"
    done = ctl(*at, "profile", "0", "--output", str(tmp_path / "no" / "where"))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "No such file or directory; give --output FILE" in done.stderr
    assert "takes 0.1 to 3600 seconds" in admin.control("profile?slot=0&seconds=0")[1]["text"]
    assert "takes 1 to 1000 samples a second" in admin.control("profile?slot=0&rate=0")[1]["text"]


def test_memory_names_the_line_that_leaks_and_the_objects_that_become_more(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path, workers=1, app=app_in(tmp_path))
    stop = threading.Event()

    def leak() -> None:
        while not stop.is_set():
            client.get(admin.daemon.port, "/leak")

    leaking = threading.Thread(target=leak)
    leaking.start()
    try:
        done = ctl("--admin", f"unix:{admin.path}", "memory", "0", "--seconds", "2")
    finally:
        stop.set()
        leaking.join()
    assert done.returncode == 0, done.stderr
    head, cost, _, _, first, *rest = done.stdout.splitlines()
    assert "were allocated and not given back" in head
    assert "it is off again" in cost
    line = APP.splitlines().index("            kept.append(bytearray(100_000))") + 1
    assert f"app.py:{line}  kept.append(bytearray(100_000))" in first
    assert any(line.endswith(".Kept") for line in rest), done.stdout


WSGI = """
import time
from pathlib import Path

def waits_here(go):
    while not go.exists():
        time.sleep(0.01)

def app(environ, start_response):
    if environ["PATH_INFO"] != "/":
        waits_here(Path(environ["PATH_INFO"]))
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""


def test_the_thread_of_a_wsgi_app_is_seen(start: Start, tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(WSGI)
    admin = Admin(start, tmp_path, "--threads", "2", workers=1, app=f"{tmp_path}/site.py:app")
    with Connection(admin.daemon.port) as busy:
        busy.ask(f"{tmp_path}/go")
        admin.daemon.until(lambda: admin.status()["requests"]["active"] == 1, 10, "the request is handled")
        done = ctl(*(f"--admin unix:{admin.path} profile 0 --seconds 0.5 --format collapsed --output -".split()))
        (tmp_path / "go").touch()
        assert busy.answer().status == 200
    (thread,) = {line.partition(";")[0] for line in done.stdout.splitlines() if ";waits_here (" in line}
    assert thread != "main thread", done.stdout
    assert "\nmain thread;(event loop);(waits for events) " in f"\n{done.stdout}"
    assert "\r" not in done.stderr, "progress is for terminals"


def test_a_terminal_is_shown_how_far_it_is_and_ctrl_c_writes_what_there_is(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path, workers=1)
    arguments = ("profile", "0", "--seconds", "60", "--output", str(tmp_path / "found.json"))
    terminal = Terminal(80, SCRIPT, "--admin", f"unix:{admin.path}", *arguments)
    try:
        until(lambda: terminal.shows(" of 60 s; Ctrl-C ends it"), 20, lambda: terminal.text)
        terminal.process.send_signal(signal.SIGINT)
        until(lambda: terminal.shows("written to"), 20, lambda: terminal.text)
        assert terminal.process.wait(20) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
    assert 0 < json.loads((tmp_path / "found.json").read_text())["profiles"][0]["endValue"] < 60_000_000


def levels(admin: Admin) -> list[str]:
    found = admin.status()
    return [found["log_level"], *(one["log_level"] for one in found["workers"])]


def test_the_log_level_is_changed_everywhere_until_a_reload(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path)
    at = ("--admin", f"unix:{admin.path}")
    assert levels(admin) == ["info"] * 3
    assert ctl(*at, "log-level", "debug").stdout == "log level of all processes: debug\n"
    admin.daemon.until(lambda: levels(admin) == ["debug"] * 3, 5, "all of them")
    admin.daemon.signal(signal.SIGKILL, admin.daemon.workers()[0].pid)
    admin.daemon.wait_log(r"DEBUG .*worker 0 \(generation 1\) is process")
    admin.daemon.until(lambda: levels(admin) == ["debug"] * 3, 10, "the successor, too")
    assert ctl(*at, "log-level", "error", "1").stdout == "log level of the worker of slot 1: error\n"
    admin.daemon.until(lambda: levels(admin) == ["debug", "debug", "error"], 5, "one of them")
    assert "log level debug (worker 1: error)" in ctl(*at, "status").stdout
    assert ctl(*at, "reload", "--wait").returncode == 0
    admin.daemon.until(lambda: levels(admin) == ["info"] * 3, 10, "as configured")
    ctl(*at, "log-level", "debug")
    ctl(*at, "log-level", "configured")
    admin.daemon.until(lambda: levels(admin) == ["info"] * 3, 5, "as configured")
    assert ctl(*at, "log-level", "loud").returncode == 2
    assert ctl(*at, "log-level", "debug", "9").stderr == "refused: slot 9 has no worker\n"
