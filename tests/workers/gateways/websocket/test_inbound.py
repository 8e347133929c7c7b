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
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from preforkd.workers.gateways.websocket import inbound as websocket_inbound
from preforkd.workers.gateways.websocket.inbound import Inbound
from preforkd.workers.gateways.websocket.reader import MessageReader
from tests.e2e.client import HANDSHAKE
from tests.workers.gateways.asgi.serving import Receive, Scope, Send, http, serve
from tests.workers.gateways.websocket.serving import Echo, client


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
    # Text takes the short way, a control frame and a fragment that of the reader.
    ways: dict[Opcode, tuple[Any, str]] = {
        Opcode.TEXT: (Inbound, "_put"),
        Opcode.PING: (Inbound, "_take_control"),
        Opcode.CONT: (MessageReader, "_take_data"),
    }
    owner, name = ways[opcode]
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
        if opcode is not Opcode.CONT:
            first, last = Frame(Opcode.TEXT, b"a"), Frame(Opcode.TEXT, b"z")
        threading.Thread(target=lambda: list(connection), daemon=True).start()  # reads what comes back
        connection.socket.sendall(first.serialize(mask=True) + flood + last.serialize(mask=True))
        expected = 15_000 if opcode is Opcode.PING else 15_002
        server.until(lambda: frames.total() >= expected, "all have come")
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


# What stands before a Close, or a fault, in the same read: the app gets it first, and the time to answer it


def burst(*frames: Frame) -> bytes:
    return b"".join(frame.serialize(mask=True) for frame in frames)


HELLO_AND_CLOSE = burst(Frame(Opcode.TEXT, b"hello"), Frame(Opcode.CLOSE, b"\x0f\xa0bye"), Frame(Opcode.TEXT, b"late"))
HELLO_AND_FAULT = burst(Frame(Opcode.TEXT, b"hello"), Frame(Opcode.CONT, b"of nothing"), Frame(Opcode.TEXT, b"late"))


def in_its_own_time(go: asyncio.Event, events: list[Any], *then: dict[str, Any]) -> Any:
    """An app that receives "hello", waits, sends something, and receives to the end."""

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        events.append((await receive())["text"])
        await go.wait()
        try:
            for message in then:
                await send(message)
        except OSError:
            events.append("gone")
        while True:
            message = await receive()
            events.append(message.get("text") or message.get("code"))
            if message["type"] == "websocket.disconnect":
                return

    return app


@pytest.mark.parametrize(("data", "code"), [(HELLO_AND_CLOSE, 4000), (HELLO_AND_FAULT, 1002)])
def test_an_app_that_takes_its_time_may_still_answer(data: bytes, code: int) -> None:
    events: list[Any] = []
    go = asyncio.Event()
    app = in_its_own_time(go, events, {"type": "websocket.send", "text": "an answer"})
    with serve(app) as server, client(server, compression=None) as connection:
        (one,) = server.gateway.websockets
        connection.socket.sendall(data + burst(Frame(Opcode.PING, b"")) * 1000)
        server.until(lambda: events == ["hello"] and one.inbound._is_over, "the end has come")
        server.call(go.set)
        assert connection.recv(5) == "an answer"
        server.until(lambda: events == ["hello", code], "then the app is told of the end, and of nothing behind it")
        with pytest.raises(ConnectionClosed):
            connection.recv(5)
        assert connection.close_code == code
        assert not server.log


@pytest.mark.parametrize(("data", "code"), [(HELLO_AND_CLOSE, 4000), (HELLO_AND_FAULT, 1002)])
def test_but_not_for_ever(data: bytes, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_inbound, "ANSWER_GRACE", 0.05)
    events: list[Any] = []
    go = asyncio.Event()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await go.wait()
        while not events or events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())

    with serve(app) as server, client(server, compression=None) as connection:
        connection.socket.sendall(data)
        with pytest.raises(ConnectionClosed):
            connection.recv(5)
        assert connection.close_code == code
        server.call(go.set)
        server.until(lambda: len(events) == 3, "all that was before it is received")
        assert [event.get("text") for event in events] == [None, "hello", None]
        assert events[-1]["code"] == code
        assert not server.log


