"""The connections of a loop: counts, drain, closing, sweep; and that nothing of them is left when they are gone."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import struct
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from preforkd.workers import PayloadStream, Response, ServerHttpProtocol
from preforkd.workers.http.connections import Connections, connections_of
from preforkd.workers.http.writer import ResponseWriter
from tests.workers.http.wire import GET, Echo, FakeTransport, converse, talk, turns

RUNNERS: dict[str, Callable[..., None]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}


def here() -> Connections:
    return connections_of(asyncio.get_running_loop())


def test_each_loop_has_one_of_its_own() -> None:
    async def main() -> Connections:
        assert here() is here()
        return here()

    assert asyncio.run(main()) is not asyncio.run(main())


def test_totals_count_live_and_closed_connections() -> None:
    async def main() -> None:
        connections = here()
        kept = await converse(Echo(), [GET, GET], close=False)
        assert (len(connections), connections.accepted, connections.requests, connections.active) == (1, 1, 2, 0)
        assert list(connections) == [kept.protocol]
        assert kept.protocol in connections
        await converse(Echo(), [b"x\x00"])
        await converse(ServerHttpProtocol(), [GET])
        assert (len(connections), connections.accepted, connections.requests) == (1, 3, 4)
        assert connections.responses[2] == 2
        assert connections.responses[4] == 2
        assert connections.bytes_sent >= len(kept.output) > 0
        before = connections.bytes_sent
        kept.protocol.connection_lost(None)
        assert connections.bytes_sent == before
        assert (len(connections), connections.requests) == (0, 4)

    asyncio.run(main())


def test_active_counts_requests_that_are_being_handled() -> None:
    class Stuck(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            await asyncio.Event().wait()

    async def main() -> None:
        results = [await converse(Stuck(), [GET], close=False) for _ in range(3)]
        assert here().active == 3
        for result in results:
            result.protocol.connection_lost(None)
        await turns()
        assert here().active == 0
        assert here().responses[4] == 3

    asyncio.run(main())


def test_drain_leaves_silent_and_idle_connections_open() -> None:
    async def main() -> None:
        idle = await converse(Echo(), [GET], close=False)
        silent = await converse(Echo(), [], close=False)
        here().drain()
        await turns()
        assert not idle.transport.closed
        assert not silent.transport.closed
        for result in (idle, silent):
            result.protocol.data_received(GET)
            await turns()
            assert result.replies[-1].headers["Connection"] == "close"
            result.protocol.connection_lost(None)

    asyncio.run(main())


def test_closing_and_wait_closed() -> None:
    async def main() -> None:
        await converse(Echo(), [GET], close=False)
        await converse(Echo(), [], close=False)
        waiting = asyncio.ensure_future(here().wait_closed())
        await turns()
        assert not waiting.done()
        here().closing(5)
        await asyncio.wait_for(waiting, 5)
        assert len(here()) == 0
        await asyncio.wait_for(here().wait_closed(), 5)

    asyncio.run(main())


@pytest.mark.parametrize("loop", RUNNERS)
def test_the_sweep_runs_while_there_are_connections_and_not_longer(loop: str) -> None:
    async def main() -> None:
        result = await converse(Echo(timeout=0.2), [GET[:5]], close=False)
        async with asyncio.timeout(5):
            while not result.ended:  # noqa: ASYNC110 -- the fake transport has no event for it
                await asyncio.sleep(0.02)
        assert result.statuses == [408]
        result.protocol.connection_lost(None)
        assert here()._timer is None

    RUNNERS[loop](main())


def test_a_loop_is_not_kept_alive() -> None:
    async def main() -> None:
        await converse(Echo(), [GET])

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    reference = weakref.ref(loop)
    del loop
    gc.collect()
    assert reference() is None


def test_a_closed_connection_is_freed_without_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        references = []

        async def main() -> None:
            for portions in ([], [GET], [GET, GET[:9]], [b"x\x00"]):
                result = await converse(Echo(), portions)
                references.append(weakref.ref(result.protocol))
                result.transport.protocol = None  # type: ignore[assignment]  # the fake's own reference
                del result
                await turns()

        asyncio.run(main())
        alive = sum(reference() is not None for reference in references)
    finally:
        gc.enable()
    gc.collect()
    assert all(reference() is None for reference in references)
    assert alive == 0


# Ten thousand clients that behave badly, on real sockets.


class Mixed(ServerHttpProtocol):
    """Reads, answers small or large, or waits for ever, by the path."""

    async def handle_request(self, message: Any, payload: Any) -> None:
        self.keep_alive(True)
        if message.path == "/wait":
            await asyncio.Event().wait()
        await payload.read()
        response = Response(self.writer, 200, http_version=message.version)
        response.send_headers()
        for _ in range(100 if message.path == "/large" else 1):
            response.write(b"x" * 10000)
            await response.drain()
        await response.write_eof()


PORTIONS = [
    b"",
    b"GET / HT",
    GET,
    GET * 3,
    GET.replace(b"/ ", b"/wait "),
    GET.replace(b"/ ", b"/large "),
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n" + b"x" * 500,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    b"\x16\x03\x01garbage",
    GET + b"garbage\x00",
]


def misbehave(address: tuple[str, int], portion: bytes, way: int) -> socket.socket | None:
    """Connect, send, and leave in one of the ways; a socket that is returned stays open until the server cuts it."""
    sock = socket.create_connection(address)
    sock.sendall(portion)
    if way == 0:  # reset
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    elif way == 1:  # half-close
        sock.shutdown(socket.SHUT_WR)
        return sock
    elif way == 2:  # close
        sock.close()
    else:  # time out
        return sock
    return None


def close_all(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def live_objects() -> tuple[int, int, int]:
    gc.collect()
    kinds = (ServerHttpProtocol, ResponseWriter, PayloadStream)
    return tuple(sum(isinstance(thing, kind) for thing in gc.get_objects()) for kind in kinds)  # type: ignore[return-value]  # three


@pytest.mark.parametrize("loop", RUNNERS)
def test_after_ten_thousand_bad_ends_nothing_is_left(loop: str) -> None:
    number = int(os.environ.get("PREFORKD_TEST_BAD_ENDS", "10000")) // len(RUNNERS)
    before = live_objects()

    async def main() -> None:
        running = asyncio.get_running_loop()
        times: dict[str, Any] = {"timeout": 0.4, "body_timeout": 0.4, "write_timeout": 0.4, "request_timeout": 0.4}
        server = await running.create_server(lambda: Mixed(keep_alive=0.4, **times), "127.0.0.1", 0, backlog=1024)
        address = server.sockets[0].getsockname()
        choice = random.Random(7)

        def batch() -> list[socket.socket]:
            made = (misbehave(address, choice.choice(PORTIONS), choice.choice((0, 0, 1, 2, 2, 3))) for _ in range(250))
            return [sock for sock in made if sock is not None]

        async with asyncio.timeout(60):
            for _ in range(number // 250):
                held = await running.run_in_executor(None, batch)
                running.call_later(1.5, close_all, held)
            await asyncio.sleep(0.1)
            await here().wait_closed()
        assert here().accepted == number // 250 * 250
        assert here().active == 0
        assert here()._timer is None
        server.close()
        await asyncio.sleep(1.6)
        await running.shutdown_default_executor()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others

    RUNNERS[loop](main())
    assert live_objects() == before


def test_the_fake_transport_behaves_like_a_real_one() -> None:
    """The tests stand on it: closing tells the protocol in the next turn, once."""

    async def main() -> None:
        protocol = Echo()
        transport = FakeTransport(protocol)
        protocol.connection_made(transport)
        transport.close()
        transport.abort()
        assert protocol.transport is transport
        await turns(1)
        assert protocol.transport is None

    asyncio.run(main())
    assert talk(GET).statuses == [200]
