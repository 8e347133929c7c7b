"""`preforkd MODULE:APP` serves WSGI apps: found by itself, in threads and on the loop, and loses nothing."""

from __future__ import annotations

import ast
import re
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.apps import AppFile
from tests.e2e.client import HANDSHAKE, Connection, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, SHORT_TRIAL
from tests.e2e.load import load

FILE = APPS / "wsgi_site.py"
SITE = f"{FILE}:app"
MODES = ["0", "1", "3"]

every_mode = pytest.mark.parametrize("threads", MODES)


@pytest.mark.parallel
@every_mode
def test_a_wsgi_app_is_found_by_itself_and_served(start: Start, threads: str) -> None:
    daemon = start("--threads", threads, app=SITE)
    with Connection(daemon.port) as connection:
        for _ in range(3):
            assert re.fullmatch(r"1 \d+", connection.get().text)
        assert connection.get("/chunks/2/0").text.endswith("\n0\n1\n")
        assert connection.get("/large/3000000").body == b"x" * 3_000_000
        assert connection.get("/source").body == FILE.read_bytes()
        assert connection.get("/coroutine").text == "0\n1\n2\n", "also where a loop runs already"
        connection.ask("/upload", method="POST", body=b"x" * 5_000_000)
        assert connection.answer().text.endswith(" 5000000")
    said = ast.literal_eval(get(daemon.port, "/describe?a=b").text)
    assert said["SERVER_PORT"] == str(daemon.port)
    assert (said["REMOTE_ADDR"], said["QUERY_STRING"], said["wsgi.multithread"]) == ("127.0.0.1", "a=b", threads == "3")


@pytest.mark.parallel
@every_mode
def test_a_websocket_is_refused_in_one_line_and_without_the_app(start: Start, threads: str) -> None:
    daemon = start("--threads", threads, app=SITE, workers=1)
    for _ in range(3):
        with Connection(daemon.port) as connection:
            connection.ask("/websocket", headers=HANDSHAKE)
            answer = connection.answer()
            assert (answer.status, answer.closes) == (501, True)
    assert get(daemon.port).text.startswith("1 ")
    daemon.wait_log(
        "WARNING worker 0.* WebSocket is not served for WSGI apps: the handshake for /websocket is answered 501"
    )
    assert daemon.log().count("WebSocket is not served") == 1


@pytest.mark.parallel
def test_one_thread_is_the_default_and_the_interface_can_be_given(start: Start) -> None:
    daemon = start("--interface", "wsgi", app=SITE, workers=1)
    threads = psutil.Process(daemon.workers()[0].pid).num_threads()
    more = start("--threads", "5", app=SITE, workers=1)
    assert psutil.Process(more.workers()[0].pid).num_threads() == threads + 4


@pytest.mark.parallel
def test_a_root_path_is_the_script_name(start: Start) -> None:
    daemon = start("--root-path", "/mounted", app=SITE, workers=1)
    for path in ("/mounted/describe", "/describe"):
        said = ast.literal_eval(get(daemon.port, path).text)
        assert (said["SCRIPT_NAME"], said["PATH_INFO"]) == ("/mounted", "/describe")


@pytest.mark.parallel
@every_mode
def test_an_app_that_fails_or_calls_exit_is_answered_500_and_the_worker_stays(start: Start, threads: str) -> None:
    daemon = start("--threads", threads, app=SITE, workers=1, tolerated="Traceback")
    workers = daemon.worker_pids()
    for path in ("/fail", "/leave"):
        assert get(daemon.port, path).status == 500
    daemon.wait_log(r"RuntimeError: a bug in the app")
    daemon.wait_log(r"SystemExit")
    assert get(daemon.port).status == 200
    assert daemon.worker_pids() == workers


