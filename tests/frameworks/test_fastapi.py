"""FastAPI behind the real daemon."""

from __future__ import annotations

import pytest

from tests.e2e.client import Connection
from tests.e2e.conftest import Start
from tests.frameworks import suite

pytestmark = [suite.need("fastapi", "multipart"), pytest.mark.parallel]
APP = "fastapi"


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
    refusals = {"/closed": 403, "/nowhere": 403, "/forbidden": 401, "/violating": 403, "/denied": 429}
    suite.refuses(daemon, refusals)


def test_dependencies_validation_and_background_tasks(start: Start) -> None:
    daemon = suite.run(start, APP)
    with Connection(daemon.port) as connection:
        assert connection.get("/hello").status == 422
        assert connection.get("/openapi.json").status == 200
        assert connection.get("/background").text == "answered"
        assert "worked" not in connection.get("/told").text
    suite.posts(daemon)
    suite.told(daemon, "dependency closed")
    suite.told(daemon, "worked")
    assert daemon.stop() == 0
    daemon.wait_log("^shut down$")


def test_a_client_that_leaves_a_stream(start: Start) -> None:
    suite.leaves(suite.run(start, APP), "/endless")
