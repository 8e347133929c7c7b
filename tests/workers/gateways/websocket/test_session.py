"""A WebSocket of an ASGI app, to the letter of RFC 6455 and of the ASGI message format."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Any

import anyio
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from preforkd.workers.http.connections import connections_of
from tests.e2e.client import HANDSHAKE
from tests.workers.gateways.asgi.serving import Receive, Scope, Send, body, http, serve, start
from tests.workers.gateways.websocket.serving import Echo, client, ended

# Messages


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


def test_an_app_that_is_cancelled_with_its_connection_is_no_error() -> None:
    app = Echo()
    with serve(app) as server, client(server):
        server.until(lambda: bool(server.gateway.websockets), "it is open")
        server.call(server.protocol.cancel_slow_request)
        server.until(lambda: [type(exc) for exc in app.raised] == [asyncio.CancelledError], "the app is cancelled")
        assert not server.log


def test_an_open_websocket_is_no_active_request() -> None:
    with serve(Echo()) as server:
        with client(server) as connection:
            connection.send("x")
            connection.recv(5)
            assert server.call(lambda: connections_of(server.loop).active) == 0
        server.until(lambda: not len(connections_of(server.loop)), "it is closed")
        assert server.call(lambda: connections_of(server.loop).active) == 0


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
