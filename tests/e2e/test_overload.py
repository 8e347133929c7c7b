"""What cannot be served in time is told so at once, and one client does not take the place of all."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from preforkd.workers.scoreboard import Field
from tests.e2e.client import Answer, Connection, NoAnswerError, ResetError
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, Daemon, scoreboard
from tests.e2e.deadline import until
from tests.e2e.test_forwarded import STRANGER, from_
from tests.e2e.test_proxy_protocol import bound

WSGI = f"{APPS / 'wsgi_site.py'}:app"
BLOCKING = """
import time

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/block":
        time.sleep(2.5)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})
"""
GONE = (NoAnswerError, ResetError)


def refused(answer: Answer) -> bool:
    return (answer.status, answer.header("Retry-After"), answer.closes) == (503, "1", True)


@pytest.mark.parallel
def test_a_request_that_waits_too_long_for_a_thread_is_told_503_while_the_thread_is_still_at_work(start: Start) -> None:
    daemon = start("--threads", "1", "--limit-queue-time", "0.5", app=WSGI, workers=1)
    with ExitStack() as stack:
        slow, late, posting, quick = (stack.enter_context(Connection(daemon.port)) for _ in range(4))
        slow.ask("/slow/3")
        with scoreboard(daemon) as board:
            until(lambda: board.row(0)[Field.ACTIVE] == 1, 10, "the first call")
        late.ask()
        posting.ask("/upload", method="POST", body=b"x" * 200_000)
        assert refused(late.answer())
        assert refused(posting.answer())
        assert not slow.is_closed(), "the call that has begun goes on"
        assert slow.answer().status == 200
        assert quick.get().status == 200
    assert daemon.stop() == 0


@pytest.mark.parallel
@pytest.mark.parametrize("interface", ["asgi", "wsgi on the loop"])
def test_a_request_that_waits_too_long_for_its_loop_is_told_503(start: Start, tmp_path: Path, interface: str) -> None:
    (path := tmp_path / "blocking.py").write_text(BLOCKING)
    app, block = (f"{path}:app", "/block") if interface == "asgi" else (WSGI, "/slow/2.5")
    for limit, status in (("0.5", 503), ("10", 200)):
        daemon = start("--threads", "0", "--limit-queue-time", limit, app=app, workers=1, tolerated="Traceback")
        with ExitStack() as stack:
            blocking, kept = (stack.enter_context(Connection(daemon.port)) for _ in range(2))
            assert kept.get().status == 200
            time.sleep(0.6)  # idle for longer than the limit: that is no waiting
            assert kept.get().status == 200
            blocking.ask(block)
            until(partial(is_blocked, daemon), 10, "the loop stands still")
            fresh = [stack.enter_context(Connection(daemon.port)) for _ in range(8)]  # accepted in several turns
            for connection in (kept, *fresh):
                connection.ask()
            assert blocking.answer().status == 200, "what has begun is served"
            assert [connection.answer().status for connection in (kept, *fresh)] == 9 * [status]
        with Connection(daemon.port) as connection:
            assert connection.get().status == 200
        assert daemon.stop() == 0


@pytest.mark.parallel
def test_a_request_of_a_pipeline_waits_for_its_client_s_own_and_is_served(start: Start) -> None:
    daemon = start("--threads", "1", "--limit-queue-time", "0.3", app=WSGI, workers=1)
    with Connection(daemon.port) as connection:
        connection.ask("/slow/1")
        connection.ask()
        assert [connection.answer().status for _ in range(2)] == [200, 200]


def is_blocked(daemon: Daemon) -> bool:
    """Whether the loop of the worker stands still: a heartbeat is due every quarter of a second."""
    with scoreboard(daemon) as board:
        return time.monotonic() - int(board.row(0)[Field.HEARTBEAT]) / 1e9 > 0.3


def held(daemon: Daemon, *hosts: str, stack: ExitStack) -> list[Connection]:
    """Connections that were served once, from these addresses."""
    connections = [stack.enter_context(from_(host, daemon.port)) for host in hosts]
    assert [connection.get().status for connection in connections] == [200] * len(hosts)
    return connections


@pytest.mark.parallel
def test_a_client_has_no_more_connections_than_it_may_and_others_do_not_notice(start: Start) -> None:
    daemon = start("--limit-per-client", "2", workers=1)
    with ExitStack() as stack:
        first, _ = held(daemon, STRANGER, STRANGER, stack=stack)
        for _ in range(2):
            with from_(STRANGER, daemon.port) as connection, pytest.raises(GONE):
                connection.answer()
        daemon.wait_log(rf"{STRANGER} holds 2 connections, all that --limit-per-client allows: closed one")
        held(daemon, "127.0.0.3", *["127.0.0.1"] * 4, stack=stack)
        first.close()
        until(lambda: served(daemon, STRANGER), 10, "room for another one")
    assert daemon.stop() == 0


def served(daemon: Daemon, host: str) -> bool:
    with from_(host, daemon.port) as connection:
        try:
            return connection.get().status == 200
        except GONE:
            return False


@pytest.mark.parallel
def test_behind_a_proxy_the_client_of_the_header_is_counted(start: Start) -> None:
    daemon = bound(start, "asgi", "v1", "--limit-per-client", "2")
    with ExitStack() as stack:
        for client, statuses in (
            (b"TCP4 203.0.113.9 10.0.0.1 1 1", [200, 200, 0]),
            (b"TCP4 203.0.113.10 10.0.0.1 1 1", [200, 200, 0]),
            (b"TCP6 2001:db8::1 ::1 1 1", [200]), (b"TCP6 2001:db8::2 ::1 1 1", [200, 0]),
            (b"TCP6 2001:db8:0:1::1 ::1 1 1", [200, 200, 0]),
            (b"UNKNOWN", [200] * 4),
        ):  # fmt: skip
            found = []
            for _ in statuses:
                connection = stack.enter_context(Connection(daemon.port))
                connection.send(b"PROXY " + client + b"\r\n")
                try:
                    found.append(connection.get().status)
                except GONE:
                    found.append(0)
            assert found == statuses, client
    assert daemon.stop() == 0
