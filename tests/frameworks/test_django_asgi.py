"""Django over ASGI behind the real daemon."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Start
from tests.frameworks import suite

pytestmark = [suite.need("django"), pytest.mark.parallel]
APP = "django_asgi"


def test_get_and_forms_and_json(start: Start) -> None:
    daemon = suite.run(start, APP)
    suite.gets(daemon)
    suite.posts(daemon)


def test_an_upload_of_50_mb(start: Start) -> None:
    suite.uploads(suite.run(start, APP))


def test_a_stream(start: Start) -> None:
    suite.streams(suite.run(start, APP))


def test_an_error(start: Start) -> None:
    suite.errors(suite.run(start, APP), logged=False)


def test_a_client_that_leaves(start: Start) -> None:
    daemon = suite.run(start, APP)
    suite.leaves(daemon, "/waits")
    suite.leaves(daemon, "/endless")
