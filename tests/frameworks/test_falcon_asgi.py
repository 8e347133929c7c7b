"""Falcon over ASGI behind the real daemon."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Start
from tests.frameworks import suite

pytestmark = [suite.need("falcon"), pytest.mark.parallel]
APP = "falcon_asgi"


def test_get_and_forms_and_json(start: Start) -> None:
    daemon = suite.run(start, APP)
    suite.gets(daemon)
    suite.posts(daemon)


def test_an_upload_of_50_mb(start: Start) -> None:
    suite.uploads(suite.run(start, APP))


def test_a_stream(start: Start) -> None:
    suite.streams(suite.run(start, APP))


def test_an_error(start: Start) -> None:
    suite.errors(suite.run(start, APP, tolerated="Traceback"), logged=False)


def test_a_websocket(start: Start) -> None:
    daemon = suite.run(start, APP)
    suite.echoes(daemon)
    suite.told(daemon, "websocket")


def test_websockets_that_are_refused(start: Start) -> None:
    suite.refuses(suite.run(start, APP), {"/closed": 403, "/nowhere": 403, "/forbidden": 403})


def test_a_client_that_leaves_a_stream(start: Start) -> None:
    suite.leaves(suite.run(start, APP), "/endless")