@pytest.mark.parallel
@pytest.mark.parametrize("threads", ["0", "1"])
def test_reloads_under_load_lose_nothing(start: Start, tmp_path: Path, threads: str) -> None:
    app = AppFile(tmp_path, FILE, "app")
    daemon = start(*SHORT_TRIAL, "--threads", threads, "--no-access-log", app=app.target)
    before = daemon.worker_pids()
    with load(daemon.port, clients=8, expect=r"\d+ \d+") as result:
        for version in ("2", "3"):
            app.version(version)
            mark = daemon.mark()
            daemon.signal(signal.SIGHUP)
            daemon.wait_log(r"reload done", since=mark)
    assert result.total > 100
    assert result.failed == 0, result.describe()
    assert get(daemon.port).text.startswith("3 ")
    assert not before & daemon.worker_pids()


@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_stop_finishes_what_runs_what_waits_and_what_streams(start: Start, threads: str) -> None:
    daemon = start("--threads", threads, app=SITE, workers=1)
    paths = ["/slow/0.5", "/chunks/5/0.1", "/slow/0.3", "/upload", "/slow/0.2"]
    connections = [Connection(daemon.port) for _ in paths]
    for connection, path in zip(connections, paths, strict=True):
        if path == "/upload":
            connection.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
        else:
            connection.ask(path)
    connections[1].read_some() if threads == "3" else time.sleep(0.1)
    daemon.signal(signal.SIGTERM)
    daemon.wait_log("stopping within")
    connections[3].send(b"x" * 100_000)
    for connection in connections:
        answer = connection.answer()
        assert answer.status == 200
        connection.close()
    assert daemon.wait_exit() == 0


def test_a_stop_waits_for_a_call_whose_client_has_left(start: Start, tmp_path: Path) -> None:
    daemon = start("--threads", "1", app=SITE, workers=1)
    noted = tmp_path / "noted"
    connection = Connection(daemon.port)
    connection.ask(f"/note/1{noted}")
    time.sleep(0.2)  # until the call runs: one that waits would be dropped with its client, and nothing shows its start
    connection.reset()
    assert daemon.stop() == 0
    assert noted.read_text() == "ended"


def test_a_call_that_never_ends_does_not_keep_a_stop_beyond_its_time(start: Start) -> None:
    options = ["--threads", "1", "--graceful-timeout", "1", "--shutdown-timeout", "1"]
    daemon = start(*options, app=SITE, workers=1)
    connection = Connection(daemon.port)
    connection.ask("/slow/60")
    time.sleep(0.2)  # as above
    assert daemon.stop(within=6) == 0
    connection.close()


def test_other_clients_are_accepted_and_the_worker_is_no_hung_one_while_all_threads_are_busy(start: Start) -> None:
    daemon = start("--threads", "1", "--stall-timeout", "1", "--health-path", "/healthy", app=SITE, workers=1)
    workers = daemon.worker_pids()
    with Connection(daemon.port) as busy:
        busy.ask("/slow/2.5")
        began = time.monotonic()
        assert get(daemon.port, "/healthy").status == 200, "the loop answers"
        assert time.monotonic() - began < 1
        assert busy.answer().status == 200
    assert daemon.worker_pids() == workers


def test_slow_uploads_leave_other_clients_unharmed_with_one_thread(start: Start) -> None:
    daemon = start("--threads", "1", app=SITE, workers=1)
    slow = [Connection(daemon.port) for _ in range(100)]
    for connection in slow:
        connection.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx")
    stop = threading.Event()

    def dribble() -> None:
        while not stop.wait(0.05):
            for connection in slow:
                connection.socket.send(b"x")

    dribbling = threading.Thread(target=dribble)
    dribbling.start()
    try:
        began = time.monotonic()
        for _ in range(50):
            assert get(daemon.port).status == 200
        assert time.monotonic() - began < 3
    finally:
        stop.set()
        dribbling.join()
        for connection in slow:
            connection.close()


@pytest.mark.parallel
def test_the_access_log_has_the_bytes_and_status_of_wsgi_responses(start: Start) -> None:
    daemon = start("--threads", "1", app=SITE, workers=1)
    get(daemon.port, "/large/1234?q")
    daemon.wait_log(r'"GET /large/1234\?q HTTP/1.1" 200 1234 ')
    get(daemon.port, "/source")
    daemon.wait_log(rf'"GET /source HTTP/1.1" 200 {FILE.stat().st_size} ')
