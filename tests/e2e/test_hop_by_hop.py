"""An app that sets fields of the connection is served, as by other servers: they are left out, and it is said once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from xprocess.xprocess import XProcess  # type: ignore[import-untyped] # pytest-xprocess has no type hints

from tests.e2e.client import Connection, get
from tests.e2e.conftest import STARTED, Start, shared_daemon
from tests.e2e.daemon import APPS, Daemon

FILE = APPS / "hop_by_hop.py"
MODES = {"asgi": ("asgi_app", "1"), "thread": ("app", "1"), "loop": ("app", "0")}
EVENTS = "data: 1\n\ndata: 2\n\n"


@pytest.fixture(scope="module", params=MODES)
def started(request: pytest.FixtureRequest, xprocess: XProcess) -> Iterator[Start]:
    app, threads = MODES[request.param]
    name = f"hop-by-hop-{request.param}"
    with shared_daemon(xprocess, name, "--threads", threads, app=f"{FILE}:{app}", tolerated="nothing") as start:
        yield start


@pytest.fixture
def daemon(request: pytest.FixtureRequest, started: Start) -> Daemon:
    request.node.stash[STARTED] = started  # for the report of a failure
    return started.daemons[0]


@pytest.mark.parametrize(
    "path",
    [
        "/Connection/keep-alive",
        "/Keep-Alive/timeout=5",
        "/Proxy-Connection/keep-alive",
        "/Transfer-Encoding/chunked",
        "/TE/trailers",
        "/Upgrade/h2c",
    ],
)
def test_it_is_left_out_and_said_once(daemon: Daemon, path: str) -> None:
    name = path.split("/")[1]
    with Connection(daemon.port) as connection:
        for _ in range(3):
            answer = connection.get(path)
            assert (answer.status, answer.text) == (200, EVENTS)
            fields = {key.lower(): value for key, value in answer.headers}
            assert len(fields) == len(answer.headers), "each field once"
            assert (fields.pop("connection"), fields.pop("transfer-encoding")) == ("keep-alive", "chunked")
            assert name.lower() not in fields
    assert daemon.log().lower().count(f"the app sets {name.lower()}:") == 1


def test_a_close_is_kept_to_and_nothing_to_warn_of(daemon: Daemon) -> None:
    with Connection(daemon.port) as connection:
        answer = connection.get("/Connection/close")
        assert (answer.status, answer.text, answer.header("Connection")) == (200, EVENTS, "close")
        connection.expect_close()
    assert ": 'close'" not in daemon.log()


def test_other_values_of_a_name_are_not_said_again(daemon: Daemon) -> None:
    for number in range(3):
        assert get(daemon.port, f"/Keep-Alive/timeout={number}").status == 200
    assert daemon.log().lower().count("the app sets keep-alive:") == 1
