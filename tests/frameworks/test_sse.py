"""Event streams of sse-starlette and FastAPI behind the real daemon, also through middleware, and many of them."""

from __future__ import annotations

import json

import pytest

from tests.e2e.client import Connection, get
from tests.e2e.daemon import Daemon
from tests.frameworks import suite

pytestmark = [suite.need("fastapi", "sse_starlette"), pytest.mark.parallel]
FILE = suite.FOLDER / "sse_app.py"
ROUND = 250  # clients at a time; four rounds are a thousand


@pytest.mark.parametrize("path", ["/sse", "/fastapi/events", "/through/sse"])
def test_a_quiet_event_stream_learns_that_its_client_or_its_worker_leaves(daemon: Daemon, path: str) -> None:
    suite.ends_events(daemon, path)


@pytest.mark.parametrize("path", ["/plain", "/sse", "/through/plain"])
def test_a_thousand_clients_that_leave_a_quiet_stream_leave_nothing_behind(daemon: Daemon, path: str) -> None:
    def load() -> dict[str, int]:
        loaded: dict[str, int] = json.loads(get(daemon.port, "/load").text)
        return loaded

    def come_and_leave() -> None:
        connections = [Connection(daemon.port) for _ in range(ROUND)]
        for connection in connections:
            connection.ask(path)
        for connection in connections:
            connection.read_some()
        assert load()["tasks"] > ROUND
        for connection in connections:
            connection.close()
        daemon.until(lambda: load()["tasks"] <= before["tasks"], 10, "the tasks of the streams have ended")

    before = load()
    before["tasks"] += 1  # sse-starlette has one of its own from the first stream on
    come_and_leave()
    warm = load()
    for _ in range(4):
        come_and_leave()
    assert load()["kilobytes"] - warm["kilobytes"] < 4000, "a thousand that stay would take 25,000 or more"
    assert json.loads(get(daemon.port, "/told").text).count("left the events") == 5 * ROUND
    assert " ERROR " not in daemon.log()
