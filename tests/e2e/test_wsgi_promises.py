"""The promises to WSGI apps, on the real daemon: one daemon for each way to run the calls, started once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from xprocess.xprocess import XProcess  # type: ignore[import-untyped] # pytest-xprocess has no type hints

from tests.e2e.client import Answer, Connection
from tests.e2e.conftest import STARTED, Start, shared_daemon
from tests.e2e.daemon import APPS, Daemon

TARGET = f"{APPS / 'wsgi_promises.py'}:app"
MB = 1_000_000
LARGE = 200_000  # bytes of a body: more than is awaited before the app is called


@pytest.fixture(scope="module", params=[0, 1, 4], ids=["loop", "1 thread", "4 threads"])
def threads(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture(scope="module")
def started(threads: int, xprocess: XProcess) -> Iterator[Start]:
    """One daemon for all tests of this file with so many threads."""
    options = ["--threads", str(threads)]
    # The tests of what an app does wrong have its traceback logged; whatever else is wrong is not a traceback.
    with shared_daemon(xprocess, f"wsgi-promises-{threads}", *options, app=TARGET, tolerated="^Traceback") as start:
        yield start


@pytest.fixture
def daemon(request: pytest.FixtureRequest, started: Start) -> Daemon:
    request.node.stash[STARTED] = started  # for the report of a failure
    return started.daemons[0]


class Client(Connection):
    """A connection whose requests name the folder of the test."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        super().__init__(daemon.port)
        self.folder = ("X-Folder", str(folder))

    def request(self, path: str, method: str = "GET", body: bytes | None = None) -> Answer:
        self.ask(path, method=method, headers=[self.folder], body=body)
        return self.answer(to=method)


@pytest.fixture
def client(daemon: Daemon, tmp_path: Path) -> Iterator[Client]:
    with Client(daemon, tmp_path) as client:
        yield client


def test_wsgirefs_validator_passes(client: Client, daemon: Daemon) -> None:
    mark = daemon.mark()
    for body in (b"", b"a\nbc", b"x" * LARGE):
        said = client.request("/echo?a=%20b", "POST", body)
        assert (said.status, said.body) == (200, b"written and returned: " + body)
        assert said.header("X-Length") == str(len(body))
    client.send(b"PUT /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\na\nbc\r\n0\r\n\r\n")
    assert client.answer().body == b"written and returned: a\nbc"
    assert client.request("/listed").text == "ok"
    said = client.request("/listed", "HEAD")
    assert (said.status, said.header("Content-Length")) == (200, "2")
    assert client.request("/nothing").status == 204
    assert client.request("/listed").text == "ok", "all on one connection"
    log = daemon.log()[mark:]
    assert "AssertionError" not in log
    assert "garbage collected" not in log, "the validator's word for an iterator that was not closed"


def test_early_hints_come_before_the_response(client: Client, threads: int, tmp_path: Path) -> None:
    assert client.request("/hints").interim == (103, 103)
    if threads:
        client.ask("/hints?wait", headers=[client.folder])
        came = b""
        while b"\r\n\r\n" not in came:
            came = client.read_some()
        assert came.startswith(b"HTTP/1.1 103 ")
        assert b"Link: </style.css>; rel=preload\r\n" in came
        assert came.count(b"HTTP/1.1 ") == 1, "the response waits"
        (tmp_path / "hints-have-come").touch()
        said = client.answer()
        assert (said.interim, said.text) == ((103, 103), "ok")
    client.send(f"GET /hints HTTP/1.0\r\nX-Folder: {tmp_path}\r\n\r\n".encode())
    assert client.answer().interim == (), "HTTP/1.0 knows none"


def test_a_wrapped_file_is_sent_whole_holds_no_thread_and_is_closed(
    client: Client, daemon: Daemon, threads: int, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    block = os.urandom(MB)
    with large.open("wb") as file:
        for _ in range(50):
            file.write(block)
    said = client.request("/file", "HEAD")
    assert (said.status, said.header("Content-Length")) == (200, str(50 * MB))
    slow = [Client(daemon, tmp_path) for _ in range(threads + 2)]
    for connection in slow:
        connection.ask("/file", headers=[connection.folder])
        connection.read_some()
    assert client.request("/listed").text == "ok", "while more files are being sent than there are threads"
    assert slow[0].answer().body == block * 50
    assert slow[0].request("/listed").text == "ok", "the connection stays"
    for connection in slow:
        connection.reset()
    worker = psutil.Process(daemon.workers()[0].pid)
    daemon.until(lambda: str(large) not in [one.path for one in worker.open_files()], 10, "the file is closed")


@pytest.mark.parametrize("end", ["closed", "reset"])
def test_a_client_that_is_gone_stops_the_iteration(client: Client, daemon: Daemon, tmp_path: Path, end: str) -> None:
    leaving = [Client(daemon, tmp_path) for _ in range(4)]
    for number, connection in enumerate(leaving):
        connection.ask(f"/endless?{number}", headers=[connection.folder])
    for number, connection in enumerate(leaving):
        connection.read_some()  # with one thread it begins when the one before has ended
        connection.reset() if end == "reset" else connection.close()
        daemon.until((tmp_path / str(number)).exists, 10, f"the close() of stream {number}")
    assert client.request("/listed").text == "ok"


def test_a_read_behind_the_response_never_looks_whole_and_holds_no_thread(
    client: Client, daemon: Daemon, threads: int, tmp_path: Path
) -> None:
    # On the loop the body is there before the app is called, and the loop must not be made to wait.
    sent = 70_000 if threads else LARGE
    client.send(
        f"POST /late?{'wait' if threads else ''} HTTP/1.1\r\nHost: a\r\nX-Folder: {tmp_path}\r\n"
        f"Content-Length: {LARGE}\r\n\r\n".encode()
        + b"x" * sent
    )
    assert client.answer().text == "ok"
    (tmp_path / "answered").touch()
    daemon.until((tmp_path / "late").exists, 10, "the end of the read")
    outcome = (tmp_path / "late").read_text()
    assert outcome.endswith("the response is complete") if threads else outcome == str(LARGE)
    with Client(daemon, tmp_path) as other:
        assert other.request("/listed").text == "ok"


def test_a_response_is_complete_before_close_returns(client: Client, daemon: Daemon, tmp_path: Path) -> None:
    mark = daemon.mark()
    assert client.request("/lingering").text == "one two"
    (tmp_path / "answered").touch()
    assert client.request("/listed").text == "ok"
    assert "nobody has made" not in daemon.log()[mark:], "the response has waited for close()"


def test_an_app_that_raises_whatever_is_answered_500(client: Client, daemon: Daemon, tmp_path: Path) -> None:
    workers = daemon.worker_pids()
    mark = daemon.mark()
    assert client.request("/leave").status == 500
    daemon.wait_log("RuntimeError: the app raised GeneratorExit", 10, since=mark)
    with Client(daemon, tmp_path) as other:
        assert other.request("/listed").text == "ok"
    assert daemon.worker_pids() == workers
