"""A worker that most of many connections have left gives their memory back."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from preforkd.workers.ebb import MANY
from preforkd.workers.scoreboard import Field
from tests.e2e.client import get
from tests.e2e.conftest import Start
from tests.e2e.daemon import scoreboard

pytestmark = pytest.mark.parallel

APP = """
import gc

COLLECTIONS = []
gc.callbacks.append(lambda phase, info: COLLECTIONS.append((phase, info["generation"])))


def app(environ, start_response):
    body = str(COLLECTIONS.count(("stop", 2))).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def test_memory_is_given_back_when_a_flood_of_connections_has_gone(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "counting.py"
    path.write_text(APP)
    daemon = start(app=f"{path}:app", workers=1)
    with scoreboard(daemon) as board, ExitStack() as clients:
        row = board.row(0)
        for _ in range(MANY):
            clients.enter_context(socket.create_connection(("127.0.0.1", daemon.port), 5))
        daemon.until(lambda: row[Field.CONNECTIONS] >= MANY, 10, "not all connections are accepted")
        beat = row[Field.HEARTBEAT]  # with it the worker looks, and begins anew a quarter of a second later
        daemon.until(lambda: row[Field.HEARTBEAT] > beat + 250_000_000, 10, "no heartbeat")
        before = int(get(daemon.port).text)
    daemon.until(lambda: int(get(daemon.port).text) > before, 10, "no collection of all generations")
