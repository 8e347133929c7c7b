"""What a worker counts as held, on real sockets and on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import uvloop

from preforkd.workers.http.connections import connections_of
from preforkd.workers.http.protocol import ServerHttpProtocol
from preforkd.workers.server import Server

LIMIT = 5


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        listening.setblocking(False)
        yield listening


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
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
            least=lambda: None,
            changed=held.append,
            limit=LIMIT,
            logger=logging.getLogger("test"),
        )
        for _ in range(LIMIT + 1):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        loop.run_until_complete(scenario())
        assert max(held) == LIMIT
        assert server.held() == 0
