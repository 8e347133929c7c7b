"""Django, as released, on the daemon: in threads and on the loop."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, Daemon
from tests.frameworks import wsgi_promises

pytest.importorskip("django", reason="Django is not installed: pip install django")

pytestmark = pytest.mark.parallel

FILE = APPS / "frameworks" / "django_wsgi_app.py"


@pytest.fixture(params=["2", "0"], ids=["threads", "loop"])
def daemon(request: pytest.FixtureRequest, start: Start) -> Daemon:
    tolerated = "Traceback|Exception on|ClientDisconnected|InputError|UnreadablePostError"  # of the requests that fail
    return start("--threads", request.param, app=f"{FILE}:app", workers=1, tolerated=tolerated)


def test_get_forms_and_json(daemon: Daemon) -> None:
    wsgi_promises.answers_get_form_and_json(daemon)


def test_an_upload_of_50_mb(daemon: Daemon) -> None:
    wsgi_promises.takes_an_upload_of_50_mb(daemon, chunked=False)


def test_streams(daemon: Daemon) -> None:
    wsgi_promises.streams(daemon)


def test_files(daemon: Daemon) -> None:
    wsgi_promises.sends_files(daemon, FILE)


def test_clients_that_leave(daemon: Daemon) -> None:
    wsgi_promises.survives_clients_that_leave(daemon)


def test_errors(daemon: Daemon) -> None:
    wsgi_promises.answers_errors(daemon)
