"""Starlette behind the real daemon."""

from __future__ import annotations

import time

import pytest

from tests.e2e.client import Connection
from tests.e2e.daemon import Daemon
from tests.frameworks import suite

pytestmark = suite.need("starlette", "multipart")
FILE = suite.FOLDER / "starlette_app.py"


def test_get_and_forms_and_json(daemon: Daemon) -> None:
    suite.gets(daemon)
    suite.posts(daemon)


def test_an_upload_of_50_mb(daemon: Daemon) -> None:
    suite.uploads(daemon)


def test_a_stream(daemon: Daemon) -> None:
    suite.streams(daemon)


def test_an_error(daemon: Daemon) -> None:
    daemon.tolerate("Traceback")
    suite.errors(daemon)


def test_a_websocket(daemon: Daemon) -> None:
    suite.echoes(daemon)


def test_websockets_that_are_refused(daemon: Daemon) -> None:
    suite.refuses(daemon, {"/closed": 403, "/nowhere": 403, "/forbidden": 401, "/denied": 429})


def test_a_client_that_leaves_a_stream_and_one_that_leaves_while_the_app_works(daemon: Daemon) -> None:
    suite.leaves(daemon, "/endless")
    suite.leaves(daemon, "/waits")


def test_a_file_is_sent_whole_by_range_and_not_at_all(daemon: Daemon) -> None:
    with Connection(daemon.port) as connection:
        answer = connection.get("/file")
        assert (answer.body, answer.header("Content-Length")) == (b"0123456789" * 100_000, "1000000")
        part = connection.get("/file", headers=[("Range", "bytes=5-14")])
        assert (part.status, part.body) == (206, b"5678901234")
        connection.ask("/file", method="HEAD")
        assert connection.answer(to="HEAD").header("Content-Length") == "1000000"


def test_a_background_task_delays_nothing_and_is_finished_before_the_worker_ends(daemon: Daemon) -> None:
    with Connection(daemon.port) as connection:
        began = time.monotonic()
        for _ in range(3):
            assert connection.get("/background").text == "answered"
        assert time.monotonic() - began < 0.4, "each of the tasks takes 0.5 s"
        assert "worked" not in connection.get("/told").text
    suite.told(daemon, "worked")


def test_its_lifespan_ends_with_the_worker(daemon: Daemon) -> None:
    suite.echoes(daemon)
    suite.told(daemon, "websocket 1000")
    assert daemon.stop() == 0
    daemon.wait_log("^shut down$")


@pytest.mark.parallel
def test_a_quiet_event_stream_learns_that_its_client_or_its_worker_leaves(daemon: Daemon) -> None:
    suite.ends_events(daemon)
