"""The start: what the log and `ps` say, and how a start that cannot succeed ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.e2e.apps import AppFile
from tests.e2e.client import get
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import APPS, EXAMPLES, READY, free_port, listens, title

pytestmark = pytest.mark.parallel

HELLO = f"{EXAMPLES / 'hello.py'}:HttpRequestHandler"


def test_the_process_titles_say_what_each_is(start: Start) -> None:
    daemon = start(app=HELLO)
    assert title(psutil.Process(daemon.pid)) == "preforkd: master [hello:HttpRequestHandler]"
    children = sorted(title(child) for child in psutil.Process(daemon.pid).children())
    assert children == ["preforkd: worker 0 (generation 1)", "preforkd: worker 1 (generation 1)"]


def test_the_log_says_what_is_served_where_by_how_many_and_how_to_stop_it(start: Start) -> None:
    daemon = start(app=HELLO)
    log = daemon.log()
    for expected in (
        "hello",
        f"http://127.0.0.1:{daemon.port}",
        r"2 workers",
        r"--workers",
        r"stop: kill -TERM \d+ \(or Ctrl-C\)",
    ):
        assert re.search(expected, log), f"{expected} in {log}"


def test_the_log_says_when_the_pure_parser_runs(start: Start) -> None:
    assert "HTTP is parsed in pure Python (--parser on the command line)" in start("--parser", "pure").log()


def test_each_answer_is_one_line_in_the_log(start: Start) -> None:
    daemon = start()
    for _ in range(3):
        get(daemon.port, "/?question")
    daemon.until(lambda: daemon.log().count('"GET /?question HTTP/1.1" 200') == 3, 5, "three lines")


def test_an_app_that_fails_at_import_ends_the_start_with_3_and_one_message(start: Start) -> None:
    daemon = start(app=f"{APPS / 'broken.py'}:Site", workers=4, wait=False, tolerated="Traceback")
    assert daemon.wait_exit() == 3
    daemon.wait_gone(0.5)
    log = daemon.log()
    assert log.count("Traceback") == 1, log
    assert log.count("RuntimeError: broken on purpose") <= 2, "once in the message, once in the traceback"
    assert re.search(r"broken\.py(:|\", line |, line )10\b", log), log
    assert not re.search(r'File ".*/(daemon|workers|importlib)/', log), "the app's own frames only"


@pytest.mark.parametrize(
    ("app", "code", "said"),
    [
        ("nowhere.py:Site", (2, 3), r"nowhere\.py"),
        (f"{APPS / 'nowhere.py'}:Site", (2, 3), r"nowhere\.py"),
        ("no_such_module:Site", (2, 3), r"no_such_module"),
        (f"{APPS / 'site.py'}:Sight", (3,), r"Sight.*Site"),
        (f"{APPS / 'site.py'}:VERSION", (3,), r"VERSION"),
    ],
)
def test_an_app_that_is_not_there_ends_the_start_with_one_clear_line(
    start: Start, app: str, code: tuple[int, ...], said: str
) -> None:
    daemon = start(app=app, workers=4, wait=False)
    assert daemon.wait_exit() in code
    daemon.wait_gone(0.5)
    assert len(re.findall(said, daemon.log())) == 1, daemon.log()


def test_a_taken_port_ends_the_start_at_once(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        daemon = start(port=port, wait=False)
        assert daemon.wait_exit(2) == 2
    assert re.search(rf"{port}.*in use", daemon.log())
    assert len(daemon.log().splitlines()) <= 2, daemon.log()


def test_a_second_daemon_on_the_port_is_refused_and_the_first_serves_on(start: Start) -> None:
    first = start()
    second = start(port=first.port, wait=False)
    assert second.wait_exit(2) == 2
    assert get(first.port).status == 200


def test_nothing_listens_before_the_app_is_ready(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    app.version("1", "import time\ntime.sleep(1)")
    daemon = start(app=app.target, wait=False)
    daemon.until(lambda: len(daemon.processes()) == 3, 10, "the workers import")
    with pytest.raises(ConnectionRefusedError):
        get(daemon.port)
    daemon.wait_log(READY)
    assert get(daemon.port).status == 200


def test_a_worker_that_is_not_ready_in_time_ends_the_start_with_3(start: Start) -> None:
    app = f"{APPS / 'slow_import.py'}:Site"
    daemon = start("--startup-timeout", "0.5", app=app, wait=False, tolerated="Fatal Python error|Traceback")
    assert daemon.wait_exit() == 3
    daemon.wait_gone(0.5)
    assert "--startup-timeout" in daemon.log()


def test_an_app_that_kills_its_worker_while_it_boots_ends_the_start_with_4(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    app.version("1", "os.kill(os.getpid(), signal.SIGKILL)")
    daemon = start(app=app.target, wait=False)
    assert daemon.wait_exit() == 4
    daemon.wait_gone(0.5)


def test_a_usage_error_is_2_and_shows_no_traceback() -> None:
    done = subprocess.run([*COMMAND, "--workers", "many", "x:y"], capture_output=True, text=True, timeout=10)
    assert done.returncode == 2
    assert "--workers" in done.stderr
    assert "Traceback" not in done.stderr


def test_signals_without_a_meaning_change_nothing(start: Start) -> None:
    daemon = start()
    before = daemon.worker_pids()
    daemon.signal(signal.SIGWINCH)
    daemon.signal(signal.SIGUSR1)
    for pid in before:
        for signum in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGINT):
            daemon.signal(signum, pid)
    assert all(get(daemon.port).status == 200 for _ in range(20))
    assert daemon.worker_pids() == before
    assert daemon.stop() == 0


def test_the_console_script_is_the_same_command(start: Start) -> None:
    port = free_port()
    script = str(Path(COMMAND[0]).parent / "preforkd")
    daemon = start("--bind", f"127.0.0.1:{port}", command=[script], port=None)
    assert get(port).status == 200
    assert daemon.stop() == 0


def test_a_daemon_whose_standard_streams_are_closed_from_the_start_serves(start: Start) -> None:
    closed = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *COMMAND)
    daemon = start(command=closed, wait=False)
    daemon.until(lambda: listens(daemon.port), 10, "a connection")
    assert get(daemon.port).status == 200
    for process in daemon.processes():
        opened = [str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in range(3)]
        assert opened == ["/dev/null"] * 3, title(process)
    assert daemon.stop() == 0


def test_a_stray_blank_in_a_settings_page_does_no_harm(start: Start) -> None:
    port = free_port()
    daemon = start(
        workers=None, port=None, environment={"PORT": f" {port}", "WEB_CONCURRENCY": " 1 ", "PREFORKD_PID": " "}
    )
    assert get(port).status == 200
    daemon.wait_log(rf"serving .* on http://0\.0\.0\.0:{port} with 1 worker \(\$WEB_CONCURRENCY in the environment\)")
