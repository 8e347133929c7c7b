"""FastAPI behind the real daemon."""

from __future__ import annotations

import pytest

from tests.e2e.client import Connection
from tests.e2e.daemon import Daemon
from tests.frameworks import suite

pytestmark = [suite.need("fastapi", "multipart"), pytest.mark.parallel]
FILE = suite.FOLDER / "fastapi_app.py"


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
    refusals = {"/closed": 403, "/nowhere": 403, "/forbidden": 401, "/violating": 403, "/denied": 429}
    suite.refuses(daemon, refusals)


def test_dependencies_validation_and_background_tasks(daemon: Daemon) -> None:
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


def test_a_client_that_leaves_a_stream(daemon: Daemon) -> None:
    suite.leaves(daemon, "/endless")


@pytest.mark.parallel
def test_a_quiet_event_stream_learns_that_its_client_or_its_worker_leaves(daemon: Daemon) -> None:
    suite.ends_events(daemon)
