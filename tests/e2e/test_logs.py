"""What the daemon writes, for machines, for the journal, for a terminal; and what an operator can ask of it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Connection, get
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import APPS, Daemon, free_port, listens
from tests.e2e.deadline import until

ASGI = f"{APPS / 'talkative.py'}:app"
WSGI = f"{APPS / 'talkative.py'}:wsgi"


def records(daemon: Daemon) -> list[dict[str, Any]]:
    """Every line of the log; none may be anything but an object."""
    return [json.loads(line) for line in daemon.log().splitlines()]


def wait_event(daemon: Daemon, name: str, **fields: object) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        for record in records(daemon):
            if record.get("event") == name and record.items() >= fields.items():
                return record
        return None

    return daemon.until(look, 20, f"an event {name} with {fields}")


@pytest.mark.parallel
def test_in_json_every_line_is_an_object_and_the_events_have_their_names(start: Start) -> None:
    options = ["--log-format", "json", "--capture-output", "--slow-request", "1", "--trial", "1"]
    daemon = start(*options, app=ASGI, workers=2, tolerated="Traceback")
    assert wait_event(daemon, "worker_ready", slot=1, generation=1)["seconds"] > 0
    assert wait_event(daemon, "serving", workers=2)["addresses"] == [f"http://127.0.0.1:{daemon.port}"]
    get(daemon.port, "/boom")
    victim = daemon.workers()[0]
    daemon.signal(signal.SIGKILL, victim.pid)
    died = wait_event(daemon, "worker_exit", slot=victim.slot)
    assert (died["cause"], died["signal"], died["exit_code"]) == ("killed", "SIGKILL", None)
    wait_event(daemon, "worker_ready", slot=victim.slot)
    with Connection(daemon.port) as connection:
        connection.ask("/block")
        assert wait_event(daemon, "hang")["seconds"] >= 1
        stall = wait_event(daemon, "stall")
        connection.answer()
    assert stall["seconds"] >= 1
    assert "talkative.py" in stall["stack"]
    assert "asyncio tasks" in stall["stack"]
    daemon.signal(signal.SIGUSR2, daemon.workers()[0].pid)
    assert "most recent call first" in wait_event(daemon, "stacks")["stack"]
    daemon.signal(signal.SIGHUP)
    reload = wait_event(daemon, "reload", result="done", generation=2)
    assert reload["seconds"] > 1
    assert wait_event(daemon, "drain", reason="reload")["connections"] >= 0
    assert wait_event(daemon, "worker_exit", generation=1, cause="orderly")["exit_code"] == 0
    wait_event(daemon, "output", stream="stdout", message="imported")
    wait_event(daemon, "output", stream="stderr", message="half a line")
    assert daemon.stop() == 0
    wait_event(daemon, "stop", signal="SIGTERM")
    assert wait_event(daemon, "exit")["exit_code"] == 0
    assert any("ValueError: boom" in record.get("traceback", "") for record in records(daemon))
    assert any(record.get("path") == "/boom" and record["status"] == 500 for record in records(daemon))


@contextmanager
def running(*arguments: str, stderr: int, **environment: str) -> Iterator[int]:
    """A daemon whose standard error is this descriptor; its port."""
    port = free_port()
    command = [*COMMAND, ASGI, "-w", "1", "-b", f"127.0.0.1:{port}", *arguments]
    with subprocess.Popen(command, stdout=stderr, stderr=stderr, env=os.environ | environment) as process:
        try:
            yield port
        finally:
            process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parallel
@pytest.mark.parametrize("form", ["text", "json"])
def test_lines_for_the_journal_have_their_priority(tmp_path: Path, form: str) -> None:
    path = tmp_path / "journal"
    with path.open("wb") as file:
        status = os.fstat(file.fileno())
        stream = f"{status.st_dev}:{status.st_ino}"
        arguments = ["--log-format", form, "--no-access-log"]
        with running(*arguments, stderr=file.fileno(), JOURNAL_STREAM=stream) as port:
            until(lambda: "stop: kill" in path.read_text(), 20, path.read_text)
            get(port, "/boom")
            until(lambda: "ValueError" in path.read_text(), 20, path.read_text)
    lines = [line for line in path.read_text().splitlines() if line not in ("imported", "half a line", "another")]
    assert all(re.match(r"<[3-6]>", line) for line in lines), "also those of a traceback"
    assert [line for line in lines if "ValueError: boom" in line][-1].startswith("<3>")
    assert next(line for line in lines if "is ready" in line).startswith("<6>")


@pytest.mark.parallel
def test_a_stream_of_the_journal_that_has_been_redirected_is_none(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file, running(stderr=file.fileno(), JOURNAL_STREAM="8:1"):
        until(lambda: "stop: kill" in path.read_text(), 20, path.read_text)
    assert "<6>" not in path.read_text()
    assert "\x1b" not in path.read_text()


class Terminal:
    """What a terminal has been shown."""

    def __init__(self) -> None:
        self._master, self.descriptor = pty.openpty()
        os.set_blocking(self._master, False)
        self._text = b""

    def text(self) -> str:
        try:
            while data := os.read(self._master, 65536):
                self._text += data
        except OSError:  # there is no more now
            pass
        return self._text.decode()

    def close(self) -> None:
        os.close(self._master)
        os.close(self.descriptor)


@pytest.mark.parallel
@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_gets_colours_unless_it_wants_none(no_color: str) -> None:
    terminal = Terminal()
    with running(stderr=terminal.descriptor, TERM="xterm", NO_COLOR=no_color) as port:
        until(lambda: "stop: kill" in terminal.text(), 20, terminal.text)
        get(port, "/")
        get(port, "/none")
        until(lambda: "/none" in terminal.text(), 20, terminal.text)
    text = terminal.text()
    terminal.close()
    if no_color:
        assert "\x1b" not in text
    else:
        assert "\x1b[32mINFO\x1b[0m master[" in text
        assert re.search(r'\x1b\[32m127\.0\.0\.1 .*"GET / HTTP/1.1" 200 .*\x1b\[0m\r\n', text)
        assert re.search(r'\x1b\[33m127\.0\.0\.1 .*"GET /none HTTP/1.1" 404 ', text)


LOG_CONFIG = """
[formatters.short]
format = "%(name)s %(levelname)s %(message)s"
[handlers.file]
class = "logging.FileHandler"
filename = {file!r}
formatter = "short"
[loggers.preforkd]
handlers = ["file"]
[loggers."preforkd.access"]
handlers = ["file"]
level = "INFO"
[loggers.shop]
handlers = ["file"]
"""


@pytest.mark.parallel
@pytest.mark.parametrize("mode", ["", "--preload"])
def test_a_dictconfig_is_for_the_app_and_its_worker(start: Start, tmp_path: Path, mode: str) -> None:
    file, config = tmp_path / "lines", tmp_path / "log.toml"
    config.write_text(LOG_CONFIG.format(file=str(file)))
    options = ["--log-config", str(config), "--access-log-format", "%(r)s %(s)s", *([mode] if mode else [])]
    daemon = start(*options, app=ASGI, workers=1)
    for path in ("/log", "/boom"):
        get(daemon.port, path)
    daemon.until(lambda: "GET /boom HTTP/1.1 500" in file.read_text(), 10, "the lines in the file")
    assert daemon.stop() == 0
    text = file.read_text()
    for line in (
        "shop WARNING logged /log\n",
        "preforkd.access INFO GET /log HTTP/1.1 200\n",
        "preforkd.access INFO GET /boom HTTP/1.1 500\n",
        "preforkd INFO draining (stop): ",
        "preforkd ERROR Error handling request",
        "ValueError: boom",
    ):
        assert text.count(line) == 1, line
        assert line not in daemon.log(), "and not on standard error"
    assert "master[" in daemon.log(), "whose lines stay there"


BASIC = """
import logging
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("none")
    logging.basicConfig(level="DEBUG", force=True)
    raise ValueError("boom")
