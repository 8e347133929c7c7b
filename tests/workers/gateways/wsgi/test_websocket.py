"""What asks for a WebSocket is refused before a WSGI app sees it, and nothing else is."""

from __future__ import annotations

import logging

import pytest

from preforkd.workers.gateways.wsgi import websocket as wsgi_websocket
from preforkd.workers.gateways.wsgi.websocket import refuse_websocket
from preforkd.workers.http.errors import HttpProcessingError
from tests.e2e.client import HANDSHAKE
from tests.workers.gateways.wsgi.serving import MODES, Environ, answer, serve

LOGGER = logging.getLogger("tests")
ASKS: Environ = {
    "REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "PATH_INFO": "/socket.io/", "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
}  # fmt: skip


@pytest.mark.parametrize(
    "change", [{}, {"HTTP_UPGRADE": "h2c, WebSocket"}, {"HTTP_CONNECTION": "keep-alive, upgrade"}], ids=str
)
def test_who_asks_for_a_websocket_is_refused(change: Environ) -> None:
    with pytest.raises(HttpProcessingError) as raised:
        refuse_websocket(ASKS | change, LOGGER)
    assert raised.value.code == 501


@pytest.mark.parametrize(
    "change",
    [
        {"REQUEST_METHOD": "POST"}, {"SERVER_PROTOCOL": "HTTP/1.0"}, {"HTTP_UPGRADE": "h2c"},
        {"HTTP_CONNECTION": "keep-alive"}, {"HTTP_UPGRADE": "websockets"},
    ],
    ids=str,
)  # fmt: skip
def test_who_does_not_is_not(change: Environ) -> None:
    refuse_websocket(ASKS | change, LOGGER)
    environ = ASKS | change
    environ.pop("HTTP_CONNECTION")
    refuse_websocket(environ, LOGGER)


@pytest.mark.parametrize("threads", MODES.values(), ids=MODES)
def test_it_is_said_once(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsgi_websocket, "_told", set())
    called: list[str] = []

    def body(environ: Environ) -> str:
        called.append(environ["PATH_INFO"])
        return "served"

    with serve(answer(body), threads) as served:
        for fields in (HANDSHAKE, HANDSHAKE[:2], HANDSHAKE):
            with served.connect() as connection:
                connection.ask("/ws", headers=fields)
                reply = connection.answer()
                assert (reply.status, reply.closes) == (501, True)
        with served.connect() as connection:
            assert connection.get("/page", headers=[("Connection", "upgrade"), ("Upgrade", "h2c")]).text == "served"
        assert [line.partition(":")[0] for line in served.log] == ["WebSocket is not served for WSGI apps"]
    assert called == ["/page"]
