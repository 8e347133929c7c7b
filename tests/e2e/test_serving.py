"""`preforkd APP --workers N` serves: many requests, kept connections, closed ones."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.e2e.client import Connection, get
from tests.e2e.conftest import Start
from tests.e2e.load import load

pytestmark = pytest.mark.parallel

REQUESTS, CONNECTIONS = 20_000, 50


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load (nghttp2-client) is not installed")
def test_20000_requests_of_h2load_over_50_connections_have_no_error(start: Start) -> None:
    daemon = start("--no-access-log")
    command = ["h2load", "--h1", "-n", str(REQUESTS), "-c", str(CONNECTIONS), f"http://127.0.0.1:{daemon.port}/"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert f"{REQUESTS} done, {REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout" in said, said
    assert f"{REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx" in said, said


def test_20000_requests_of_our_own_over_50_connections_have_no_error(start: Start) -> None:
    daemon = start("--no-access-log")
    workers = daemon.worker_pids()
    plan = {"clients": CONNECTIONS, "one_shot": 0, "requests": REQUESTS, "pause": 0, "expect": r"1 \d+"}
    with load(daemon.port, **plan) as result:
        pass
    assert (result.total, result.failed, result.reopened) == (REQUESTS, 0, 0), result.describe()
    assert {int(body.split()[1]) for body in result.bodies} == workers, "every worker served"


def test_a_connection_is_kept_when_the_handler_asks_for_it(start: Start) -> None:
    daemon = start()
    with Connection(daemon.port) as connection:
        answers = [connection.get() for _ in range(10)]
    assert len({answer.text for answer in answers}) == 1, "one connection, one worker"
    assert not any(answer.closes for answer in answers)


def test_a_connection_is_closed_when_the_handler_does_not_ask(start: Start) -> None:
    daemon = start()
    with Connection(daemon.port) as connection:
        assert connection.get("/close").closes
        connection.expect_close()


def test_a_client_that_asks_for_close_gets_it(start: Start) -> None:
    daemon = start()
    with Connection(daemon.port) as connection:
        assert connection.get(headers=[("Connection", "close")]).closes
        connection.expect_close()


def test_uploads_and_streams_arrive_whole(start: Start) -> None:
    daemon = start()
    with Connection(daemon.port) as connection:
        connection.ask("/upload", method="POST", body=b"x" * 3_000_000)
        assert connection.answer().text.endswith(" 3000000")
        assert connection.get("/large/3000000").body == b"x" * 3_000_000
        assert re.fullmatch(r"1 \d+\n0\n1\n2\n", connection.get("/chunks/3/0.01").text)


def test_a_bug_in_the_app_is_answered_500_and_logged_with_its_traceback(start: Start) -> None:
    daemon = start(tolerated="Traceback")
    answer = get(daemon.port, "/fail")
    assert (answer.status, answer.closes) == (500, True)
    assert "a bug in the app" not in answer.text, "not for strangers"
    daemon.wait_log(r"RuntimeError: a bug in the app")
    assert get(daemon.port).status == 200
