"""Behind proxies: what trusted ones say is the truth in every interface, what others say is not there."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.e2e.client import Connection
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, Daemon

APP = APPS / "edge.py"
INTERFACES = pytest.mark.parametrize("attribute", ["Told", "asgi", "wsgi"])
STRANGER = "127.0.0.2"
CHAIN = (
    ("X-Forwarded-For", "127.0.0.1, 203.0.113.9:4711, 10.1.1.1"), ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "shop.example"), ("X-Forwarded-Port", "8443"), ("X-Forwarded-Prefix", "/api"),
    ("X-Real-IP", "203.0.113.9"), ("Forwarded", "for=198.51.100.1"), ("X_Forwarded_For", "198.51.100.2"),
)  # fmt: skip


def from_(host: str, port: int) -> Connection:
    """A connection from another address of the loopback network, which the daemon does not trust."""
    connection = Connection(port)
    connection.socket.close()
    connection.socket = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(host, 0))
    return connection


def told(connection: Connection, fields: Iterable[tuple[str, str]] = (), path: str = "/a") -> dict[str, Any]:
    answer = connection.get(path, headers=fields)
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.text)
    return found


def remotes(daemon: Daemon) -> list[str]:
    """The addresses in the access log, once there are as many lines as answers."""
    return [line.split(" - ")[0] for line in daemon.log().splitlines() if '"GET /' in line]


@pytest.mark.parallel
@INTERFACES
def test_every_interface_says_what_a_trusted_proxy_says(start: Start, attribute: str) -> None:
    daemon = start(
        "--forwarded-allow-ips", "127.0.0.1,10.0.0.0/8", app=f"{APP}:{attribute}", workers=1
    )  # fmt: skip
    with Connection(daemon.port) as connection:
        own = told(connection)
        assert (own["client"], own["scheme"], own["host"], own["root"]) == ("127.0.0.1", "http", "tests", "")
        found = told(connection, CHAIN)
        assert (found["client"], found["scheme"], found["host"], found["root"]) == (
            "203.0.113.9", "https", "shop.example:8443", "/api",
        )  # fmt: skip
        if attribute != "Told":
            assert (found["port"], found["path"], found["server"]) == (4711, "/api/a", ["shop.example", 8443])
        found["noted"].pop("x-request-id", None)
        assert found["noted"] == {
            "x-forwarded-for": "203.0.113.9:4711, 10.1.1.1", "x-forwarded-proto": "https",
            "x-forwarded-host": "shop.example", "x-forwarded-port": "8443", "x-forwarded-prefix": "/api",
            "x-real-ip": "203.0.113.9",
        }  # fmt: skip
        assert told(connection, [("X-Forwarded-For", "unknown")])["client"] == "-"
        assert told(connection)["client"] == "127.0.0.1", "the next request is the proxy's own again"
    daemon.until(lambda: len(remotes(daemon)) >= 4, 10, "the lines of the access log")
    assert remotes(daemon)[-4:] == ["127.0.0.1", "203.0.113.9", "-", "127.0.0.1"]


@pytest.mark.parallel
@INTERFACES
def test_of_strangers_nothing_like_that_is_seen(start: Start, attribute: str) -> None:
    daemon = start(app=f"{APP}:{attribute}", workers=1)
    with from_(STRANGER, daemon.port) as connection:
        for _ in range(2):
            found = told(connection, [*CHAIN, ("X-Forwarded-Anything", "x")])
            assert (found["client"], found["scheme"], found["host"], found["root"]) == (STRANGER, "http", "tests", "")
            assert set(found["noted"]) <= {"x-request-id"}
            assert set(found.get("raw", ())) <= {"x-request-id"}
    daemon.until(lambda: len(remotes(daemon)) >= 2, 10, "the lines of the access log")
    assert set(remotes(daemon)) == {STRANGER}


@pytest.mark.parallel
@INTERFACES
def test_the_form_of_rfc_7239_and_none(start: Start, attribute: str) -> None:
    daemon = start("--forwarded", "rfc7239", app=f"{APP}:{attribute}", workers=1)
    element = 'for="[2001:db8::17]:4711";proto=https;host=shop.example'
    with Connection(daemon.port) as connection:
        found = told(connection, [("Forwarded", f"for=127.0.0.1, {element}"), ("X-Forwarded-For", "198.51.100.1")])
        assert (found["client"], found["scheme"], found["host"]) == ("2001:db8::17", "https", "shop.example")
        found["noted"].pop("x-request-id", None)
        assert found["noted"] == {"forwarded": element}
    daemon = start("--forwarded", "none", app=f"{APP}:{attribute}", workers=1)
    with Connection(daemon.port) as connection:
        found = told(connection, CHAIN)
        assert (found["client"], found["scheme"], found["host"], found["root"]) == ("127.0.0.1", "http", "tests", "")
        assert {"x-forwarded-for", "forwarded", "x-real-ip"} <= set(found["noted"])


@pytest.mark.parallel
@INTERFACES
def test_a_proxy_on_a_unix_socket_is_trusted_where_that_is_said(start: Start, tmp_path: Path, attribute: str) -> None:
    for number, allowed in enumerate(("127.0.0.1", "unix:")):
        path = tmp_path / f"{number}.sock"
        daemon = start("--forwarded-allow-ips", allowed, "--bind", f"unix:{path}", app=f"{APP}:{attribute}", workers=1)
        with Connection(daemon.port) as connection:
            connection.socket.close()
            connection.socket = socket.socket(socket.AF_UNIX)
            connection.socket.connect(str(path))
            found = told(connection, CHAIN)
            trusted = allowed == "unix:"
            assert (found["client"], found["scheme"]) == (("10.1.1.1", "https") if trusted else ("-", "http"))


@pytest.mark.parallel
def test_a_websocket_is_told_the_same(start: Start) -> None:
    daemon = start(app=f"{APP}:asgi", workers=1)
    for fields, scheme, client in ((CHAIN, "wss", "10.1.1.1"), ((), "ws", "127.0.0.1")):
        with connect(f"ws://127.0.0.1:{daemon.port}/ws", additional_headers=dict(fields)) as websocket:
            found = json.loads(websocket.recv(timeout=10))
        assert (found["scheme"], found["client"]) == (scheme, client)


def test_networks_that_are_wrong_or_everybody_are_said_at_the_start(start: Start) -> None:
    daemon = start("--forwarded-allow-ips", "10.0.0.1/8", workers=1, wait=False)
    assert daemon.wait_exit() == 2
    daemon.wait_log(r'error: --forwarded-allow-ips .*"10.0.0.1/8" has bits behind its prefix: write 10.0.0.0/8$')
    daemon = start(workers=1, environment={"FORWARDED_ALLOW_IPS": "*"})
    daemon.wait_log(r"forwarded_allow_ips is \*: whoever can connect can say to be anybody")
