"""What a worker counts as held, on real sockets and on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvloop

from preforkd.workers.http.connections import connections_of
from preforkd.workers.http.message import RequestMessage
from preforkd.workers.http.payload import PayloadStream
from preforkd.workers.http.protocol import ServerHttpProtocol
from preforkd.workers.server import Server
from preforkd.workers.tls_contexts import Material, Profile, make_context
from tests.certificates import Authority, needs_openssl

LIMIT = 5
HALF, REST = b"GET / HTTP/1.1\r\nHo", b"st: a\r\n\r\n"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        listening.setblocking(False)
        yield listening


LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


@contextlib.contextmanager
def serving(
    loop: asyncio.AbstractEventLoop, listener: socket.socket, protocol: type[ServerHttpProtocol], clients: int
) -> Iterator[tuple[Server, list[socket.socket]]]:
    """A server, and clients that have connected and sent half a request; it has taken in all of them."""

    async def taken_in() -> None:
        server.accept()
        async with asyncio.timeout(10):
            for _ in range(clients):
                await half_taken.acquire()

    class Noticed(protocol):  # type: ignore[misc,valid-type]  # a class that is given
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            half_taken.release()

    half_taken = asyncio.Semaphore(0)
    server = Server(
        loop,
        [listener],
        lambda: Noticed(loop=loop),
        connections_of(loop),
        lent=(),
        others=lambda: None,
        show=lambda _: None,
        changed=lambda held: None,
        limit=100,
        logger=logging.getLogger("test"),
    )
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(listener.getsockname())) for _ in range(clients)]
        for client in sockets:
            client.send(HALF)
        loop.run_until_complete(taken_in())
        server.close_listeners(take_queued=False)
        yield server, sockets


@LOOPS
@pytest.mark.parametrize("late", [False, True], ids=["no time left", "no time left behind the first"])
def test_every_half_head_has_its_408_when_a_drain_is_over(
    listener: socket.socket, new_loop: Callable[[], asyncio.AbstractEventLoop], late: bool
) -> None:
    class Late(ServerHttpProtocol):
        def closing(self, timeout: float = 15.0) -> None:
            super().closing(timeout)
            while late and loop_now() < deadline:
                pass  # so many connections that the time is over before the last of them is told

    with contextlib.closing(new_loop()) as loop:
        loop_now = time.monotonic
        with serving(loop, listener, Late, 3) as (server, clients):
            deadline = loop_now() + (0.05 if late else 0.0)
            loop.run_until_complete(server.drained(0, loop.time() + deadline - loop_now()))
            for client in clients:
                client.setblocking(False)
                assert client.recv(1000).startswith(b"HTTP/1.1 408 ")


@LOOPS
def test_what_a_drain_cuts_at_its_end_is_logged_and_cancelled(
    listener: socket.socket,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    caplog: pytest.LogCaptureFixture,
) -> None:
    handled: list[str] = []

    class Slow(ServerHttpProtocol):
        async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:
            handled.append("begun")
            begun.release()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                handled.append("cancelled")

    async def both_begun() -> None:
        async with asyncio.timeout(10):
            for _ in range(2):
                await begun.acquire()

    begun = asyncio.Semaphore(0)
    with contextlib.closing(new_loop()) as loop, serving(loop, listener, Slow, 3) as (server, clients):
        for client in clients[:2]:
            client.send(REST)
        loop.run_until_complete(both_begun())
        loop.run_until_complete(server.drained(0, loop.time()))
        assert handled == ["begun"] * 2 + ["cancelled"] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "cutting 2 requests, not done at the end of --graceful-timeout"
    ]


@LOOPS
def test_a_connection_is_counted_once_at_every_moment_and_the_limit_can_be_reached_again(
    listener: socket.socket, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    held: list[int] = []
    made: list[ServerHttpProtocol] = []

    class Protocol(ServerHttpProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            held.append(server.held())
            made.append(self)
            if len(made) == 1:
                transport.abort()  # type: ignore[attr-defined]  # it ends while the others are being opened

    async def scenario() -> None:
        server.accept()
        async with asyncio.timeout(10):
            while len(made) < LIMIT + 1:  # noqa: ASYNC110 - until the one behind the limit has its turn, too
                await asyncio.sleep(0)
        server.close_listeners(take_queued=False)
        for protocol in made:
            protocol.abort()
        await server.drained(0, loop.time() + 10)

    with contextlib.closing(new_loop()) as loop, ExitStack() as stack:
        server = Server(
            loop,
            [listener],
            lambda: Protocol(loop=loop),
            connections_of(loop),
            lent=(),
            others=lambda: None,
            show=lambda _: None,
            changed=held.append,
            limit=LIMIT,
            logger=logging.getLogger("test"),
        )
        for _ in range(LIMIT + 1):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        loop.run_until_complete(scenario())
        assert max(held) == LIMIT
        assert server.held() == 0


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of server and client."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "localhost")
    material = Material(certificate.read_text(), key.read_text())
    return make_context(Profile((material,))), authority.client()


@needs_openssl
@LOOPS
def test_handshakes_are_held_and_given_up_in_a_drain_and_the_others_are_finished(
    listener: socket.socket,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async def main() -> tuple[int, int, int, list[str]]:
        loop = asyncio.get_running_loop()
        server = Server(
            loop,
            [listener],
            lambda: ServerHttpProtocol(loop=loop),
            connections_of(loop),
            lent=(),
            others=lambda: None,
            show=lambda state: None,
            changed=lambda held: None,
            limit=100,
            logger=logging.getLogger("test"),
            tls={listener.fileno(): lambda: tls[0]},
            handshake_timeout=30,
        )
        server.accept()
        port = listener.getsockname()[1]
        silent = await asyncio.open_connection("127.0.0.1", port)
        done = await asyncio.open_connection("127.0.0.1", port, ssl=tls[1], server_hostname="localhost")
        async with asyncio.timeout(10):
            while server.held() < 2:  # noqa: ASYNC110 - it takes a few turns of the loop
                await asyncio.sleep(0)
        counted = server.held()
        broken = await asyncio.open_connection("127.0.0.1", port)
        broken[1].write(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")  # no hello
        assert (await broken[0].read(1))[:1] == b"\x15", "an alert"
        async with asyncio.timeout(10):
            while server.held() > 2:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        before = server.held()
        server.close_listeners(take_queued=False)
        draining = loop.create_task(server.drained(0.3, loop.time() + 10))
        done[1].write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        first = (await done[0].readline()).decode()
        ended = (await silent[0].read()).decode("latin-1")
        await draining
        for _, writer in (silent, done, broken):
            writer.close()
        return counted, before, server.held(), [first, ended]

    with asyncio.Runner(loop_factory=new_loop) as runner:
        began = time.monotonic()
        counted, before, after, words = runner.run(main())
    assert (counted, before, after) == (2, 2, 0)
    assert words == ["HTTP/1.1 404 Not Found\r\n", ""]
    assert time.monotonic() - began < 8
