"""Falcon, as released, on the daemon: in threads and on the loop."""

from __future__ import annotations

import pytest

from tests.e2e.daemon import Daemon
from tests.frameworks import suite, wsgi_promises

pytestmark = [suite.need("falcon"), pytest.mark.parallel]
FILE = suite.FOLDER / "falcon_app.py"


def test_get_forms_and_json(wsgi_daemon: Daemon) -> None:
    wsgi_promises.answers_get_form_and_json(wsgi_daemon, files=False)


def test_options_of_the_server(wsgi_daemon: Daemon) -> None:
    wsgi_promises.knows_no_resource_for_the_whole_server(wsgi_daemon)


def test_an_upload_of_50_mb(wsgi_daemon: Daemon) -> None:
    wsgi_promises.takes_an_upload_of_50_mb(wsgi_daemon)


def test_streams(wsgi_daemon: Daemon) -> None:
    wsgi_promises.streams(wsgi_daemon)


def test_files(wsgi_daemon: Daemon) -> None:
    wsgi_promises.sends_files(wsgi_daemon, FILE)


def test_clients_that_leave(wsgi_daemon: Daemon) -> None:
    wsgi_promises.survives_clients_that_leave(wsgi_daemon)


def test_errors(wsgi_daemon: Daemon) -> None:
    wsgi_promises.answers_errors(wsgi_daemon)
