"""A request on an idle keep-alive connection that the daemon is about to close is answered, not lost."""

from __future__ import annotations

import signal
import socket
import time
from contextlib import ExitStack

from tests.e2e.client import AnswerError, Connection
from tests.e2e.conftest import Start

CONNECTIONS = 200
STEP = 0.001  # seconds between the requests of two connections
IDLE_GRACE = 0.4
ESTABLISHED = 1  # <netinet/tcp.h>


def state(connection: Connection) -> int:
    """The state of the TCP connection: established, as long as the peer's close has not arrived."""
    return connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def ask_at(connection: Connection, moment: float) -> str:
    """Send a request at that moment; what became of it."""
    while (left := moment - time.monotonic()) > 0:
        time.sleep(left)
    if connection.is_closed():
        return "closed before"
    try:
        connection.ask("/")
        # On one machine the request is with the worker now: a close that has not come by now was not on its way.
        crossed = state(connection) != ESTABLISHED
    except AnswerError:
        return "crossed"
    return "crossed" if crossed else "sent"


def outcome(connection: Connection, sent: str) -> str:
    """The fate of what was sent."""
    if sent != "sent":
        return sent
    try:
        answer = connection.answer()
    except AnswerError as error:
        return f"lost: {error!r}"
    return "answered" if answer.status == 200 and answer.closes else f"wrong: {answer}"


def test_requests_swept_over_the_close_of_a_drain_are_answered(start: Start) -> None:
    daemon = start("--idle-grace", str(IDLE_GRACE))
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(daemon.port)) for _ in range(CONNECTIONS)]
        for connection in connections:
            connection.get()
        daemon.signal(signal.SIGTERM)
        first = time.monotonic() + IDLE_GRACE - CONNECTIONS * STEP / 2
        sent = [ask_at(connection, first + number * STEP) for number, connection in enumerate(connections)]
        fates = [outcome(connection, fate) for connection, fate in zip(connections, sent, strict=True)]
    counts = {fate: fates.count(fate) for fate in fates}
    assert set(counts) <= {"answered", "closed before", "crossed"}, counts
    assert counts["answered"] > 10, f"the sweep began before the close: {counts}"
    assert counts["closed before"] > 10, f"the sweep ended after the close: {counts}"
    assert daemon.wait_exit() == 0


def test_a_connection_that_was_never_used_does_not_delay_a_stop(start: Start) -> None:
    daemon = start()
    with Connection(daemon.port), Connection(daemon.port) as half:
        half.send(b"GET / HT")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_exit(2.5) == 0
