"""The opening handshake of a WebSocket: accepted, refused, or never answered."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode

from preforkd.workers.gateways.asgi import AsgiOptions
from preforkd.workers.http.connections import connections_of
from tests.e2e.client import HANDSHAKE
from tests.workers.gateways.asgi.serving import App, Receive, Scope, Send, body, http, serve, start
from tests.workers.gateways.websocket.serving import Echo, client

# Accepted


def test_the_scope_is_complete() -> None:
    app = Echo()
    with serve(app, AsgiOptions(root_path="/api")) as server:
        with client(server, "/a%20b?x=1", subprotocols=["one", "two"], additional_headers={"X-A": "b"}) as connection:
            connection.send("hi")
            connection.recv()
        (scope,) = app.scopes
        assert {key: scope[key] for key in ("type", "scheme", "path", "raw_path", "query_string", "root_path")} == {
            "type": "websocket",
            "scheme": "ws",
            "path": "/api/a b",
            "raw_path": b"/api/a%20b",
            "query_string": b"x=1",
            "root_path": "/api",
        }
        assert "method" not in scope
        assert (scope["http_version"], scope["subprotocols"]) == ("1.1", ["one", "two"])
        assert (b"x-a", b"b") in scope["headers"]
        assert sorted(scope["extensions"]) == ["preforkd.draining", "websocket.http.response"]
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
        assert (scope["client"][0], scope["server"][1], scope["state"]) == ("127.0.0.1", server.port, {})


def test_compression_can_be_switched_off() -> None:
    with serve(Echo(), AsgiOptions(websocket_compression=False)) as server, client(server) as connection:
        assert not connection.protocol.extensions


def test_subprotocol_and_headers_of_the_app_are_in_the_answer() -> None:
    app = Echo(subprotocol="two", headers=[(b"x-a", b"b"), (b"set-cookie", b"c=1")])
    with serve(app) as server, client(server, subprotocols=["one", "two"]) as connection:
        assert connection.subprotocol == "two"
        assert connection.response is not None
        assert (connection.response.headers["x-a"], connection.response.headers["set-cookie"]) == ("b", "c=1")
        assert "date" in connection.response.headers


@pytest.mark.parametrize(
    "accept",
    [{"subprotocol": "three"}, {"headers": [(b"sec-websocket-protocol", b"x")]}, {"headers": [(b"upgrade", b"x")]}],
)
def test_an_answer_that_would_break_the_handshake_is_the_apps_error(accept: dict[str, Any]) -> None:
    with serve(Echo(**accept)) as server:
        with pytest.raises(InvalidStatus) as raised:
            client(server, subprotocols=["one"]).__enter__()
        assert raised.value.response.status_code == 500


def test_frames_behind_the_handshake_are_not_lost() -> None:
    with serve(Echo()) as server, server.connect() as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE)
        frame = Frame(Opcode.TEXT, b"early").serialize(mask=True)
        connection.send(f"GET / HTTP/1.1\r\nHost: t\r\n{head}\r\n".encode() + frame)
        data = b""
        while b"early" not in data:
            data += connection.socket.recv(1000)
        assert data.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")


def test_an_app_that_accepts_without_having_received_anything_still_receives_the_connect_first() -> None:
    events: list[Any] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        while not events or events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())

    with serve(app) as server:
        with client(server) as connection:
            assert connection.recv(5) == "hello"
            connection.send("hi")
        server.until(lambda: len(events) == 3, "the app is told of the end")
        assert [event["type"].removeprefix("websocket.") for event in events] == ["connect", "receive", "disconnect"]
        assert not server.log


# Refused by us


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Version": None}, 426),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": "!!!!!!!!!!!!!!!!!!!!!!!!"}, 400),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Content-Length": "3"}, 400),
        ({"Transfer-Encoding": "chunked"}, 400),
    ],
)
def test_a_bad_handshake_is_refused(change: dict[str, str | None], status: int) -> None:
    app = Echo()
    fields = {**dict(HANDSHAKE), **change}
    with serve(app) as server, server.connect() as connection:
        connection.ask(headers=[(name, value) for name, value in fields.items() if value is not None])
        answer = connection.answer()
        assert (answer.status, answer.closes) == (status, True)
        if status == 426:
            assert answer.header("Sec-WebSocket-Version") == "13"
        assert not app.scopes, "the app is not asked"


def test_a_handshake_with_bytes_that_no_field_has_is_refused() -> None:
    with serve(Echo()) as server, server.connect() as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE).encode()
        connection.send(b"GET / HTTP/1.1\r\nHost: t\r\n" + head + b"Sec-WebSocket-Protocol: \xff\xfe\r\n\r\n")
        assert connection.answer().status == 400


def test_an_upgrade_that_does_not_ask_for_a_websocket_is_an_ordinary_request() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(scope["type"].encode()))

    with serve(app) as server, server.connect() as connection:
        assert connection.get(headers=[("Connection", "Upgrade"), ("Upgrade", "h2c")]).text == "http"
        assert connection.get(headers=[("Upgrade", "websocket")]).text == "http"
        connection.send(b"GET / HTTP/1.0\r\nConnection: Upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n")
        assert connection.answer().text == "http"


def test_without_the_library_a_handshake_is_answered_501_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from preforkd.workers.gateways.websocket import handshake as websocket_handshake

    monkeypatch.setitem(sys.modules, "preforkd.workers.gateways.websocket.session", None)
    monkeypatch.setattr(websocket_handshake, "_told", set())
    with serve(Echo()) as server:
        for _ in range(2):
            assert server.get(headers=HANDSHAKE).status == 501
        assert [line for line in server.log if "pip install" in line] == server.log
        assert len(server.log) == 1


# Refused by the app


def deny(*messages: dict[str, Any]) -> App:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send(message)

    return app


def test_a_close_before_accept_is_403() -> None:
    with serve(deny({"type": "websocket.close"})) as server, server.connect() as connection:
        connection.ask(headers=HANDSHAKE)
        assert connection.answer().status == 403
        connection.expect_close()
        assert not server.log


def test_a_denial_response_is_the_apps_own() -> None:
    app = deny(
        {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-a", b"b")]},
        {"type": "websocket.http.response.body", "body": b"who ", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"are you?"},
    )
    with serve(app) as server, server.connect() as connection:
        connection.ask(headers=HANDSHAKE)
        answer = connection.answer()
        assert (answer.status, answer.text, answer.header("x-a"), answer.closes) == (401, "who are you?", "b", True)
        connection.expect_close()
        assert not server.log


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([{"type": "websocket.close"}], 403),
        (
            [
                {"type": "websocket.http.response.start", "status": 401, "headers": []},
                {"type": "websocket.http.response.body", "body": b"who are you?"},
            ],
            401,
        ),
    ],
)
def test_an_app_may_refuse_without_having_received_anything(messages: list[dict[str, Any]], status: int) -> None:
    events: list[str] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        events.extend([(await receive())["type"], (await receive())["type"]])

    with serve(app) as server, server.connect() as connection:
        connection.ask(headers=HANDSHAKE)
        assert connection.answer().status == status
        connection.expect_close()
        assert not server.log
        assert events == ["websocket.connect", "websocket.disconnect"]


@pytest.mark.parametrize("messages", [[], [{"type": "websocket.send", "text": "x"}], [{"type": "http.response.start"}]])
def test_an_app_that_does_not_answer_the_handshake_is_500(messages: list[dict[str, Any]]) -> None:
    with serve(deny(*messages)) as server:
        assert server.get(headers=HANDSHAKE).status == 500
        assert server.log


# Clients that leave before they have an answer


def test_a_client_that_leaves_before_it_is_accepted_is_a_disconnect() -> None:
    events: list[str] = []
    go = asyncio.Event()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        events.append((await receive())["type"])
        events.append((await receive())["type"])
        await send({"type": "websocket.accept"})

    with serve(app) as server:
        with server.connect() as connection:
            connection.ask(headers=HANDSHAKE)
            server.until(lambda: connections_of(server.loop).active == 1, "the app has begun")
            connection.reset()
        server.until(lambda: len(server.gateway._tasks) == 1, "the connection is gone")
        server.call(go.set)
        server.until(lambda: events == ["websocket.connect", "websocket.disconnect"], "the app is told")
        server.until(lambda: not server.gateway._tasks, "the app has ended")
        assert not server.log


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("reset", [False, True])
def test_an_app_that_waits_before_it_accepts_is_told_at_once_of_a_client_that_leaves(loop: str, reset: bool) -> None:
    events: list[Any] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not events or events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())
        try:
            await send({"type": "websocket.accept"})
        except OSError as exc:
            events.append(exc)

    with serve(app, loop=loop) as server:
        with server.connect() as connection:
            connection.ask(headers=HANDSHAKE)
            server.until(lambda: len(events) == 1, "the app waits")
            if reset:
                connection.reset()
        server.until(lambda: len(events) == 3, "the app is told")
        assert events[1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        server.until(lambda: not len(connections_of(server.loop)), "the connection is closed")
        assert server.call(lambda: connections_of(server.loop).active) == 0
        assert not server.log


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_an_app_that_streams_a_denial_is_told_at_once_of_a_client_that_leaves(loop: str) -> None:
    events: list[Any] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        part = {"type": "websocket.http.response.body", "body": b"no ", "more_body": True}
        await send(part)
        while not events or events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())
        try:
            await send(part)
        except OSError as exc:
            events.append(exc)
            raise

    with serve(app, loop=loop) as server:
        with server.connect() as connection:
            connection.ask(headers=HANDSHAKE)
            connection.read_some()
        server.until(lambda: len(events) == 3, "the app is told")
        server.until(lambda: not len(connections_of(server.loop)), "the connection is closed")
        assert not server.log


# The worker leaves before the app has answered


class WebSocketDisconnect(Exception):  # noqa: N818 -- Starlette's name
    """What Starlette raises of a `websocket.disconnect`."""


@pytest.mark.parametrize("end", ["return", "raise"])
def test_an_app_that_waits_before_it_accepts_is_told_of_a_drain_and_its_client_is_answered_503(end: str) -> None:
    events: list[Any] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not events or events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())
        if end == "raise":
            raise WebSocketDisconnect

    with serve(app) as server, server.connect() as connection:
        connection.ask(headers=HANDSHAKE)
        server.until(lambda: len(events) == 1, "the app waits")
        server.call(server.gateway.drain, server.loop.time() + 60.0)
        answer = connection.answer()
        assert (answer.status, answer.header("Retry-After"), answer.closes) == (503, "1", True)
        connection.expect_close()
        assert events[1] == {"type": "websocket.disconnect", "code": 1012, "reason": "service restart"}
        server.until(lambda: not server.gateway.websockets, "nothing is kept")
        assert not server.log


def test_an_app_that_fails_in_a_drain_for_another_reason_is_an_error() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        raise LookupError("a bug")

    with serve(app) as server, server.connect() as connection:
        connection.ask(headers=HANDSHAKE)
        server.until(lambda: bool(server.gateway.websockets), "the app waits")
        server.call(server.gateway.drain, server.loop.time() + 60.0)
        assert connection.answer().status == 500
        assert "LookupError" in server.log[0]


@pytest.mark.parametrize("stubborn", [False, True])
def test_an_app_that_listens_to_nobody_is_cancelled_before_the_end_of_a_drain_and_its_client_answered(
    stubborn: bool,
) -> None:
    ended: list[str] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            if stubborn:
                await asyncio.sleep(0)
            raise

    with serve(app) as server, server.connect() as connection:
        connection.ask(headers=HANDSHAKE)
        server.until(lambda: bool(server.gateway.websockets), "the app waits")
        server.call(server.gateway.drain, server.loop.time() + 0.5)
        answer = connection.answer()
        assert (answer.status, answer.closes) == (503, True)
        assert ended == ["cancelled"]
        assert not server.log


def test_an_app_that_accepts_in_a_drain_is_closed_with_1012_and_receives_what_was_sent_until_then() -> None:
    events: list[Any] = []
    go = asyncio.Event()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.append(await receive())
        await go.wait()
        await send({"type": "websocket.accept"})
        while events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())

    with serve(app) as server, server.connect() as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE)
        frame = Frame(Opcode.TEXT, b"early").serialize(mask=True)
        connection.send(f"GET / HTTP/1.1\r\nHost: t\r\n{head}\r\n".encode() + frame)
        server.until(lambda: len(events) == 1, "the app waits")
        server.call(server.gateway.drain, server.loop.time() + 60.0)
        server.call(go.set)
        data = b""
        while not data.endswith(b"\x03\xf4service restart"):
            data += connection.socket.recv(1000)
        assert data.startswith(b"HTTP/1.1 101 ")
        connection.send(Frame(Opcode.CLOSE, b"\x03\xf4").serialize(mask=True))
        server.until(lambda: len(events) == 3, "the app is told")
        assert (events[1].get("text"), events[2]["code"]) == ("early", 1012)
        assert not server.log


def test_a_handshake_that_comes_in_a_drain_is_told_too_and_one_that_goes_on_behind_it_is_not() -> None:
    events: list[Any] = []
    go = asyncio.Event()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.append(await receive())
        if scope["path"] == "/slow":
            await go.wait()
            await send({"type": "websocket.accept"})
        events.append(await receive())

    with serve(app) as server, server.connect() as late, server.connect() as slow:
        slow.ask("/slow", headers=HANDSHAKE)
        server.until(lambda: len(events) == 1, "the app waits")
        server.call(server.gateway.drain, server.loop.time() + 0.5)
        late.ask(headers=HANDSHAKE)
        assert late.answer().status == 503
        assert events.pop()["code"] == 1012
        server.call(server.gateway.resume)
        time.sleep(0.6)
        server.call(go.set)
        slow.send(Frame(Opcode.TEXT, b"hello").serialize(mask=True))
        server.until(lambda: len(events) == 3, "it goes on")
        assert events[-1]["text"] == "hello"
        assert not server.log
