"""What a handler does behind its first wait goes out behind each step: nothing may show that, either."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from preforkd.workers import Response
from preforkd.workers.http.errors import ClientDisconnectedError
from tests.workers.http.wire import GET, Echo, Talk, converse, turns

RUNNERS: dict[str, Callable[..., Any]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}
loops = pytest.mark.parametrize("loop", RUNNERS)
waits = pytest.mark.parametrize("waits", [0, 1, 2])


class Beginning(Echo):
    """Begins a response that it does not end."""

    waits = 0

    async def handle_request(self, message: Any, payload: Any) -> None:
        for _ in range(self.waits):
            await asyncio.sleep(0)
        self.keep_alive(True)
        response = Response(self.writer, 200)
        response.add_header("Content-Length", "10")
        response.send_headers()
        response.write(b"12345")
        await self.after_beginning(response)

    async def after_beginning(self, response: Response) -> None:
        raise ValueError("before the head is on its way")

    def log_exception(self, *args: object) -> None:
        raise AssertionError(args)


@loops
@waits
def test_the_head_of_a_handler_that_raises_says_that_the_connection_ends(waits: int, loop: str) -> None:
    class Raising(Beginning):
        def report_error(self, *args: object, exc: BaseException | None = None) -> None:
            assert isinstance(exc, ValueError)

    handler = Raising()
    handler.waits = waits
    result: Talk = RUNNERS[loop](converse(handler, [GET]))
    (reply,) = result.replies
    assert reply.headers["Connection"] == "close"
    assert reply.body == b"12345"
    assert result.ended


@loops
@waits
@pytest.mark.parametrize("pause", [False, True])
def test_the_head_of_an_error_page_of_ones_own_says_that_the_connection_ends(
    pause: bool, waits: int, loop: str
) -> None:
    class Own(Beginning):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            for _ in range(self.waits):
                await asyncio.sleep(0)
            raise ValueError

        async def handle_error(self, *args: Any) -> None:
            response = Response(self.writer, 500)
            response.add_header("Content-Length", "3")
            response.send_headers()
            response.write(b"own")
            if pause:
                await asyncio.sleep(0)
            await response.write_eof()

    handler = Own()
    handler.waits = waits
    result: Talk = RUNNERS[loop](converse(handler, [GET]))
    (reply,) = result.replies
    assert (reply.status, reply.headers["Connection"], reply.body) == (500, "close", b"own")
    assert result.ended


@loops
@pytest.mark.parametrize("method", ["write", "drain", "write_eof"])
def test_who_goes_on_when_the_client_is_gone_is_told_by_the_first_write(method: str, loop: str) -> None:
    raised = []

    class Staying(Beginning):
        async def after_beginning(self, response: Response) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()  # type: ignore[union-attr]  # there is one
            if method == "write_eof":
                response._left = 0
            try:
                if method == "write":
                    response.write(b"6")
                else:
                    await getattr(response, method)()
            except ClientDisconnectedError:
                raised.append(method)
                raise

    async def main() -> None:
        result = await converse(Staying(), [GET], close=False)
        result.protocol.connection_lost(None)
        await turns()
        assert result.protocol.handler_task is None

    RUNNERS[loop](main())
    assert raised == [method]
