"""A WebSocket of an ASGI app, to the letter of RFC 6455 and of the ASGI message format."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from preforkd.workers.gateways import websocket_closing
from preforkd.workers.gateways.asgi import AsgiOptions
from preforkd.workers.gateways.websocket_reader import MessageReader
from preforkd.workers.http.connections import connections_of
from tests.e2e.client import HANDSHAKE
from tests.workers.gateways.serving import App, Receive, Scope, Send, Served, body, http, serve, start


class Echo:
    """Sends back what comes; keeps what it has received."""

    def __init__(self, **accept: Any) -> None:
        self.accept = accept
        self.scopes: list[Scope] = []
        self.events: list[dict[str, Any]] = []
        self.raised: list[BaseException] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket", scope["type"]
        self.scopes.append(scope)
        self.events.append(await receive())
        await send({"type": "websocket.accept", **self.accept})
        try:
            while True:
                event = await receive()
                self.events.append(event)
                if event["type"] == "websocket.disconnect":
                    return
                await send({"type": "websocket.send", "text": event["text"], "bytes": event["bytes"]})
        except BaseException as exc:
            self.raised.append(exc)
            raise

    @property
    def end(self) -> tuple[int, str]:
        """Code and reason of the last event."""
        return self.events[-1]["code"], self.events[-1]["reason"]


@contextlib.contextmanager
def client(server: Served, path: str = "/", **options: Any) -> Iterator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{server.port}{path}", close_timeout=2, **options) as connection:
        yield connection


def ended(server: Served, app: Echo) -> tuple[int, str]:
    server.until(lambda: bool(app.events) and app.events[-1]["type"] == "websocket.disconnect", "the app is told")
    return app.end


# The opening handshake


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


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_go_both_ways(compression: str | None, loop: str) -> None:
    app = Echo()
    with serve(app, loop=loop) as server, client(server, compression=compression, max_size=None) as connection:
        for message in ("", "hello", "é" * 100_000, b"", b"\x00\xff", bytes(1_000_000)):
            connection.send(message)
            assert connection.recv(5) == message
        for size in (1, 125, 126, 127, 65535, 65536):  # the borders of the three ways to write a length
            for sized in ("x" * size, bytes(size)):
                connection.send(sized)
                assert connection.recv(5) == sized
        connection.send(["frag", "men", "", "ts"])
        assert connection.recv(5) == "fragments"
        assert bool(connection.protocol.extensions) == bool(compression)
        connection.close(1000, "bye")
        assert ended(server, app) == (1000, "bye")
        assert not server.log
        server.until(lambda: not server.gateway.websockets, "nothing is left")


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
    from preforkd.workers.gateways import websocket_handshake

    monkeypatch.setitem(sys.modules, "preforkd.workers.gateways.websocket", None)
    monkeypatch.setattr(websocket_handshake, "_told", set())
    with serve(Echo()) as server:
        for _ in range(2):
            assert server.get(headers=HANDSHAKE).status == 501
        assert [line for line in server.log if "pip install" in line] == server.log
        assert len(server.log) == 1


def test_frames_behind_the_handshake_are_not_lost() -> None:
    with serve(Echo()) as server, server.connect() as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE)
        frame = Frame(Opcode.TEXT, b"early").serialize(mask=True)
        connection.send(f"GET / HTTP/1.1\r\nHost: t\r\n{head}\r\n".encode() + frame)
        data = b""
        while b"early" not in data:
            data += connection.socket.recv(1000)
        assert data.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")


# Denials


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


@pytest.mark.parametrize("messages", [[], [{"type": "websocket.send", "text": "x"}], [{"type": "http.response.start"}]])
def test_an_app_that_does_not_answer_the_handshake_is_500(messages: list[dict[str, Any]]) -> None:
    with serve(deny(*messages)) as server:
        assert server.get(headers=HANDSHAKE).status == 500
        assert server.log


# The end


@pytest.mark.parametrize(
    ("code", "reason", "received"),
    [(1000, "", (1000, "")), (3999, "é" * 61, (3999, "é" * 61)), (1001, "going", (1001, "going"))],
)
def test_a_close_of_the_client_is_told_with_code_and_reason(code: int, reason: str, received: Any) -> None:
    app = Echo()
    with serve(app) as server:
        with client(server) as connection:
            connection.close(code, reason)
            assert connection.close_code == code
        assert ended(server, app) == received


def test_a_close_without_a_code_is_1005_and_no_close_is_1006() -> None:
    app = Echo()
    with serve(app) as server:
        with client(server) as connection:
            connection.socket.sendall(Frame(Opcode.CLOSE, b"").serialize(mask=True))
            assert ended(server, app) == (1005, "")
        app.events.clear()
        with client(server) as connection:
            connection.socket.shutdown(2)
            assert ended(server, app) == (1006, "")
        assert not server.log


def test_messages_before_a_close_are_all_received() -> None:
    app = Echo()
    with serve(app) as server:
        with client(server) as connection:
            frames = [Frame(Opcode.TEXT, b"%d" % number) for number in range(50)] + [Frame(Opcode.CLOSE, b"")]
            connection.socket.sendall(b"".join(frame.serialize(mask=True) for frame in frames))
            server.until(lambda: len(app.events) >= 2 and not server.gateway.websockets, "all has come")
        received = [event["text"] for event in app.events if event["type"] == "websocket.receive"]
        assert received == [str(number) for number in range(len(received))]
        assert received


@pytest.mark.parametrize(
    ("message", "closed"),
    [
        ({}, (1000, "")), ({"code": 4000, "reason": "enough"}, (4000, "enough")),
        ({"code": None, "reason": None}, (1000, "")),
    ],
)  # fmt: skip
def test_a_close_of_the_app_reaches_the_client(message: dict[str, Any], closed: tuple[int, str]) -> None:
    events: list[Any] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", **message})
        events.append(await receive())
        with pytest.raises(RuntimeError):
            await send({"type": "websocket.send", "text": "late"})
        with pytest.raises(RuntimeError):
            await send({"type": "websocket.close"})

    with serve(app) as server, client(server) as connection:
        with pytest.raises(ConnectionClosed):
            connection.recv(5)
        assert (connection.close_code, connection.close_reason) == closed
        server.until(lambda: bool(events), "the app is told")
        assert (events[0]["type"], events[0]["code"]) == ("websocket.disconnect", closed[0])
        assert not server.log


@pytest.mark.parametrize("data", [bytearray(b"ab"), memoryview(b"ab"), b"ab"])
def test_whatever_holds_bytes_is_sent(data: Any) -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": data})

    with serve(app) as server, client(server) as connection:
        assert connection.recv(5) == b"ab"


@pytest.mark.parametrize(
    "message",
    [{"code": "1000"}, {"reason": b"x"}, {"code": 1005}, {"code": 1006}, {"code": 99}, {"reason": "x" * 124}],
)
def test_a_close_that_must_not_be_sent_is_the_apps_error(message: dict[str, Any]) -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", **message})

    with serve(app) as server, client(server) as connection:
        with pytest.raises(ConnectionClosed):
            connection.recv(5)
        assert connection.close_code == 1011
        assert "Error in the app" in server.log[0]


def test_an_app_that_raises_closes_with_1011_and_one_that_returns_with_1000() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/raise":
            raise LookupError("a bug")

    with serve(app) as server:
        for path, code in (("/", 1000), ("/raise", 1011)):
            with client(server, path) as connection:
                with pytest.raises(ConnectionClosed):
                    connection.recv(5)
                assert connection.close_code == code
        assert [line for line in server.log if "LookupError" in line] == server.log


@pytest.mark.parametrize("end", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), None])
def test_an_app_that_exits_or_is_cancelled_leaves_no_websocket_open(end: BaseException | None) -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/accepted":
            await send({"type": "websocket.accept"})
        await asyncio.sleep(0)
        if end is not None:
            raise end
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    with serve(app) as server:
        with client(server, "/accepted") as connection:
            with pytest.raises(ConnectionClosed):
                connection.recv(5)
            assert connection.close_code == 1011
        assert [line for line in server.log if "Error in the app for the WebSocket" in line] == server.log
        assert server.log
        if end is not None:
            assert server.get(headers=HANDSHAKE).status == 500
        assert server.get("/accepted", headers=HANDSHAKE[:1]).status == 500, "the worker goes on"


def test_an_app_that_is_cancelled_with_its_connection_is_no_error() -> None:
    app = Echo()
    with serve(app) as server, client(server):
        server.until(lambda: bool(server.gateway.websockets), "it is open")
        (one,) = server.connections
        server.call(one.cancel_slow_request)
        server.until(lambda: [type(exc) for exc in app.raised] == [asyncio.CancelledError], "the app is cancelled")
        assert not server.log


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (Frame(Opcode.TEXT, b"\xff\xfe").serialize(mask=True), 1007),
        (Frame(Opcode.TEXT, b"not masked").serialize(mask=False), 1002),
        (Frame(Opcode.CONT, b"of nothing").serialize(mask=True), 1002),
        (b"\xf1\x80\0\0\0\0", 1002),
        (Frame(Opcode.TEXT, b"a", fin=False).serialize(mask=True)
         + Frame(Opcode.TEXT, b"b").serialize(mask=True), 1002),
        (Frame(Opcode.BINARY, bytes(2000)).serialize(mask=True), 1009),
        (Frame(Opcode.BINARY, bytes(600), fin=False).serialize(mask=True)
         + Frame(Opcode.CONT, bytes(600)).serialize(mask=True), 1009),
        (Frame(Opcode.CLOSE, b"\x03").serialize(mask=True), 1002),
        (Frame(Opcode.CLOSE, b"\x03\xed").serialize(mask=True), 1002),
    ],
)  # fmt: skip
def test_what_breaks_the_protocol_is_closed_with_its_code(data: bytes, code: int) -> None:
    app = Echo()
    with serve(app, AsgiOptions(limit_websocket_message=1000)) as server:
        with client(server, compression=None) as connection:
            connection.socket.sendall(data)
            with pytest.raises(ConnectionClosed):
                connection.recv(5)
            assert connection.close_code == code
        assert ended(server, app)[0] == code
        assert type(app.end[0]) is int, "a plain one"


def test_a_compressed_bomb_is_1009() -> None:
    app = Echo()
    with serve(app, AsgiOptions(limit_websocket_message=100_000)) as server, client(server) as connection:
        connection.send(bytes(10_000_000))
        with pytest.raises(ConnectionClosed):
            connection.recv(5)
        assert connection.close_code == 1009


def test_sending_to_a_client_that_is_gone_raises_an_oserror() -> None:
    raised: list[BaseException] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        try:
            await send({"type": "websocket.send", "text": "late"})
        except OSError as exc:
            raised.append(exc)
            raise

    with serve(app) as server:
        with client(server):
            pass
        server.until(lambda: bool(raised), "the app is told")
        assert not server.log


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


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({}, RuntimeError), ({"text": None, "bytes": None}, RuntimeError), ({"text": "a", "bytes": b"b"}, RuntimeError),
        ({"text": 5}, TypeError), ({"text": b"x"}, TypeError), ({"bytes": 5}, TypeError), ({"bytes": "x"}, TypeError),
        ({"bytes": [1]}, TypeError),
    ],
)  # fmt: skip
def test_a_message_without_one_content_is_the_apps_error(message: dict[str, Any], error: type[Exception]) -> None:
    raised: list[BaseException] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await send({"type": "websocket.send", **message})
        except Exception as exc:  # noqa: BLE001 -- looked at below
            raised.append(exc)
        await send({"type": "websocket.send", "text": "fine"})

    with serve(app) as server, client(server) as connection:
        assert connection.recv(5) == "fine"
        assert isinstance(raised[0], error)
        assert "websocket.send" in str(raised[0])


@pytest.mark.parametrize("way", ["gather", "tasks", "group", "anyio"])
def test_tasks_of_the_app_may_send_in_the_order_in_which_they_are_made(way: str) -> None:
    messages = [{"type": "websocket.send", "text": f"{number}" * 50_000} for number in range(20)]

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if way == "gather":
            await asyncio.gather(*(send(message) for message in messages))
        elif way == "tasks":
            await asyncio.wait([asyncio.ensure_future(send(message)) for message in messages])
        elif way == "group":
            async with asyncio.TaskGroup() as group:
                for message in messages:
                    group.create_task(send(message))  # type: ignore[arg-type]  # a coroutine here
        else:
            async with anyio.create_task_group() as scope_of_anyio:
                for message in messages:
                    scope_of_anyio.start_soon(send, message)  # type: ignore[arg-type]  # as above

    with serve(app) as server, client(server) as connection:
        assert [connection.recv(5) for _ in messages] == [message["text"] for message in messages]
        assert not server.log


# Backpressure and pings


def test_an_app_that_does_not_receive_stops_the_client() -> None:
    go = asyncio.Event()
    count = 0

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal count
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        while (await receive())["type"] != "websocket.disconnect":
            count += 1

    with serve(app) as server, client(server, compression=None) as connection:
        frame = Frame(Opcode.BINARY, bytes(60_000)).serialize(mask=True)
        connection.socket.settimeout(0.5)
        sent, rest = 0, b""
        with contextlib.suppress(TimeoutError):
            while sent < 400:
                rest = rest or frame
                size = connection.socket.send(rest)
                rest = rest[size:]
                sent += not rest
        assert sent < 400, "24 MB are not in memory"
        server.call(go.set)
        connection.socket.settimeout(10)
        connection.socket.sendall(rest)
        server.until(lambda: count == sent + bool(rest), "all messages have come")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_an_app_that_sends_without_end_leaves_the_others_their_turn_and_learns_that_its_client_has_left(
    loop: str,
) -> None:
    raised: list[BaseException] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send(start())
            await send(body(b"my turn"))
            return
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(1000)})
        except OSError as exc:
            raised.append(exc)
            raise

    with serve(app, loop=loop) as server:
        with server.connect() as connection:
            connection.ask(headers=HANDSHAKE)

            def read() -> None:
                with contextlib.suppress(OSError):  # what is on its way when we end is answered by a reset
                    while connection.socket.recv(1 << 20):
                        pass

            reads = threading.Thread(target=read)
            reads.start()
            for _ in range(3):
                assert server.get().text == "my turn"
            connection.socket.shutdown(2)
            reads.join(10)
        server.until(lambda: bool(raised), "the app is told")
        assert not server.log


def test_a_client_that_does_not_receive_stops_the_app() -> None:
    sent = 0

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await receive()
        await send({"type": "websocket.accept"})
        while sent < 1000:
            await send({"type": "websocket.send", "bytes": bytes(60_000)})
            sent += 1

    with serve(app) as server, server.connect() as connection:
        connection.ask(headers=HANDSHAKE)
        seen: list[int] = []

        def held() -> bool:
            seen.append(sent)
            return len(seen) > 50 and len(set(seen[-50:])) == 1

        server.until(held, "the app waits")
        assert sent < 400, "60 MB are not in memory"


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.CONT, Opcode.TEXT])
def test_a_flood_of_small_frames_does_not_keep_the_loop_from_other_connections(
    opcode: Opcode, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = 0
    frames: collections.Counter[int] = collections.Counter()
    take = MessageReader.take

    def count(reader: MessageReader, frame: Frame) -> Any:
        frames[turn] += 1
        return take(reader, frame)

    monkeypatch.setattr(MessageReader, "take", count)
    app = Echo()
    with serve(app, loop=loop) as server, client(server, compression=None) as connection:

        def tick() -> None:
            nonlocal turn
            turn += 1
            server.loop.call_soon(tick)

        server.call(tick)
        flood = Frame(opcode, b"", fin=opcode is not Opcode.CONT).serialize(mask=True) * 15_000
        first, last = Frame(Opcode.TEXT, b"a", fin=False), Frame(Opcode.CONT, b"z")
        if opcode is Opcode.TEXT:
            first, last = Frame(Opcode.TEXT, b"a"), Frame(Opcode.TEXT, b"z")
        threading.Thread(target=lambda: list(connection), daemon=True).start()  # reads what comes back
        connection.socket.sendall(first.serialize(mask=True) + flood + last.serialize(mask=True))
        server.until(lambda: frames.total() == 15_002, "all have come")
        assert max(frames.values()) < 2000, "a turn of uvloop's may have two of ours in it"
        server.until(lambda: str(app.events[-1].get("text")).endswith("z"), "the app has received them")


@pytest.mark.parametrize("size", [0, 1])
def test_a_message_in_many_fragments_takes_no_more_memory_than_in_one(size: int) -> None:
    app = Echo()
    with serve(app) as server, client(server, compression=None, max_size=None) as connection:
        part = Frame(Opcode.CONT, bytes(size), fin=False).serialize(mask=True)
        connection.socket.sendall(Frame(Opcode.BINARY, b"a", fin=False).serialize(mask=True) + part * 50_000)
        (one,) = server.gateway.websockets
        connection.ping(b"behind them").wait(10)
        held = server.call(lambda: sys.getsizeof(one.inbound._reader._fragments))
        assert held < 100_000, "a list of them would be 400 kB, and they as much again"
        connection.socket.sendall(Frame(Opcode.CONT, b"z").serialize(mask=True))
        assert connection.recv(5) == b"a" + bytes(size * 50_000) + b"z"


def test_pings_are_answered() -> None:
    with serve(Echo()) as server, client(server) as connection:
        assert connection.ping("are you there").wait(5)


def test_a_client_that_answers_pings_stays_and_one_that_does_not_is_cut() -> None:
    app = Echo()
    with serve(app, AsgiOptions(websocket_ping=0.05, websocket_ping_timeout=0.1)) as server:
        with client(server) as connection:
            time.sleep(0.4)
            connection.send("still here")
            assert connection.recv(5) == "still here"
        app.events.clear()
        with server.connect() as mute:
            mute.ask(headers=HANDSHAKE)
            assert ended(server, app) == (1011, "keepalive ping timeout")


# Draining


def test_a_drain_closes_with_1012_spread_over_its_first_half() -> None:
    app = Echo()
    with serve(app) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client(server)) for _ in range(8)]
        began = time.monotonic()
        server.call(server.gateway.drain, server.loop.time() + 2.0)
        ends = []
        for connection in clients:
            with pytest.raises(ConnectionClosed):
                connection.recv(5)
            assert (connection.close_code, connection.close_reason) == (1012, "service restart")
        server.until(lambda: not server.gateway.websockets, "all are closed")
        ends.append(time.monotonic() - began)
        assert 0.7 < max(ends) < 1.3, "not at once, and in the first half"
        assert {event["code"] for event in app.events if event["type"] == "websocket.disconnect"} == {1012}
        assert not server.log


def test_what_the_client_has_sent_until_it_knows_of_the_drain_is_received() -> None:
    app = Echo()
    with serve(app) as server, server.connect() as connection:
        connection.ask(headers=HANDSHAKE)
        connection.read_some()
        server.until(lambda: bool(server.gateway.websockets), "it is open")
        server.call(server.gateway.drain, server.loop.time() + 5.0)
        connection.send(Frame(Opcode.TEXT, b"on its way").serialize(mask=True))
        server.until(lambda: any(event.get("text") == "on its way" for event in app.events), "it has come")


def test_a_websocket_that_is_opened_while_the_worker_drains_is_closed_with_1012() -> None:
    with serve(Echo()) as server:
        server.call(server.gateway.drain, server.loop.time() + 5.0)
        with client(server) as connection:
            with pytest.raises(ConnectionClosed):
                connection.recv(5)
            assert connection.close_code == 1012


def test_an_open_websocket_is_no_active_request() -> None:
    with serve(Echo()) as server:
        with client(server) as connection:
            connection.send("x")
            connection.recv(5)
            assert server.call(lambda: connections_of(server.loop).active) == 0
        server.until(lambda: not len(connections_of(server.loop)), "it is closed")
        assert server.call(lambda: connections_of(server.loop).active) == 0


def test_a_client_that_does_not_answer_a_close_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_closing, "CLOSE_TIMEOUT", 0.1)
    with serve(Echo()) as server, server.connect() as mute:
        mute.ask(headers=HANDSHAKE)
        server.until(lambda: bool(server.gateway.websockets), "it is open")
        server.call(server.gateway.drain, server.loop.time() + 5.0)
        server.until(lambda: not len(connections_of(server.loop)), "it is cut")


def test_a_pong_behind_our_close_gives_a_silent_client_no_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_closing, "CLOSE_TIMEOUT_DRAINING", 0.5)
    with serve(Echo(), AsgiOptions(websocket_ping=0.02)) as server, server.connect() as mute:
        mute.ask(headers=HANDSHAKE)
        data = b""
        while (at := data.find(b"\x89\x04")) < 0 or len(data) < at + 6:
            data += mute.socket.recv(1000)
        ping = data[at + 2 : at + 6]
        server.call(server.gateway.drain, server.loop.time() + 5.0)
        while b"service restart" not in data:
            data += mute.socket.recv(1000)
        mute.send(Frame(Opcode.PONG, ping).serialize(mask=True))
        server.until(lambda: not len(connections_of(server.loop)), "it is cut")


@pytest.mark.parametrize("closes", [False, True])
def test_clients_that_do_not_answer_a_close_hold_a_drain_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch, closes: bool
) -> None:
    monkeypatch.setattr(websocket_closing, "CLOSE_TIMEOUT_DRAINING", 0.1)

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        if closes:
            await send({"type": "websocket.close"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    with serve(app) as server, contextlib.ExitStack() as stack:
        for _ in range(3):
            mute = stack.enter_context(server.connect())
            mute.ask(headers=HANDSHAKE)
            mute.read_some()
        server.until(lambda: len(server.gateway.websockets) == 3, "they are open")
        server.call(server.gateway.drain, server.loop.time() + 0.4)
        began = time.monotonic()
        server.until(lambda: not len(connections_of(server.loop)), "they are cut")
        assert time.monotonic() - began < websocket_closing.CLOSE_TIMEOUT / 2


def test_a_client_that_reads_nothing_holds_a_drain_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_closing, "CLOSE_TIMEOUT_DRAINING", 0.1)

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "bytes": bytes(60_000)})

    with serve(app) as server, server.connect() as mute:
        mute.ask(headers=HANDSHAKE)
        open_ones = server.gateway.websockets
        server.until(lambda: any(one.connection.writer.paused for one in open_ones), "the app waits for the client")
        server.call(server.gateway.drain, server.loop.time() + 0.4)
        began = time.monotonic()
        server.until(lambda: not len(connections_of(server.loop)), "it is cut")
        assert time.monotonic() - began < websocket_closing.CLOSE_TIMEOUT / 2
        assert not server.log


def test_a_worker_that_is_resumed_keeps_its_websockets() -> None:
    with serve(Echo()) as server, client(server) as first, client(server) as second:
        first.send("open")
        first.recv(5)
        second.send("open")
        second.recv(5)
        server.call(server.gateway.drain, server.loop.time() + 10.0)
        server.call(server.gateway.resume)
        assert not server.gateway.draining.is_set()
        left = []
        for connection in (first, second):  # at most the one that was told at once is gone
            with contextlib.suppress(ConnectionClosed):
                connection.send("still here?")
                left.append(connection.recv(5))
        assert left
        with client(server) as third:
            third.send("new")
            assert third.recv(5) == "new"


def test_many_small_bombs_are_decoded_only_as_the_app_receives_them() -> None:
    sizes: list[int] = []
    go = asyncio.Event()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        while (message := await receive())["type"] == "websocket.receive":
            sizes.append(len(message["bytes"]))

    with serve(app) as server, client(server) as connection:
        for _ in range(40):
            connection.send(bytes(4_000_000))  # 4 kB on the wire
        (one,) = server.gateway.websockets
        server.until(lambda: one.inbound.queued > 0, "the first has come")
        time.sleep(0.1)
        assert server.call(lambda: one.inbound.queued) < 40_000_000, "not 160 MB"
        server.call(go.set)
        server.until(lambda: sizes == [4_000_000] * 40, "all have come")


def test_what_was_held_back_when_the_client_left_is_still_received() -> None:
    events: list[Any] = []
    go = asyncio.Event()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                events.append(message["code"])
                return
            events.append(message["text"][:2])

    with serve(app) as server:
        with client(server, compression=None) as connection:
            server.until(lambda: bool(server.gateway.websockets), "it is open")
            frames = [Frame(Opcode.TEXT, b"%02d" % number + bytes(20_000)) for number in range(10)]
            close = Frame(Opcode.CLOSE, b"\x0f\xa0bye")
            connection.socket.sendall(b"".join(frame.serialize(mask=True) for frame in [*frames, close]))
            (one,) = server.gateway.websockets
            server.until(lambda: one.inbound.queued > 65536, "some are held back")
        server.call(go.set)
        server.until(lambda: len(events) == 11, "all have come")
        assert events == [f"{number:02d}" for number in range(10)] + [4000]


def test_a_handshake_with_bytes_that_no_field_has_is_refused() -> None:
    with serve(Echo()) as server, server.connect() as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE).encode()
        connection.send(b"GET / HTTP/1.1\r\nHost: t\r\n" + head + b"Sec-WebSocket-Protocol: \xff\xfe\r\n\r\n")
        assert connection.answer().status == 400
