"""Flask, as released, on the daemon: in threads and on the loop."""

from __future__ import annotations

import signal

import pytest

from tests.e2e.client import Connection, get
from tests.e2e.daemon import Daemon
from tests.frameworks import suite, wsgi_promises

pytestmark = [suite.need("flask"), pytest.mark.parallel]
FILE = suite.FOLDER / "flask_app.py"


def test_get_forms_and_json(wsgi_daemon: Daemon) -> None:
    wsgi_promises.answers_get_form_and_json(wsgi_daemon)


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


@suite.need("asgiref")
def test_coroutines(wsgi_daemon: Daemon) -> None:
    assert get(wsgi_daemon.port, "/coroutine").text == "awaited"


def test_errors(wsgi_daemon: Daemon) -> None:
    wsgi_promises.answers_errors(wsgi_daemon)


def test_an_event_stream_ends_in_order_when_its_worker_leaves(wsgi_daemon: Daemon) -> None:
    with Connection(wsgi_daemon.port, timeout=8) as stream:
        stream.ask("/events")
        stream.read_some()
        wsgi_daemon.signal(signal.SIGTERM)
        assert stream.answer().text.endswith("data: first\n\n")
    assert wsgi_daemon.wait_exit(8) == 0
    wsgi_daemon.wait_log("^/events has ended$")
    assert " ERROR " not in wsgi_daemon.log()
