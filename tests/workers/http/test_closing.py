"""`closing()` and `cancel_slow_request()`, in every state of a connection."""

from __future__ import annotations

import asyncio

from preforkd.workers import ConnectionState
from preforkd.workers.http.connections import connections_of
from tests.workers.http.closing import cut, now, waiting
from tests.workers.http.test_protocol import Hello
from tests.workers.http.wire import GET, Echo, converse, on_a_socket, run, turns


def test_closing_closes_a_new_and_an_idle_connection_now() -> None:
    async def main() -> None:
        for portions in ([], [GET]):
            result = await converse(Echo(), portions, close=False)
            result.protocol.closing(10)
            assert result.transport.closed
            await turns()
            assert result.protocol.state is ConnectionState.CLOSED

    run(main)


def test_closing_lets_a_request_finish_with_close() -> None:
    async def main() -> None:
        result = await waiting()
        result.protocol.closing(10)
        await turns()
        assert not result.transport.closed
        result.protocol.released.set()
        await turns()
        assert [reply.headers["Connection"] for reply in result.replies] == ["close"]
        assert result.ended
        result.protocol.connection_lost(None)

    run(main)


def test_closing_waits_for_a_head_that_has_begun() -> None:
    async def main() -> None:
        result = await converse(Echo(), [GET, GET[:10]], close=False)
        result.protocol.closing(10)
        await turns()
        assert not result.transport.closed
        result.protocol.data_received(GET[10:])
        await turns()
        assert [reply.headers["Connection"] for reply in result.replies] == ["keep-alive", "close"]
        result.protocol.connection_lost(None)

    run(main)


def test_closing_looks_for_unread_bytes_in_the_socket_first() -> None:
    async def main() -> None:
        protocol = Echo()
        with on_a_socket(protocol) as (transport, ours, theirs):
            theirs.send(GET)
            protocol.closing(10)
            assert not transport.closed
            protocol.data_received(ours.recv(100))
            await turns()
            assert b"Connection: close" in transport.output
            protocol.connection_lost(None)

    run(main)


def test_closing_leaves_a_response_whole_that_the_client_has_not_taken_yet() -> None:
    async def main() -> None:
        protocol = Echo()
        with on_a_socket(protocol) as (transport, ours, theirs):
            protocol.data_received(GET)
            await turns()
            transport.unsent = 1000
            protocol.closing(10)
            ours.send(b"the rest")  # as the loop does it: the way out must not be shut yet
            assert theirs.recv(100) == b"the rest"
            transport.unsent = 0
            async with asyncio.timeout(5):
                await connections_of(asyncio.get_running_loop()).wait_closed()
            assert theirs.recv(100) == b""
            assert not transport.aborted

    run(main)


def test_closing_without_time_does_not_wait_for_the_client_to_take_a_response() -> None:
    async def main() -> None:
        protocol = Echo()
        with on_a_socket(protocol) as (transport, _, _):
            protocol.data_received(GET)
            await turns()
            transport.unsent = 1000
            protocol.closing(0)
            assert transport.closed
            assert not transport.aborted
            await turns()

    run(main)


class Looking(Echo):
    """Tells that `closing()` was called again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.again = asyncio.Event()

    def closing(self, timeout: float = 15.0) -> None:
        super().closing(timeout)
        self.calls += 1
        if self.calls > 1:
            self.again.set()


def test_closing_answers_a_request_that_comes_between_a_response_and_the_close_behind_it() -> None:
    async def main() -> None:
        protocol = Looking()
        with on_a_socket(protocol) as (transport, ours, theirs):
            protocol.data_received(GET)
            await turns()
            transport.unsent = 1000
            protocol.closing(10)
            transport.unsent = 0  # the client has all of the response,
            theirs.send(GET)  # and nothing tells it yet that its connection is to be closed
            async with asyncio.timeout(5):
                await protocol.again.wait()
            assert not transport.closed
            protocol.data_received(ours.recv(100))
            await turns()
            assert transport.output.count(b"HTTP/1.1 200 ") == 2
            assert transport.output.count(b"Connection: close") == 1
            protocol.connection_lost(None)

    run(main)


def test_closing_cuts_a_request_after_its_time() -> None:
    async def main() -> None:
        result = await waiting()
        begun = now()
        result.protocol.closing(0.05)
        assert not result.transport.closed
        await cut(result, by_sweep=False)
        assert now() - begun >= 0.05
        assert result.protocol.cancelled

    run(main)


def test_a_later_call_of_closing_gives_more_time_or_less() -> None:
    async def main() -> None:
        result = await waiting()
        begun = now()
        result.protocol.closing(0.05)
        result.protocol.closing(0.2)
        await cut(result, by_sweep=False)
        assert now() - begun >= 0.2

        result = await waiting()
        begun = now()
        result.protocol.closing(10)
        result.protocol.closing(0.05)
        await cut(result, by_sweep=False)
        assert now() - begun >= 0.05

    run(main)


def test_closing_without_time_cuts_at_once() -> None:
    async def main() -> None:
        result = await waiting()
        result.protocol.closing(0)
        await turns()
        assert result.transport.aborted
        assert result.protocol.cancelled

    run(main)


def test_closing_ends_a_lingering_connection_unless_bytes_still_come() -> None:
    async def main() -> None:
        quiet = await converse(Hello(), [GET], close=False)
        assert quiet.protocol.state is ConnectionState.CLOSING
        quiet.protocol.closing(10)
        assert quiet.transport.closed
        busy = await converse(Hello(), [GET, GET], close=False)
        busy.protocol.closing(10)
        assert not busy.transport.closed
        busy.protocol.check_deadlines(now() + 11)
        assert busy.transport.closed
        await turns()
        busy.protocol.closing(10)
        assert busy.protocol.state is ConnectionState.CLOSED

    run(main)


def test_cancel_slow_request_cancels_the_handler_and_closes() -> None:
    async def main() -> None:
        result = await waiting()
        result.protocol.cancel_slow_request()
        await turns()
        assert result.protocol.cancelled
        assert result.transport.closed
        assert result.output == b""
        assert result.protocol.state is ConnectionState.CLOSED

    run(main)


def test_draining_decides_about_close_when_the_head_is_written() -> None:
    async def main() -> None:
        result = await waiting()
        connections = connections_of(asyncio.get_running_loop())
        connections.drain()
        result.protocol.released.set()
        await turns()
        assert [reply.headers["Connection"] for reply in result.replies] == ["close"]
        later = await converse(Echo(), [GET])
        assert [reply.headers["Connection"] for reply in later.replies] == ["close"]
        result.protocol.connection_lost(None)

    run(main)


def test_a_client_that_is_gone_cancels_the_handler() -> None:
    async def main() -> None:
        result = await waiting()
        result.protocol.connection_lost(ConnectionResetError())
        await turns()
        assert result.protocol.cancelled
        assert result.protocol.state is ConnectionState.CLOSED

    run(main)


def test_over_the_concurrency_limit_503_with_retry_after() -> None:
    async def main() -> None:
        connections_of(asyncio.get_running_loop()).limit_concurrency = 1
        first = await waiting()
        second = await converse(Echo(), [GET])
        assert second.statuses == [503]
        assert second.replies[0].headers["Retry-After"] == "1"
        assert second.seen == []
        first.protocol.connection_lost(None)
        await turns()
        assert (await converse(Echo(), [GET])).statuses == [200]

    run(main)
