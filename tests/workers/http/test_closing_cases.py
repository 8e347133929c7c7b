"""`closing()` in the rarer moments of a connection, and of many at once."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from preforkd.workers import ConnectionState, Response
from preforkd.workers.http import closing as closing_module
from preforkd.workers.http.connections import connections_of
from tests.workers.http.closing import Waiting, cut, now, waiting
from tests.workers.http.wire import GET, Echo, FakeTransport, converse, on_a_socket, run, turns

# Half a head.


def test_a_request_that_was_half_there_is_cut_after_the_time_for_all() -> None:
    async def main() -> None:
        result = await waiting(GET[:10])
        begun = now()
        result.protocol.closing(0.1)
        result.protocol.data_received(GET[10:])
        assert not result.transport.closed
        await cut(result, by_sweep=False)
        assert now() - begun >= 0.1
        assert result.protocol.cancelled

    run(main)


@pytest.mark.parametrize("before", [[], [GET]], ids=["new", "idle"])
def test_half_a_head_gets_408_after_its_grace(before: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing_module, "HALF_HEAD_GRACE", 0.01)
    ended = asyncio.Event()

    class Half(FakeTransport):
        def write_eof(self) -> None:
            super().write_eof()
            ended.set()

    async def main() -> None:
        protocol = Echo()
        transport = Half(protocol)
        protocol.connection_made(transport)
        for data in (*before, GET[:10]):
            protocol.data_received(data)
            await turns()
        protocol.closing(10)
        await turns()
        assert not ended.is_set()
        async with asyncio.timeout(5):
            await ended.wait()
        assert transport.output.count(b"HTTP/1.1 408 ") == 1
        assert transport.output.count(b"HTTP/1.1 200 ") == len(before)
        assert protocol.state is ConnectionState.CLOSING
        protocol.connection_lost(None)

    run(main)


@pytest.mark.parametrize("before", [[], [GET]], ids=["new", "idle"])
def test_half_a_head_gets_408_also_when_there_is_no_time_left_and_a_sweep_comes(before: list[bytes]) -> None:
    async def main() -> None:
        result = await converse(Echo(), [*before, GET[:10]], close=False)
        result.protocol.closing(0)
        result.protocol.check_deadlines(now())
        await turns()
        assert result.statuses == [200] * len(before) + [408]
        assert not result.transport.aborted
        result.protocol.connection_lost(None)

    run(main)


def test_half_a_head_is_left_in_peace_when_the_worker_serves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing_module, "HALF_HEAD_GRACE", 0.0)

    async def main() -> None:
        result = await converse(Echo(), [GET[:10]], close=False)
        connections = connections_of(asyncio.get_running_loop())
        connections.closing(10)
        connections.resume()
        result.protocol.check_deadlines(now() + 11)
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0.0, passed.set)  # set after the grace, which began before
        await passed.wait()
        await turns()
        assert result.output == b""
        result.protocol.data_received(GET[10:])
        await turns()
        assert result.statuses == [200]
        result.protocol.connection_lost(None)

    run(main)


def test_the_grace_of_half_a_head_keeps_no_connection_alive() -> None:
    async def main() -> None:
        result = await converse(Echo(), [GET, GET[:10]], close=False)
        result.protocol.closing(100)
        result.protocol.connection_lost(None)
        await turns()
        reference = weakref.ref(result.protocol)
        result.transport.protocol = None  # type: ignore[assignment]  # the fake's own reference
        del result
        assert reference() is None

    gc.collect()
    gc.disable()
    try:
        run(main)
    finally:
        gc.enable()


# Other moments.


def test_resume_lets_a_request_finish_that_closing_would_have_cut() -> None:
    async def main() -> None:
        result = await waiting()
        connections = connections_of(asyncio.get_running_loop())
        connections.closing(10)
        connections.resume()
        result.protocol.check_deadlines(now() + 1000)
        await turns()
        assert not result.transport.closed
        result.protocol.released.set()
        await turns()
        assert result.statuses == [200]
        result.protocol.connection_lost(None)

    run(main)


class Begun(Waiting):
    """Says keep-alive, and has the rest of its body wait."""

    async def handle_request(self, message: Any, payload: Any) -> None:
        self.keep_alive(True)
        self.released = asyncio.Event()
        response = Response(self.writer, 200)
        response.add_header("Content-Length", "5")
        response.send_headers()
        response.write(b"be")
        await response.drain()
        await self.released.wait()
        response.write(b"gun")
        await response.write_eof()


def test_a_connection_that_has_said_keep_alive_closes_behind_that_response_if_no_request_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(closing_module, "NEXT_REQUEST_GRACE", 0.0)

    async def main() -> None:
        result = await converse(Begun(), [GET], close=False)
        assert b"Connection: keep-alive" in result.output
        result.protocol.closing(10)
        await turns()
        assert not result.transport.closed
        result.protocol.released.set()
        await turns()
        assert [(reply.body, reply.complete) for reply in result.replies] == [(b"begun", True)]
        async with asyncio.timeout(5):
            await connections_of(asyncio.get_running_loop()).wait_closed()
        assert result.transport.closed
        assert not result.transport.aborted

    run(main)


def test_a_request_that_comes_behind_a_response_that_has_said_keep_alive_is_answered_and_is_the_last() -> None:
    async def main() -> None:
        result = await converse(Begun(), [GET], close=False)
        result.protocol.closing(10)
        result.protocol.released.set()
        await turns()
        assert not result.transport.closed, "its client may have the next one ready"
        assert not result.transport.half_closed
        result.protocol.data_received(GET)
        await turns()
        result.protocol.released.set()
        await turns()
        assert [reply.headers["Connection"] for reply in result.replies] == ["keep-alive", "close"]
        assert result.transport.closed or result.transport.half_closed
        result.protocol.connection_lost(None)

    run(main)


def test_an_idle_client_sees_the_end_in_the_very_moment_of_closing() -> None:
    async def main() -> None:
        protocol = Echo()
        with on_a_socket(protocol) as (_, _, theirs):
            protocol.data_received(GET)
            await turns()
            theirs.setblocking(False)
            protocol.closing(10)
            assert theirs.recv(100) == b""  # the loop closes the socket some turns later
            await turns()

    run(main)


def test_a_worker_that_is_about_to_exit_does_not_linger() -> None:
    async def main() -> None:
        result = await waiting()
        result.protocol.closing(10)
        result.protocol.released.set()
        await turns()
        assert result.statuses == [200]
        assert result.transport.closed
        assert not result.transport.half_closed
        # But it does when something has come that a close would answer by a reset.
        busy = await waiting(GET, GET)
        busy.protocol.closing(10)
        busy.protocol.released.set()
        await turns()
        assert busy.transport.half_closed
        assert not busy.transport.closed
        busy.protocol.connection_lost(None)

    run(main)


# Many connections.


class Failing(Waiting):
    """The first of its connections raises in what it overrides."""

    method = ""
    exc: BaseException
    failed: list[Any]

    def _call(self, name: str) -> None:
        if name == self.method and (self.failed or [self])[0] is self:
            self.failed.append(self)
            raise self.exc

    def closing(self, timeout: float = 15.0) -> None:
        self._call("closing")
        super().closing(timeout)

    def cancel_slow_request(self) -> None:
        self._call("cancel_slow_request")
        super().cancel_slow_request()

    def check_deadlines(self, now: float) -> None:
        self._call("check_deadlines")
        super().check_deadlines(now)


@pytest.mark.parametrize("exc", [ValueError("broken"), asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize(
    ("method", "timeout"),
    [("closing", 10), ("cancel_slow_request", 0), ("cancel_slow_request", 0.02), ("check_deadlines", 0.02)],
)
def test_one_connection_that_fails_does_not_keep_the_others_open(
    method: str, timeout: float, exc: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class One(Failing):
        failed: list[Any] = []  # noqa: RUF012 -- of all

    One.method, One.exc = method, exc

    async def main() -> None:
        connections = connections_of(asyncio.get_running_loop())
        results = [await converse(One(), [GET], close=False) for _ in range(5)]
        connections.closing(timeout)
        connections._sweep()
        for result in results:
            if method != "closing" or result.protocol in One.failed:
                await cut(result)
        assert len(set(One.failed)) == 1
        if method != "closing":
            assert all(result.transport.aborted for result in results)
            assert len(connections) == 0
        else:
            assert [result.transport.aborted for result in results].count(True) == 1
            assert all(result.protocol._times.cut for result in results if not result.transport.aborted)
            for result in results:
                if result.protocol in connections:
                    result.protocol.connection_lost(None)
        assert connections._timer is None

    run(main)
    assert type(exc).__name__ in caplog.text
