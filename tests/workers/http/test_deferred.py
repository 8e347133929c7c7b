"""A handler that returns a `Deferred`: callbacks answer, and the connection's task is there for what is unusual."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from preforkd.workers import ConnectionState, Response, ServerHttpProtocol
from preforkd.workers.http.connections import connections_of
from preforkd.workers.http.waiter import Deferred
from tests.workers.http.wire import GET, FakeTransport, run, turns


class Answered(Deferred):
    """Knows whether it was abandoned."""

    was_abandoned = False

    def abandon(self) -> None:
        self.was_abandoned = True


class Deferring(ServerHttpProtocol):
    """Leaves the answer to `answer()`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.handled: list[str] = []
        self.logged: list[int] = []

    def handle_request(self, message: Any, payload: Any) -> Any:
        self.keep_alive(True)
        self.handled.append(message.path)
        return Answered(self.loop)

    def log_access(self, message: Any, environ: Any, response: Response | None, time: float) -> None:
        self.logged.append(response.sent_status if response is not None else 0)

    def answer(self) -> None:
        response = Response(self.writer, 200)
        response.add_header("Content-Length", "2")
        response.send_headers()
        response.write(b"ok")
        response.write_eof()
        self.end_deferred(self.writer.exchange, None)  # type: ignore[arg-type]  # there is one


def connect(protocol: Deferring) -> FakeTransport:
    transport = FakeTransport(protocol)
    protocol.connection_made(transport)
    return transport


def test_what_is_deferred_is_answered_by_a_callback_and_the_connection_goes_on() -> None:
    async def main() -> None:
        protocol = Deferring()
        transport = connect(protocol)
        connections = connections_of(asyncio.get_running_loop())
        protocol.data_received(GET + GET + GET)
        for number in (1, 2, 3):
            await turns()
            assert len(protocol.handled) == number, "one at a time"
            assert connections.active == 1
            asyncio.get_running_loop().call_soon(protocol.answer)
        await turns()
        assert transport.output.count(b"HTTP/1.1 200 OK") == 3
        assert protocol.logged == [200, 200, 200]
        assert (protocol.state, connections.active) == (ConnectionState.IDLE, 0)
        protocol.connection_lost(None)
        await turns()

    run(main)


def test_its_error_is_answered() -> None:
    async def main() -> None:
        protocol = Deferring()
        transport = connect(protocol)
        protocol.data_received(GET)
        await turns()
        protocol.end_deferred(protocol.writer.exchange, ValueError("bad"))  # type: ignore[arg-type]  # there is one
        await turns()
        assert transport.output.startswith(b"HTTP/1.1 500 ")
        assert protocol.logged == [500]
        assert transport.half_closed
        protocol.connection_lost(None)
        await turns()
        assert connections_of(asyncio.get_running_loop()).active == 0

    run(main)


@pytest.mark.parametrize("exc", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_what_is_for_the_loop_reaches_it(exc: BaseException) -> None:
    protocol = Deferring()

    async def main() -> None:
        connect(protocol)
        protocol.data_received(GET)
        await turns()
        asyncio.get_running_loop().call_soon(protocol.end_deferred, protocol.writer.exchange, exc)  # type: ignore[arg-type]  # there is one
        await asyncio.sleep(5)

    with pytest.raises(type(exc)):
        run(main)
    assert protocol.state is ConnectionState.CLOSED


ENDS: dict[str, Callable[[Deferring, FakeTransport], None]] = {
    "lost": lambda protocol, _: protocol.connection_lost(None),
    "cut": lambda protocol, _: protocol.closing(0),
    "aborted": lambda _, transport: transport.abort(),
}


@pytest.mark.parametrize("from_a_task", [True, False], ids=["from a task", "from a callback"])
@pytest.mark.parametrize("end", ENDS)
def test_it_is_abandoned_with_its_connection_and_nothing_is_left(end: str, from_a_task: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Deferring()
        transport = connect(protocol)
        protocol.data_received(GET)
        await turns()
        deferred = protocol.deferred
        assert isinstance(deferred, Answered)
        if from_a_task:
            ENDS[end](protocol, transport)
        else:
            loop.call_soon(ENDS[end], protocol, transport)
        await turns()
        assert deferred.was_abandoned
        assert protocol.deferred is None
        assert (len(connections_of(loop)), connections_of(loop).active) == (0, 0)
        assert protocol.logged == [0], "one line, and no response"
        reference = weakref.ref(protocol)
        transport.protocol = None  # type: ignore[assignment]  # the fake's own reference
        del protocol, deferred
        await turns()
        assert reference() is None

    run(main)


def test_one_that_takes_too_long_is_answered_503() -> None:
    async def main() -> None:
        protocol = Deferring()
        transport = connect(protocol)
        protocol.data_received(GET)
        await turns()
        deferred = protocol.deferred
        protocol.expire_request()
        await turns()
        assert isinstance(deferred, Answered)
        assert deferred.was_abandoned
        assert transport.output.startswith(b"HTTP/1.1 503 ")
        assert protocol.logged == [503]
        protocol.connection_lost(None)
        await turns()

    run(main)
