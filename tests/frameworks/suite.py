"""What every framework has to do behind the real daemon; its app has these routes under tests/apps/frameworks."""

from __future__ import annotations

import importlib.util
import json
import signal
from urllib.parse import urlencode

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.e2e.client import Connection, get
from tests.e2e.daemon import APPS, Daemon

FOLDER = APPS / "frameworks"
UPLOAD = 50_000_000
PIECE = bytes(1_000_000)


def need(*modules: str) -> pytest.MarkDecorator:
    """Skip, and say what to install, when a framework is not there."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    reason = f"{', '.join(missing)} not installed: pip install 'preforkd[frameworks]'"
    return pytest.mark.skipif(bool(missing), reason=reason)


def gets(daemon: Daemon) -> None:
    with Connection(daemon.port) as connection:
        for name in ("a", "b%20c"):
            answer = connection.get(f"/hello?name={name}")
            assert (answer.status, answer.text) == (200, f"hello {name.replace('%20', ' ')}")
        assert connection.get("/nowhere").status == 404
        assert connection.get("/hello?name=again").status == 200, "on the same connection"


def posts(daemon: Daemon) -> None:
    fields = {"name": "café & more", "size": "5"}
    with Connection(daemon.port) as connection:
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        connection.ask("/form", method="POST", headers=[kind], body=urlencode(fields).encode())
        assert json.loads(connection.answer().text) == fields
        item = {"name": "é", "price": 2.5}
        kind = ("Content-Type", "application/json")
        connection.ask("/json", method="POST", headers=[kind], body=json.dumps(item).encode())
        assert json.loads(connection.answer().text)["got"] == item


def uploads(daemon: Daemon) -> None:
    with Connection(daemon.port, timeout=60) as connection:
        connection.ask("/upload", method="POST", headers=[("Content-Length", str(UPLOAD))])
        for _ in range(UPLOAD // len(PIECE)):
            connection.send(PIECE)
        answer = connection.answer()
        assert (answer.status, answer.text) == (200, str(UPLOAD))


def streams(daemon: Daemon) -> None:
    with Connection(daemon.port) as connection:
        for _ in range(2):
            answer = connection.get("/stream")
            assert (answer.text, answer.header("Transfer-Encoding")) == ("0\n1\n2\n3\n4\n", "chunked")


def errors(daemon: Daemon, *, logged: bool = True) -> None:
    """A bug is answered 500. Some frameworks deal with it themselves and log it as their own settings say."""
    answer = get(daemon.port, "/error")
    assert answer.status == 500
    assert "a bug in the app" not in answer.text, "not for strangers"
    if logged:
        daemon.wait_log("LookupError: a bug in the app")
    assert get(daemon.port, "/hello?name=a").status == 200, "it goes on"


def echoes(daemon: Daemon) -> None:
    with connect(f"ws://127.0.0.1:{daemon.port}/echo") as client:
        for message in ("hello", "é" * 10_000, ""):
            client.send(message)
            assert client.recv(5) == message
        client.close(1000)


def refuses(daemon: Daemon, refusals: dict[str, int]) -> None:
    """A WebSocket that the app does not want is answered with the status that it has chosen, and is no error."""
    for path, status in refusals.items():
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://127.0.0.1:{daemon.port}{path}").close()
        assert refused.value.response.status_code == status, path
    assert " ERROR " not in daemon.log()


def leaves(daemon: Daemon, path: str) -> None:
    """A client that leaves is noticed by the app, which says so at /told."""
    with Connection(daemon.port) as connection:
        connection.ask(path)
        if path == "/endless":
            connection.read_some()
        else:
            told(daemon, "waiting")
    told(daemon, "left" if path == "/endless" else "left while the app worked")
    assert " ERROR " not in daemon.log(), "that is no error"


def ends_events(daemon: Daemon, path: str = "/events") -> None:
    """A quiet event stream learns that its client has left, and then another that its worker leaves."""
    with Connection(daemon.port) as connection:
        connection.ask(path)
        connection.read_some()
    told(daemon, "left the events")
    with Connection(daemon.port, timeout=8) as stream:
        stream.ask(path)
        stream.read_some()
        daemon.signal(signal.SIGTERM)
        assert "first" in stream.answer().text, "and a last chunk, else this would have raised"
    assert daemon.wait_exit(8) == 0
    assert " ERROR " not in daemon.log()
    assert "Traceback" not in daemon.log()


def told(daemon: Daemon, event: str) -> None:
    daemon.until(lambda: event in json.loads(get(daemon.port, "/told").text), 5, f"the app says {event!r}")
