"""Django over ASGI behind the real daemon."""

from __future__ import annotations

import pytest

from tests.e2e.daemon import Daemon
from tests.frameworks import suite

pytestmark = [suite.need("django"), pytest.mark.parallel]
FILE = suite.FOLDER / "django_asgi_app.py"


def test_get_and_forms_and_json(daemon: Daemon) -> None:
    suite.gets(daemon)
    suite.posts(daemon)


def test_an_upload_of_50_mb(daemon: Daemon) -> None:
    suite.uploads(daemon)


def test_a_stream(daemon: Daemon) -> None:
    suite.streams(daemon)


def test_an_error(daemon: Daemon) -> None:
    suite.errors(daemon, logged=False)


def test_a_client_that_leaves(daemon: Daemon) -> None:
    suite.leaves(daemon, "/waits")
    suite.leaves(daemon, "/endless")


@pytest.mark.parallel
def test_a_quiet_event_stream_learns_that_its_client_or_its_worker_leaves(daemon: Daemon) -> None:
    suite.ends_events(daemon)
