"""Starlette behind the real daemon."""

from __future__ import annotations

import time

from tests.e2e.client import Connection
from tests.e2e.conftest import Start
from tests.frameworks import suite

pytestmark = suite.need("starlette", "multipart")
APP = "starlette"


def test_get_and_forms_and_json(start: Start) -> None:
    daemon = suite.run(start, APP)
    suite.gets(daemon)
    suite.posts(daemon)


def test_an_upload_of_50_mb(start: Start) -> None:
    suite.uploads(suite.run(start, APP))


def test_a_stream(start: Start) -> None:
    suite.streams(suite.run(start, APP))


def test_an_error(start: Start) -> None:
    suite.errors(suite.run(start, APP, tolerated="Traceback"))


def test_a_websocket(start: Start) -> None:
    suite.echoes(suite.run(start, APP))


def test_websockets_that_are_refused(start: Start) -> None:
    daemon = suite.run(start, APP)
    suite.refuses(daemon, {"/closed": 403, "/nowhere": 403, "/forbidden": 401, "/denied": 429})


def test_a_client_that_leaves_a_stream_and_one_that_leaves_while_the_app_works(start: Start) -> None:
    daemon = suite.run(start, APP)
    suite.leaves(daemon, "/endless")
    suite.leaves(daemon, "/waits")


def test_a_file_is_sent_whole_by_range_and_not_at_all(start: Start) -> None:
    daemon = suite.run(start, APP)
    with Connection(daemon.port) as connection:
        answer = connection.get("/file")
        assert (answer.body, answer.header("Content-Length")) == (b"0123456789" * 100_000, "1000000")
        part = connection.get("/file", headers=[("Range", "bytes=5-14")])
        assert (part.status, part.body) == (206, b"5678901234")
        connection.ask("/file", method="HEAD")
        assert connection.answer(to="HEAD").header("Content-Length") == "1000000"


def test_a_background_task_delays_nothing_and_is_finished_before_the_worker_ends(start: Start) -> None:
    daemon = suite.run(start, APP)
    with Connection(daemon.port) as connection:
        began = time.monotonic()
        for _ in range(3):
            assert connection.get("/background").text == "answered"
        assert time.monotonic() - began < 0.4, "each of the tasks takes 0.5 s"
        assert "worked" not in connection.get("/told").text
    suite.told(daemon, "worked")


def test_its_lifespan_ends_with_the_worker(start: Start) -> None:
    daemon = suite.run(start, APP)
    suite.echoes(daemon)
    suite.told(daemon, "websocket 1000")
    assert daemon.stop() == 0
    daemon.wait_log("^shut down$")
