"""Pings of a WebSocket, in both directions."""

from __future__ import annotations

import time

from preforkd.workers.gateways.asgi import AsgiOptions
from tests.e2e.client import HANDSHAKE
from tests.workers.gateways.asgi.serving import serve
from tests.workers.gateways.websocket.serving import Echo, client, ended


def test_pings_are_answered() -> None:
    with serve(Echo()) as server, client(server) as connection:
        assert connection.ping("are you there").wait(5)


def test_a_client_that_answers_pings_stays_and_one_that_does_not_is_cut() -> None:
    app = Echo()
    with serve(app, AsgiOptions(websocket_ping=0.05, websocket_ping_timeout=0.5)) as server:
        with client(server) as connection:
            time.sleep(1.0)
            connection.send("still here")
            assert connection.recv(5) == "still here"
        app.events.clear()
        with server.connect() as mute:
            mute.ask(headers=HANDSHAKE)
            assert ended(server, app) == (1011, "keepalive ping timeout")
