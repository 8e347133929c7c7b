"""`Server` on every response, of every interface and of our own: as configured, unless the app gives one."""

from __future__ import annotations

from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.e2e.client import Answer, Connection
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS

APPS_OF = {
    "protocol": f"{APPS / 'site.py'}:Site",
    "asgi": f"{APPS / 'asgi_site.py'}:app",
    "wsgi": f"{APPS / 'wsgi_site.py'}:app",
}
OWN = """
async def app(scope, receive, send):
    assert scope["type"] != "lifespan"
    if scope["type"] == "websocket":
        await receive()
        return await send({"type": "websocket.accept" if scope["path"] == "/" else "websocket.close"})
    if scope["path"] == "/fails":
        raise LookupError("a bug")
    own = [(b"server", b"the app's")] if scope["path"] == "/own" else []
    await send({"type": "http.response.start", "status": 200, "headers": own})
    await send({"type": "http.response.body", "body": b"x"})
"""


def refused(port: int) -> Answer:
    with Connection(port) as connection:
        connection.send(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
        return connection.answer()


@pytest.mark.parallel
@pytest.mark.parametrize("interface", APPS_OF)
@pytest.mark.parametrize(("given", "said"), [(None, "preforkd"), ("shop/1.0 (blue)", "shop/1.0 (blue)"), ("off", None)])
def test_every_interface_and_our_own_answers_say_it(
    start: Start, interface: str, given: str | None, said: str | None
) -> None:
    options = [] if given is None else ["--server-header", given]
    daemon = start(
        "--health-path", "/healthz", *options, app=APPS_OF[interface], workers=1, tolerated="Traceback|KeyError"
    )
    with Connection(daemon.port) as connection:
        for path in ("/", "/healthz", "/", "/nowhere"):
            assert connection.get(path).header("Server") == said, path
    answer = refused(daemon.port)
    assert (answer.status, answer.header("Server")) == (400, said)


@pytest.mark.parallel
def test_the_field_of_the_app_wins_and_errors_and_handshakes_say_ours(start: Start, tmp_path: Path) -> None:
    (path := tmp_path / "own.py").write_text(OWN)
    daemon = start("--server-header", "shop", app=f"{path}:app", workers=1, tolerated="Traceback|LookupError")
    with Connection(daemon.port) as connection:
        assert connection.get("/own").header("Server") == "the app's"
        assert connection.get("/").header("Server") == "shop"
        failed = connection.get("/fails")
        assert (failed.status, failed.header("Server")) == (500, "shop")
    with connect(f"ws://127.0.0.1:{daemon.port}/") as client:
        assert client.response is not None
        assert client.response.headers.get_all("Server") == ["shop"]
    with pytest.raises(InvalidStatus) as denied:
        connect(f"ws://127.0.0.1:{daemon.port}/denied").close()
    assert denied.value.response.headers.get_all("Server") == ["shop"]


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "café", " a", ""])
def test_what_is_no_header_value_is_refused(start: Start, value: str) -> None:
    daemon = start("--server-header", value, workers=1, wait=False)
    assert daemon.wait_exit() == 2
    daemon.wait_log(r'error: --server-header on the command line: .* is not a header value: .* or "off" for none$')
