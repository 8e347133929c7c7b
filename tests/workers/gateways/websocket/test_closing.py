"""The end of a WebSocket: who has closed it, with what, and how long that may take."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from preforkd.workers.gateways.asgi import AsgiOptions
from preforkd.workers.gateways.websocket import closing as websocket_closing
from preforkd.workers.http.connections import connections_of
from tests.e2e.client import HANDSHAKE
from tests.workers.gateways.asgi.serving import Receive, Scope, Send, http, serve
from tests.workers.gateways.websocket.serving import Echo, client, ended

# By the client


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


# By the app


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


# Not by the client, which was asked to


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
        server.until(lambda: any(one.tunnel.paused for one in open_ones), "the app waits for the client")
        server.call(server.gateway.drain, server.loop.time() + 0.4)
        began = time.monotonic()
        server.until(lambda: not len(connections_of(server.loop)), "it is cut")
        assert time.monotonic() - began < websocket_closing.CLOSE_TIMEOUT / 2
        assert not server.log
