"""With --proxy-protocol the header says who the client is, in every interface; without one nobody is served."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import struct
from pathlib import Path
from typing import Any

import pytest

from preforkd.workers.scoreboard import Field
from tests.certificates import needs_openssl, trusting
from tests.e2e.client import Answer, Connection, NoAnswerError, ResetError
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, Daemon, free_port, listens, scoreboard
from tests.e2e.test_forwarded import INTERFACES, STRANGER, from_, remotes

APP = APPS / "edge.py"
V1 = b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n"
UNKNOWN = b"PROXY UNKNOWN\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL = SIGNATURE + b"\x20\0\0\0"
_V2 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::9") + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 4712, 443) + b"\x02\0\x0cshop.example" + b"\x05\0\x04id-1" + b"\x04\0\1x"
)  # fmt: skip
V2 = SIGNATURE + b"\x21\x21" + struct.pack("!H", len(_V2)) + _V2


def bound(start: Start, attribute: str, form: str = "auto", *options: str) -> Daemon:
    """A daemon that takes no connection without a header, so that one without is no proof that it is ready."""
    port = free_port()
    bind = ("--bind", f"127.0.0.1:{port}")
    daemon = start("--proxy-protocol", form, *bind, *options, app=f"{APP}:{attribute}", workers=1, port=None)
    daemon._port = port
    return daemon


def told(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.text)
    return found


def opened(port: int, header: bytes) -> Connection:
    connection = Connection(port)
    connection.send(header)
    return connection


@pytest.mark.parallel
@INTERFACES
def test_the_header_says_who_the_client_is(start: Start, attribute: str) -> None:
    daemon = bound(start, attribute)
    with opened(daemon.port, V1) as connection:
        for _ in range(2):
            found = told(connection.get("/a", headers=[("X-Forwarded-For", "198.51.100.7")]))
            assert (found["client"], found["proxied"]) == ("203.0.113.9", [None, ""])
            assert "x-forwarded-for" not in found["noted"], "the client is no trusted proxy"
            if attribute != "Told":
                assert (found["port"], found["server"]) == (4711, ["198.51.100.1", 443])
    with opened(daemon.port, V2) as connection:
        found = told(connection.get("/a"))
        assert (found["client"], found["proxied"]) == ("2001:db8::9", ["shop.example", "id-1"])
    for header in (UNKNOWN, LOCAL):
        with opened(daemon.port, header) as connection:
            assert told(connection.get("/a"))["client"] == "127.0.0.1"
    with Connection(daemon.port) as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = V2 + b"GET /a HTTP/1.1\r\nHost: tests\r\n\r\n"
        for number in range(len(request)):
            connection.send(request[number : number + 1])
        assert told(connection.answer())["client"] == "2001:db8::9"
    daemon.until(lambda: len(remotes(daemon)) >= 6, 10, "the lines of the access log")
    assert remotes(daemon) == ["203.0.113.9", "203.0.113.9", "2001:db8::9", "127.0.0.1", "127.0.0.1", "2001:db8::9"]


@pytest.mark.parallel
@needs_openssl
@INTERFACES
def test_the_header_comes_before_tls_and_once(start: Start, attribute: str, tls_files: Path) -> None:
    pair = ("--certfile", str(tls_files / "good.crt"), "--keyfile", str(tls_files / "good.key"))
    daemon = bound(start, attribute, "auto", *pair)
    context = trusting(tls_files / "authority.pem")
    for header, client in ((V1, "203.0.113.9"), (V2, "2001:db8::9"), (LOCAL, "127.0.0.1")):
        with opened(daemon.port, header) as connection:
            connection.socket = context.wrap_socket(connection.socket, server_hostname="localhost")
            for _ in range(2):
                found = told(connection.get("/a"))
                assert (found["client"], found["scheme"]) == (client, "https")
    with Connection(daemon.port) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(plain.socket, server_hostname="localhost")  # none
    with opened(daemon.port, V1) as connection:
        connection.socket = context.wrap_socket(connection.socket, server_hostname="localhost")
        connection.send(V1)  # within TLS it is no header, but a method that nobody knows
        assert connection.answer().status == 501
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_who_does_not_begin_with_one_is_closed_without_an_answer(start: Start) -> None:
    daemon = bound(start, "asgi", "v2")
    for data in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", V1, b"\x16\x03\x01"):
        with opened(daemon.port, data) as connection, pytest.raises((NoAnswerError, ResetError)):
            connection.answer()
    daemon.wait_log(r"closed a connection \(--proxy-protocol\): no PROXY header of the form v2: it begins with b'GET /")
    with Connection(daemon.port) as connection, pytest.raises((NoAnswerError, ResetError)):
        connection.answer()  # silent: for its 5 seconds
    with opened(daemon.port, V2) as connection:
        assert told(connection.get("/a"))["client"] == "2001:db8::9"
    with Connection(daemon.port):
        assert daemon.stop() == 0, "one whose header has not come does not hold up a stop"


@pytest.mark.parallel
def test_a_stranger_is_closed_and_named(start: Start) -> None:
    daemon = bound(start, "asgi")
    with from_(STRANGER, daemon.port) as connection, pytest.raises((NoAnswerError, ResetError)):
        connection.answer()
    daemon.wait_log(rf"closed a connection \(--proxy-protocol\): {STRANGER} is not among --proxy-allow-from")


@pytest.mark.parallel
def test_a_client_that_is_a_trusted_proxy_may_speak_for_others_and_unix_sockets_work(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "edge.sock"
    daemon = start(
        "--proxy-protocol", "v1", "--proxy-allow-from", "unix:", "--forwarded-allow-ips", "203.0.113.0/24",
        "--bind", f"unix:{path}", app=f"{APP}:asgi", workers=1, port=None,
    )  # fmt: skip
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(
            V1 + b"GET /a HTTP/1.1\r\nHost: tests\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n\r\n"
        )
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["client"] == "192.0.2.1"
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_a_header_that_is_on_its_way_when_a_stop_begins_is_waited_for(start: Start) -> None:
    daemon = bound(start, "asgi")
    with opened(daemon.port, V2[:20]) as connection:
        daemon.until(lambda: held(daemon) == 1, 10, "the connection in the worker")
        daemon.signal(signal.SIGTERM)
        daemon.until(lambda: not listens(daemon.port), 10, "the end of listening")
        connection.send(V2[20:])
        assert told(connection.get("/a"))["client"] == "2001:db8::9"
    assert daemon.wait_exit() == 0


def held(daemon: Daemon) -> int:
    with scoreboard(daemon) as board:
        return int(board.row(0)[Field.CONNECTIONS])