"""


@pytest.mark.parallel
def test_an_app_that_configures_logging_beside_it_doubles_no_line(start: Start, tmp_path: Path) -> None:
    file, config, app = tmp_path / "lines", tmp_path / "log.toml", tmp_path / "basic.py"
    config.write_text(LOG_CONFIG.format(file=str(file)))
    app.write_text(BASIC)
    daemon = start("--log-config", str(config), app=f"{app}:app", workers=1)
    assert get(daemon.port).status == 500
    daemon.until(lambda: "GET / HTTP/1.1" in file.read_text(), 10, "the lines in the file")
    assert daemon.stop() == 0
    assert file.read_text().count("ValueError: boom") == 1
    assert "ValueError: boom" not in daemon.log()


@pytest.mark.parallel
@pytest.mark.parametrize(
    ("name", "text", "code", "said"),
    [
        ("log.toml", "version = ", 2, "--log-config on the command line: .*log.toml is not TOML"),
        ("log.json", "[]", 2, "log.json holds no table"),
        ("log.ini", "", 2, r"write it as TOML or JSON, in the form of logging.config.dictConfig; .ini is not read"),
        ("log.toml", "handlers.x.class = 'shop.Nope'", 3, "start: --log-config: Unable to configure handler 'x'"),
    ],
)
def test_a_dictconfig_that_cannot_be_carried_out_is_said(
    start: Start, tmp_path: Path, name: str, text: str, code: int, said: str
) -> None:
    (tmp_path / name).write_text(text)
    daemon = start("--log-config", str(tmp_path / name), app=ASGI, workers=1, wait=False)
    assert daemon.wait_exit() == code
    daemon.wait_log(said)


@pytest.mark.parallel
def test_what_the_app_prints_is_a_line_of_the_log_and_paths_are_skipped(start: Start) -> None:
    options = ["--capture-output", "--log-level", "error", "--access-log-skip", "/health", "--access-log-skip", "/m"]
    daemon = start(*options, app=ASGI, workers=1, wait=False)
    daemon.wait_log(r"Z INFO worker 0\[\d+\] imported$")
    daemon.wait_log(r"Z INFO worker 0\[\d+\] half a line$")
    daemon.until(lambda: get(daemon.port, "/health").status == 200 if listens(daemon.port) else None, 20, "served")
    for path in ("/health?x=1", "/m", "/print/me", "/health/deep"):
        assert get(daemon.port, path).status == 200
    daemon.wait_log(r"Z INFO worker 0\[\d+\] printed /print/me$")
    daemon.wait_log('"GET /health/deep HTTP/1.1" 200')
    assert '"GET /health?' not in daemon.log()
    assert '"GET /m ' not in daemon.log()
    assert daemon.stop() == 0


@pytest.mark.parallel
@pytest.mark.parametrize(
    ("app", "where"),
    [
        (ASGI, r"talkative.py:\d+ app > .*talkative.py:\d+ view > .*parts > .*__await__ > .*deep > .*sleep"),
        (WSGI, r"talkative.py:\d+ wsgi > .*talkative.py:\d+ think$"),
    ],
)
def test_a_slow_request_is_told_once_with_the_place_where_it_is(start: Start, app: str, where: str) -> None:
    daemon = start("--slow-request", "0.5", app=app, workers=1)
    with Connection(daemon.port) as connection:
        connection.ask("/slow")
        said = r"WARNING worker 0.* slow request: GET '/slow' of 127.0.0.1, \d.\d s so far, in .*"
        daemon.wait_log(said + where)
        connection.answer()
        assert connection.get("/").status == 200
    assert daemon.log().count("slow request") == 1
    assert daemon.stop() == 0
