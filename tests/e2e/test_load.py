"""The load client sees and names each way in which a server can fail a request."""

from __future__ import annotations

import socket
import subprocess
import time

import pytest

from tests.e2e import load as names
from tests.e2e.bad_server import CLOSE, KEEP, Behaviour, answering, good, one_more_then, read_request, reset, serving
from tests.e2e.load import Result, load

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
CUT_BODY = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nok"
CUT_HEAD = b"HTTP/1.1 200 OK\r\nConnection: cl"


def stay(connection: socket.socket) -> None:
    """Do nothing until the other side has closed."""
    while connection.recv(65536):
        pass


def run(port: int, **plan: object) -> Result:
    """A load of 40 requests by two clients of either kind."""
    settings = {"clients": 2, "one_shot": 1, "requests": 40, "pause": 0, "expect": "ok", "timeout": 5.0} | plan
    with load(port, **settings) as result:
        pass
    return result


def test_a_good_server_fails_nothing() -> None:
    with serving(good) as port:
        result = run(port)
    assert result.outcomes == {names.OK: 40}
    assert result.bodies == {"ok": 40}
    assert (result.failed, result.failures, result.reopened) == (0, [], 0)


def test_a_load_runs_until_its_block_ends() -> None:
    with serving(good) as port, load(port, clients=2, one_shot=1) as result:
        time.sleep(0.2)  # the length of the load is what is under test
    assert result.failed == 0
    assert 10 < result.total < 200, "2 clients with 5 ms of pause for 0.2 s"


def test_nobody_listening_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert run(port).outcomes == {names.REFUSED: 40}


TWO_LENGTHS = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"
FAILURES = {
    "close after the request": (read_request, names.CLOSED),
    "reset": (answering(b"", reset), names.RESET),
    "reset in the body": (answering(CUT_BODY, reset), names.RESET),
    "cut in the head": (answering(CUT_HEAD), names.TRUNCATED),
    "cut in the body": (answering(CUT_BODY), names.TRUNCATED),
    "no final chunk": (answering(CHUNKED), names.TRUNCATED),
    "no end after the final chunk": (answering(CHUNKED + b"0\r\n"), names.TRUNCATED),
    "a chunk without a size": (answering(CHUNKED.replace(b"2\r", b"z\r")), names.WRONG),
    "a chunk longer than its size": (answering(CHUNKED + b"xx0\r\n\r\n"), names.WRONG),
    "503": (answering(BUSY), names.STATUS),
    "404": (answering(NOT_FOUND), names.STATUS),
    "another body": (answering(CLOSE[:-2] + b"no"), names.WRONG),
    "bytes after the body": (answering(CLOSE + b"more"), names.WRONG),
    "no HTTP": (answering(b"hello\r\n\r\n"), names.WRONG),
    "two lengths": (answering(TWO_LENGTHS), names.WRONG),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_each_failure_on_a_new_connection_has_its_name(failure: str) -> None:
    behaviour, outcome = FAILURES[failure]
    with serving(behaviour) as port:
        result = run(port)
    assert result.outcomes == {outcome: 40}
    assert result.failed == 40 == len(result.failures)


def test_a_close_at_once_fails_every_request() -> None:
    with serving(lambda connection: None) as port:
        result = run(port)
    # The request of a client may meet the close or, when it comes later than that, the reset with which it is refused.
    assert set(result.outcomes) <= {names.CLOSED, names.RESET}
    assert result.failed == 40


@pytest.mark.parametrize("end", [reset, lambda connection: None], ids=["reset", "close"])
def test_a_reused_connection_that_ends_before_the_answer_is_stale(end: Behaviour) -> None:
    with serving(one_more_then(end)) as port:
        result = run(port)
    assert result.outcomes == {names.OK: 30, names.STALE: 10}, result.describe()
    assert all(failure.keep_alive and failure.answers == 1 for failure in result.failures)
    assert {failure.last for failure in result.failures} == {"ok"}


def test_a_reset_in_the_second_answer_is_a_reset_and_not_stale() -> None:
    def half(connection: socket.socket) -> None:
        connection.sendall(CUT_BODY)
        time.sleep(0.02)  # the client reads the half before the reset would destroy it
        reset(connection)

    with serving(one_more_then(half)) as port:
        result = run(port, requests=20)
    assert result.outcomes == {names.OK: 15, names.RESET: 5}, result.describe()


def test_a_close_that_the_client_sees_before_it_sends_is_no_failure() -> None:
    with serving(answering(KEEP)) as port:
        result = run(port, clients=1, one_shot=0, requests=5, pause=0.05)
    assert (dict(result.outcomes), result.reopened) == ({names.OK: 5}, 4)


def test_silence_is_a_timeout() -> None:
    with serving(stay) as port:
        result = run(port, requests=2, timeout=0.2)
    assert result.outcomes == {names.TIMEOUT: 2}
    assert result.slowest >= 0.2


def test_a_connection_that_stays_open_after_its_last_answer_is_a_timeout() -> None:
    with serving(answering(CLOSE, stay)) as port:
        assert run(port, requests=2, timeout=0.2).outcomes == {names.TIMEOUT: 2}


def test_an_answer_that_ignores_the_close_that_was_asked_for_is_wrong() -> None:
    with serving(answering(KEEP)) as port:
        assert run(port, clients=1, requests=1).outcomes == {names.WRONG: 1}


def test_a_load_that_is_over_before_its_start_is_read_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Over(subprocess.Popen[bytes]):
        def __init__(self, *args: object, **settings: object) -> None:
            super().__init__(*args, **settings)  # type: ignore[call-overload]  # whatever it is given
            self.wait(60)

    with serving(good) as port:
        monkeypatch.setattr("tests.e2e.load.subprocess.Popen", Over)
        assert run(port).outcomes == {names.OK: 40}


def test_a_broken_load_is_an_error_and_not_a_light_load() -> None:
    with serving(good) as port, pytest.raises(AssertionError, match="load failed"):
        run(port, expect="(")
