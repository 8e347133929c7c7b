"""Clients that leave in the very turn in which the app ends its response."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from preforkd.workers.gateways.asgi import AsgiGateway
from preforkd.workers.http.connections import connections_of
from tests.workers.gateways.asgi.serving import App, Receive, Records, Scope, Send, body, start
from tests.workers.http.wire import GET, FakeTransport, turns

RUNNERS: dict[str, Callable[..., Any]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}
loops = pytest.mark.parametrize("loop", RUNNERS)


async def converse(app: App, turn: int) -> tuple[list[str], weakref.ref[Any]]:
    """Serve a request whose client leaves in a turn of the loop; gives the log, and whether the connection is left."""
    records = Records()
    logger = logging.Logger("served")
    logger.addHandler(records)
    protocol = AsgiGateway(app, logger=logger).handler(logger=logger)
    transport = FakeTransport(protocol)
    protocol.connection_made(transport)
    protocol.data_received(GET)
    await turns(turn)
    transport.close()
    await turns()
    connections = connections_of(asyncio.get_running_loop())
    assert connections.active == len(connections) == 0
    return records.lines, weakref.ref(protocol)


@loops
@pytest.mark.parametrize("turn", range(6))
def test_no_error_is_logged_when_the_last_part_finds_no_client(turn: int, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def last() -> None:
            await send(start())
            await send(body(b"x"))

        await asyncio.gather(last(), asyncio.sleep(0))

    log, _ = RUNNERS[loop](converse(app, turn))
    assert log == []


@loops
@pytest.mark.parametrize("turn", range(6))
def test_a_connection_whose_app_goes_on_is_freed_without_the_collector(turn: int, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        await send(start())
        await send(body(b"x"))
        for _ in range(3):
            await asyncio.sleep(0)

    gc.collect()
    gc.disable()
    try:
        log, left = RUNNERS[loop](converse(app, turn))
        assert left() is None
    finally:
        gc.enable()
    assert log == []
