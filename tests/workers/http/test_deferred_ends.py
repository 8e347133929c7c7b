"""How deferred requests end: behind their response, and without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from preforkd.workers import Response, ServerHttpProtocol
from preforkd.workers.http.connections import connections_of
from preforkd.workers.http.waiter import Deferred
from tests.workers.http.wire import GET, FakeTransport, turns

RUNNERS: dict[str, Callable[..., Any]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}
loops = pytest.mark.parametrize("loop", RUNNERS)
CLOSING = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


class Deferring(ServerHttpProtocol):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int | None] = []

    def handle_request(self, message: Any, payload: Any) -> Any:
        return Deferred(asyncio.get_running_loop())

    def answer(self, status: int) -> None:
        self.keep_alive(True)
        response = Response(self.writer, status)
        response.add_header("Content-Length", "0")
        response.send_headers()
        response.write_eof()

    def log_access(self, message: Any, environ: Any, response: Any, time: float) -> None:
        self.lines.append(response.sent_status if response is not None else None)


@loops
@pytest.mark.parametrize("within_task", [False, True])
@pytest.mark.parametrize("request_", [GET, CLOSING], ids=["kept", "closing"])
def test_a_client_that_leaves_behind_its_response_leaves_its_line_and_its_count(
    request_: bytes, within_task: bool, loop: str
) -> None:
    async def main() -> None:
        connections = connections_of(asyncio.get_running_loop())
        protocol = Deferring()
        transport = FakeTransport(protocol)
        protocol.connection_made(transport)
        protocol.data_received(request_)
        await turns()
        assert connections.active == 1

        def end() -> None:
            protocol.answer(404)
            protocol.end_deferred(protocol.writer.exchange, None)  # type: ignore[arg-type]  # there is one
            protocol.connection_lost(None)  # in the same turn

        if within_task:
            end()
        else:
            asyncio.get_running_loop().call_soon(end)
        await turns()
        assert protocol.lines == [404]
        assert connections.responses[4] == 1
        assert connections.active == 0
        assert protocol.handler_task is None

    RUNNERS[loop](main())


@loops
@pytest.mark.parametrize("end", ["lost", "aborted", "cut", "cancelled"])
def test_a_request_that_nobody_will_end_is_let_go_of(end: str, loop: str) -> None:
    async def main() -> None:
        connections = connections_of(asyncio.get_running_loop())
        protocol = Deferring()
        transport = FakeTransport(protocol)
        protocol.connection_made(transport)
        protocol.data_received(GET)
        await turns()
        if end == "lost":
            protocol.connection_lost(None)
        elif end == "aborted":
            protocol.abort()
        elif end == "cut":
            protocol.closing(0)
        else:
            assert protocol.handler_task is not None
            protocol.handler_task.cancel()
        await turns()
        assert protocol.deferred is None
        assert protocol.handler_task is None
        assert connections.active == len(connections) == 0
        assert connections.responses[4] == 1

    RUNNERS[loop](main())