def test_the_app_may_close_before_the_close_that_waits_for_it_is_answered() -> None:
    events: list[Any] = []
    go = asyncio.Event()
    app = in_its_own_time(go, events, {"type": "websocket.close", "code": 3000})
    with serve(app) as server, client(server, compression=None) as connection:
        (one,) = server.gateway.websockets
        connection.socket.sendall(HELLO_AND_CLOSE)
        server.until(lambda: one.inbound._is_over and events == ["hello"], "the Close has come")
        server.call(go.set)
        with pytest.raises(ConnectionClosed):
            connection.recv(5)
        assert connection.close_code == 3000
        server.until(lambda: not server.gateway.websockets and len(events) == 2, "both have closed: nobody waits")
        assert not server.log


@pytest.mark.parametrize("end", ["client", "worker", "app"])
def test_whoever_ends_it_while_a_close_waits_for_the_app_finds_it_closed(end: str) -> None:
    events: list[Any] = []
    go = asyncio.Event()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await go.wait()
        while end != "app" and (not events or events[-1]["type"] != "websocket.disconnect"):
            events.append(await receive())

    with serve(app) as server, client(server, compression=None) as connection:
        (one,) = server.gateway.websockets
        connection.socket.sendall(HELLO_AND_CLOSE)
        server.until(lambda: one.inbound._is_over, "the Close has come")
        if end == "client":
            connection.socket.shutdown(2)
        elif end == "worker":
            server.call(server.gateway.drain, server.loop.time() + 5.0)
        else:
            server.call(go.set)
        server.until(lambda: not server.gateway.websockets, "it is closed")
        if end != "client":
            with pytest.raises(ConnectionClosed):
                connection.recv(5)
            assert connection.close_code == 4000
        if end != "app":
            server.call(go.set)
            server.until(lambda: len(events) == 3, "the app is told")
            assert (events[1]["text"], events[2]["code"]) == ("hello", 4000)
        assert not server.log


def test_a_client_that_floods_with_pings_and_reads_nothing_is_not_read() -> None:
    with serve(Echo()) as server, server.connect() as mute:
        mute.ask(headers=HANDSHAKE)
        mute.read_some()
        (one,) = server.gateway.websockets
        ping = Frame(Opcode.PING, bytes(125)).serialize(mask=True) * 1000
        mute.socket.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 50_000_000:
                sent += mute.socket.send(ping)
        assert sent < 50_000_000, "it is stopped"
        assert server.call(lambda: one.tunnel._connection.writer.unsent()) < 1_000_000


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_thousand_fragments_are_one_message(compression: str | None) -> None:
    with serve(Echo()) as server, client(server, compression=compression) as connection:
        connection.send(["é"] * 1000)
        assert connection.recv(5) == "é" * 1000
        connection.send(["", *["ab"] * 1000, ""])
        assert connection.recv(5) == "ab" * 1000


def test_a_flood_of_final_blocks_leaves_the_loop_to_the_others() -> None:
    with serve(Echo()) as server, client(server) as connection:
        wire = Frame(Opcode.TEXT, b"\x03\x00" * 200_000).serialize(mask=True)
        turns: list[float] = []

        def tick() -> None:
            turns.append(time.monotonic())
            server.loop.call_soon(tick)

        (one,) = server.gateway.websockets
        connection.socket.sendall(bytes([wire[0] | 0x40]) + wire[1:4096])
        server.until(lambda: one.inbound._reader.made > 1_000_000, "it is known that they are final")
        made = server.call(lambda: one.inbound._reader.made)
        server.call(tick)
        connection.socket.sendall(wire[4096:])
        server.until(lambda: one.inbound._reader.made > made + 400_000_000, "half of them is inflated")
        assert len(turns) > 500, "no turn has taken more than some hundred of them"
