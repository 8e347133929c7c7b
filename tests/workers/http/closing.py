"""What the tests of `closing()` share: requests that wait in their handler, and the clock of the deadlines."""

from __future__ import annotations

import asyncio
from typing import Any

from preforkd.workers import Response
from preforkd.workers.http.connections import connections_of
from tests.workers.http.wire import GET, Echo, Talk, converse


def now() -> float:
    return asyncio.get_running_loop().time()


class Waiting(Echo):
    """Waits in the handler until it is cancelled or released."""

    async def handle_request(self, message: Any, payload: Any) -> None:
        self.seen.append((message.method, message.path, b""))
        self.released = asyncio.Event()
        self.cancelled = False
        self.keep_alive(True)
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        response = Response(self.writer, 200)
        response.add_header("Content-Length", "0")
        response.send_headers()
        await response.write_eof()


async def cut(result: Talk, *, by_sweep: bool = True) -> None:
    """Wait until the connection is aborted and gone, and its handler has been told.

    Args:
        result: of the conversation.
        by_sweep: the sweep may do it; False: it does not come.
    """
    connections = connections_of(asyncio.get_running_loop())
    if not by_sweep and connections._timer is not None:
        connections._timer.cancel()
    async with asyncio.timeout(10):
        await result.transport.lost.wait()
    assert result.transport.aborted


async def waiting(*portions: bytes) -> Talk:
    """A connection whose request, GET unless it is given, waits in the handler."""
    return await converse(Waiting(), portions or [GET], close=False)
