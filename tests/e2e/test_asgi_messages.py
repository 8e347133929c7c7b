"""The messages and extensions of ASGI on the real daemon, which is started once for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from xprocess.xprocess import XProcess  # type: ignore[import-untyped] # pytest-xprocess has no type hints

from tests.e2e.client import HANDSHAKE, Connection, get
from tests.e2e.conftest import shared_daemon
from tests.e2e.daemon import APPS, Daemon

FILE = APPS / "asgi_messages.py"
LIMIT = 100_000


@pytest.fixture(scope="module")
def daemon(xprocess: XProcess) -> Iterator[Daemon]:
    options = ["--limit-websocket-message", str(LIMIT), "--websocket-ping", "1", "--websocket-ping-timeout", "1"]
    with shared_daemon(xprocess, "asgi-messages", *options, app=f"{FILE}:app", tolerated="Traceback") as start:
        yield start.daemons[0]


def websocket(daemon: Daemon, path: str = "/echo", **options: Any) -> ClientConnection:
    client: ClientConnection = connect(f"ws://127.0.0.1:{daemon.port}{path}", close_timeout=3, **options)
    return client


def test_trailers(daemon: Daemon) -> None:
    with Connection(daemon.port) as connection:
        connection.ask("/trailers", headers=[("TE", "trailers"), ("Connection", "close, TE")])
        data = b""
        while part := connection.socket.recv(65536):
            data += part
    assert data.endswith(b"\r\n\r\n6\r\nsummed\r\n3\r\n up\r\n0\r\nx-sum: 42\r\n\r\n")


def test_early_hints(daemon: Daemon) -> None:
    with Connection(daemon.port) as connection:
        connection.ask("/hint")
        assert (
            b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n" in connection.read_some()
        )
        answer = connection.answer()
        assert (answer.interim, answer.text) == ((103,), "hinted")


def test_files_by_path(daemon: Daemon) -> None:
    with Connection(daemon.port) as connection:
        for _ in range(2):
            answer = connection.get("/file")
            assert answer.text == Path(FILE).read_text()
            assert answer.header("Content-Length") == str(FILE.stat().st_size)


@pytest.mark.parametrize("path", ["/descriptor", "/text", "/exit", "/exit-in-a-task"])
def test_mistakes_of_the_app_are_500_and_leave_the_worker_alone(daemon: Daemon, path: str) -> None:
    pid = get(daemon.port, "/pid").text
    with Connection(daemon.port) as other:
        assert other.get("/pid").text == pid
        assert get(daemon.port, path).status == 500
        assert other.get("/pid").text == pid


def test_a_task_of_the_app_that_exits_leaves_the_worker_alone(daemon: Daemon) -> None:
    pid = get(daemon.port, "/pid").text
    mark = daemon.mark()
    with Connection(daemon.port) as other:
        assert other.get("/exit-in-the-background").text == "answered"
        daemon.wait_log("a task raised SystemExit: the worker goes on", since=mark)
        assert other.get("/pid").text == pid
        assert get(daemon.port, "/pid").text == pid


@pytest.mark.parametrize(("path", "status", "text"), [("/denied", 401, "who are you?"), ("/closed", 403, "")])
def test_denials(daemon: Daemon, path: str, status: int, text: str) -> None:
    with pytest.raises(InvalidStatus) as denied:
        websocket(daemon, path)
    response = denied.value.response
    assert (response.status_code, bytes(response.body or b"").decode()) == (status, text)
    assert response.headers.get("www-authenticate") == ("Basic" if status == 401 else None)


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_and_their_compression(daemon: Daemon, compression: str | None) -> None:
    with websocket(daemon, compression=compression) as client:
        assert bool(client.protocol.extensions) == bool(compression)
        for message in ("hello", "é" * 10_000, b"\x00\xff" * 40_000, ""):
            client.send(message)
            assert client.recv(5) == message
        client.close(4000, "enough")
    daemon.wait_log("^websocket 4000 enough$")


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_message_has_the_key_of_its_kind_alone(daemon: Daemon, compression: str | None) -> None:
    with websocket(daemon, "/keys", compression=compression) as client:
        for text in ("hello", ""):
            for message in (text, [text, text]):
                client.send(message)
                assert client.recv(5) == "text type"
            for data in (text.encode(), [text.encode()] * 2):
                client.send(data)
                assert client.recv(5) == "bytes type"


def test_a_message_above_the_limit_is_1009(daemon: Daemon) -> None:
    mark = daemon.mark()
    with websocket(daemon) as client:
        client.send(bytes(LIMIT + 1))
        with pytest.raises(ConnectionClosed):
            client.recv(5)
        assert client.close_code == 1009
    daemon.wait_log("^websocket 1009 ", since=mark)


def test_a_client_that_answers_no_ping_is_cut(daemon: Daemon) -> None:
    mark = daemon.mark()
    with Connection(daemon.port) as mute:
        mute.ask("/echo", headers=HANDSHAKE)
        daemon.wait_log("^websocket 1011 keepalive ping timeout$", since=mark)
        data = b""
        while part := mute.socket.recv(65536):
            data += part
        assert data.endswith(b"\x88\x18\x03\xf3keepalive ping timeout"), "a Close frame, and the end"
