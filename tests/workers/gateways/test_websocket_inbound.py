"""What comes from a WebSocket client: no faster than the app receives it, and nothing of it lost."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import sys
import threading
import time
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from preforkd.workers.gateways.websocket_inbound import Inbound
from preforkd.workers.gateways.websocket_reader import MessageReader
from tests.workers.gateways.serving import Receive, Scope, Send, http, serve
from tests.workers.gateways.websocket_serving import Echo, client


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
@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.CONT, Opcode.TEXT])
def test_a_flood_of_small_frames_does_not_keep_the_loop_from_other_connections(
    opcode: Opcode, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = 0
    frames: collections.Counter[int] = collections.Counter()
    # Text takes the way without the library, a control frame and a fragment the other.
    owner, name = (Inbound, "_put") if opcode is Opcode.TEXT else (MessageReader, "take")
    original = getattr(owner, name)

    def count(*args: Any) -> Any:
        frames[turn] += 1
        return original(*args)

    monkeypatch.setattr(owner, name, count)
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
