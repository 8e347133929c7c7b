"""The scope of an ASGI request says to the letter what the client sent."""

from __future__ import annotations

import ast
import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from preforkd.workers.gateways.asgi import AsgiOptions
from preforkd.workers.gateways.asgi.scope import split_target
from tests.e2e.client import Connection
from tests.workers.gateways.asgi.serving import Receive, Scope, Send, body, serve, start, text


@text
async def tell(scope: Scope, receive: Receive, send: Send) -> dict[str, Any]:
    shown = {key: value for key, value in scope.items() if key != "extensions"}
    assert isinstance(shown["preforkd.draining"], asyncio.Event)
    return {**shown, "preforkd.draining": "an event", "extensions": sorted(scope["extensions"])}


def told(answer_text: str) -> dict[str, Any]:
    scope: dict[str, Any] = ast.literal_eval(answer_text)
    return scope


def test_the_scope_is_complete() -> None:
    with serve(tell) as server, server.connect() as connection:
        client = connection.socket.getsockname()
        scope = told(connection.get("/a/b?x=1&y=%20", headers=[("X-One", "1"), ("x-one", " 2 ")]).text)
        assert scope == {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/a/b",
            "raw_path": b"/a/b",
            "query_string": b"x=1&y=%20",
            "root_path": "",
            "headers": [(b"host", b"tests"), (b"x-one", b"1"), (b"x-one", b"2")],
            "client": client,
            "server": ("127.0.0.1", server.port),
            "state": {},
            "preforkd.draining": "an event",
            "extensions": [
                "http.response.early_hint", "http.response.pathsend", "http.response.trailers", "preforkd.draining"
            ],
        }  # fmt: skip


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        ("/", "/", b"/", b""),
        ("/?", "/", b"/", b""),
        ("/a%20b/%C3%A9%2F?q=%20?", "/a b/é//"[:-1], b"/a%20b/%C3%A9%2F", b"q=%20?"),
        ("/%FF", "/\N{REPLACEMENT CHARACTER}", b"/%FF", b""),
        ("http://tests/abs?x", "/abs", b"/abs", b"x"),
        ("http://tests", "/", b"/", b""),
        ("HTTP://tests?x=1", "/", b"/", b"x=1"),
        ("//double//", "//double//", b"//double//", b""),
    ],
)
def test_path_raw_path_and_query_of_every_target(target: str, path: str, raw_path: bytes, query: bytes) -> None:
    with serve(tell) as server:
        scope = told(server.get(target).text)
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, raw_path, query)


def test_options_asterisk_keeps_its_target() -> None:
    assert split_target("*") == ("*", "")


def test_a_root_path_is_in_the_path_too() -> None:
    with serve(tell, AsgiOptions(root_path="/api")) as server:
        scope = told(server.get("/items%20?x").text)
        assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/api", "/api/items ", b"/api/items%20")


def test_a_request_for_the_server_as_a_whole_is_for_no_path_below_the_root_path() -> None:
    with serve(tell, AsgiOptions(root_path="/api")) as server, server.connect() as connection:
        for _ in range(2):
            connection.ask("*", method="OPTIONS")
            scope = told(connection.answer().text)
            assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/api", "*", b"*")


def test_forwarded_headers_are_not_believed() -> None:
    with serve(tell) as server:
        headers = [("X-Forwarded-For", "9.9.9.9"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=9.9.9.9")]
        scope = told(server.get(headers=headers).text)
        assert (scope["client"][0], scope["scheme"]) == ("127.0.0.1", "http")


def test_http_1_0_is_told() -> None:
    with serve(tell) as server, server.connect() as connection:
        connection.send(b"GET / HTTP/1.0\r\n\r\n")
        assert told(connection.answer().text)["http_version"] == "1.0"


def test_header_values_are_the_bytes_of_the_wire() -> None:
    with serve(tell) as server, server.connect() as connection:
        connection.send(b"GET / HTTP/1.1\r\nHost: tests\r\nX-Raw: \xe9\xff\r\n\r\n")
        assert (b"x-raw", b"\xe9\xff") in told(connection.answer().text)["headers"]


def test_what_an_app_changes_in_a_scope_is_not_seen_by_the_next_request() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["kept"] = [1]
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return
        seen.append((dict(scope["state"]), len(scope["headers"]), sorted(scope["extensions"]), dict(scope["asgi"])))
        scope["state"]["mine"] = 1
        scope["headers"].append((b"x", b"y"))
        scope["extensions"]["x"] = {}
        scope["asgi"]["version"] = "9"
        await send(start())
        await send(body(b"ok"))

    with serve(app) as server, server.connect() as connection:
        for _ in range(3):
            assert connection.get().text == "ok"
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0] == {"kept": [1]}


def test_a_unix_socket_has_no_client_address(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    with serve(tell, path=path), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        client.sendall(b"GET / HTTP/1.1\r\nHost: tests\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    scope = told(answer.partition(b"\r\n\r\n")[2].decode())
    assert (scope["client"], scope["server"]) == (None, (path, None))


def test_a_request_by_another_connection_has_its_own_client() -> None:
    with serve(tell) as server, Connection(server.port) as one, Connection(server.port) as other:
        clients = {told(connection.get().text)["client"] for connection in (one, other, one)}
        assert clients == {one.socket.getsockname(), other.socket.getsockname()}
