"""Deadlines: pure, the clock passed in; then that each is acted on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from preforkd.workers import ConnectionState, Response, ServerHttpProtocol
from preforkd.workers.http.deadlines import MIN_RATE, UNTAKEN_SECONDS, Allowance, Deadline, Observed, Times, expired
from tests.workers.http.wire import GET, Echo, FakeTransport, converse, on_a_socket, turns

NEW, ACTIVE, IDLE, CLOSING, CLOSED, UPGRADED = ConnectionState
ALL = Allowance(head=10, keep_alive=20, body=30, request=40, write=50, linger=2)


def first_expiry(sights: dict[int, Observed], times: Times, allowed: Allowance = ALL) -> tuple[int, Deadline] | None:
    """Sweep once a second from 100 on; the observed of a second holds until the next one given."""
    observed = sights[100]
    for now in range(100, 400):
        observed = sights.get(now, observed)
        deadline = expired(observed, times, allowed, now)
        if deadline is not None:
            return now - 100, deadline
    return None


@pytest.mark.parametrize(
    ("observed", "times", "expected"),
    [
        (Observed(NEW), Times(head=100), (10, Deadline.HEAD)),
        (Observed(IDLE), Times(head=100), (10, Deadline.HEAD)),
        (Observed(IDLE), Times(), (20, Deadline.KEEP_ALIVE)),
        (Observed(ACTIVE), Times(), (40, Deadline.REQUEST)),
        (Observed(ACTIVE, body_bytes=5), Times(), (30, Deadline.BODY)),
        (Observed(IDLE, body_bytes=5), Times(), (30, Deadline.REST)),
        (Observed(CLOSING), Times(linger=100), (2, Deadline.LINGER)),
        (Observed(CLOSING), Times(), None),
        (Observed(CLOSED), Times(head=1, linger=1, cut=1), None),
        (Observed(UPGRADED), Times(), None),
        (Observed(UPGRADED, untaken=5), Times(), (50, Deadline.WRITE)),
        (Observed(IDLE, untaken=5), Times(head=100), (10, Deadline.HEAD)),
        (Observed(CLOSING, untaken=5), Times(linger=100), (50, Deadline.WRITE)),
        (Observed(ACTIVE, untaken=5), Times(), (40, Deadline.REQUEST)),
        (Observed(IDLE, untaken=5), Times(), (50, Deadline.WRITE)),
    ],
)
def test_each_state_runs_out_of_its_own_time(observed: Observed, times: Times, expected: object) -> None:
    assert first_expiry({100: observed}, times) == expected


def test_zero_is_for_ever() -> None:
    for state in (NEW, ACTIVE, UPGRADED):
        assert first_expiry({100: Observed(state, body_bytes=None, untaken=1)}, Times(head=100), Allowance()) is None
    assert first_expiry({100: Observed(IDLE)}, Times(head=100), Allowance()) is None


@pytest.mark.parametrize("state", [IDLE, CLOSING])
def test_a_complete_response_that_nobody_takes_has_its_end_also_where_there_is_no_write_timeout(
    state: ConnectionState,
) -> None:
    observed, allowed = Observed(state, untaken=1), Allowance(keep_alive=20)
    assert first_expiry({100: observed}, Times(linger=100), allowed) == (int(UNTAKEN_SECONDS), Deadline.WRITE)


def test_a_connection_is_not_idle_while_its_client_reads_the_response() -> None:
    reading = {now: Observed(IDLE, taken=now * MIN_RATE, untaken=10**6) for now in range(100, 170)}
    assert first_expiry({**reading, 170: Observed(IDLE)}, Times()) == (69 + 20, Deadline.KEEP_ALIVE)


def test_a_new_request_starts_the_time_anew() -> None:
    sights = {100: Observed(ACTIVE, 1), 130: Observed(ACTIVE, 2), 160: Observed(ACTIVE, 3)}
    assert first_expiry(sights, Times()) == (100, Deadline.REQUEST)


def test_a_body_that_dribbles_runs_out_and_one_at_the_minimum_rate_does_not() -> None:
    allowed = Allowance(body=30)
    dribble = {now: Observed(ACTIVE, body_bytes=now) for now in range(100, 400)}
    assert first_expiry(dribble, Times(), allowed) == (30, Deadline.BODY)
    steady = {now: Observed(ACTIVE, body_bytes=now * MIN_RATE) for now in range(100, 400)}
    assert first_expiry(steady, Times(), allowed) is None


def test_a_body_that_our_own_side_does_not_read_has_all_the_time() -> None:
    assert first_expiry({100: Observed(ACTIVE, body_bytes=None)}, Times(), Allowance(body=30)) is None


def test_a_client_that_reads_at_the_minimum_rate_has_all_the_time_and_one_that_drips_does_not() -> None:
    slow = {now: Observed(ACTIVE, taken=now // 20 * 40 * MIN_RATE, untaken=10**6) for now in range(100, 400)}
    assert first_expiry(slow, Times(), Allowance(write=50)) is None
    drip = {now: Observed(ACTIVE, taken=now, untaken=10**6) for now in range(100, 400)}
    assert first_expiry(drip, Times(), Allowance(write=50)) == (50, Deadline.WRITE)
    assert first_expiry({100: Observed(ACTIVE, taken=7, untaken=9)}, Times(), Allowance(write=50)) == (
        50,
        Deadline.WRITE,
    )


def test_a_client_that_is_far_away_and_takes_little_because_there_is_little_has_all_the_time() -> None:
    ticks = {now: Observed(ACTIVE, taken=now, untaken=9) for now in range(100, 400)}
    assert first_expiry(ticks, Times(), Allowance(write=50)) is None


def test_who_has_taken_nothing_for_a_while_stalls() -> None:
    times = Times()
    assert not times.stalls(100)
    expired(Observed(ACTIVE, taken=5, untaken=9), times, ALL, 100)
    assert [times.stalls(now) for now in (101, 102)] == [False, True]
    expired(Observed(ACTIVE, taken=6, untaken=8), times, ALL, 102)
    assert [times.stalls(now) for now in (103, 104)] == [False, True]
    expired(Observed(ACTIVE), times, ALL, 104)
    assert not times.stalls(200)


def test_lingering_begins_when_all_is_sent() -> None:
    sights = {100: Observed(CLOSING, untaken=9), 120: Observed(CLOSING)}
    assert first_expiry(sights, Times(linger=100), ALL) == (21, Deadline.LINGER)


def test_short_times_are_looked_at_more_often() -> None:
    assert Allowance().sweep_interval == 1
    assert Allowance(keep_alive=75, head=15).sweep_interval == 1
    assert Allowance(keep_alive=75, head=1).sweep_interval == 0.25
    assert Allowance(head=0.001).sweep_interval == 0.05


# What is done about it.


class Stuck(ServerHttpProtocol):
    cancelled = False

    async def handle_request(self, message: Any, payload: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


def sweep(protocol: Any, *seconds: float) -> None:
    now = asyncio.get_running_loop().time()
    for second in seconds:
        protocol.check_deadlines(now + second)


def test_a_slow_head_is_answered_408() -> None:
    async def main() -> None:
        result = await converse(Echo(timeout=5), [GET[:9]], close=False)
        sweep(result.protocol, 4)
        assert result.output == b""
        sweep(result.protocol, 6)
        await turns()
        assert result.statuses == [408]
        assert result.ended
        result.protocol.connection_lost(None)

    asyncio.run(main())


def test_a_silent_connection_is_closed_without_an_answer() -> None:
    async def main() -> None:
        result = await converse(Echo(timeout=5), [], close=False)
        sweep(result.protocol, 4)
        assert not result.transport.closed
        sweep(result.protocol, 6)
        assert result.transport.closed
        assert result.output == b""

    asyncio.run(main())


def test_the_header_timeout_of_a_later_request_counts_from_its_first_byte() -> None:
    async def main() -> None:
        result = await converse(Echo(timeout=5, keep_alive=60), [GET], close=False)
        sweep(result.protocol, 0, 50)
        assert not result.ended
        result.protocol.data_received(GET[:9])
        sweep(result.protocol, 4)
        assert not result.ended
        sweep(result.protocol, 6)
        await turns()
        assert result.replies[-1].status == 408
        result.protocol.connection_lost(None)

    asyncio.run(main())


def test_a_request_that_waits_for_its_turn_in_the_loop_is_not_late() -> None:
    async def main() -> None:
        protocol = Echo(timeout=5)
        transport = FakeTransport(protocol)
        protocol.connection_made(transport)
        protocol.data_received(GET)
        sweep(protocol, 6)  # before its task has begun
        await turns()
        assert bytes(transport.output).startswith(b"HTTP/1.1 200 ")
        protocol.connection_lost(None)

    asyncio.run(main())


def test_a_connection_closed_before_its_task_has_begun_answers_nothing() -> None:
    async def main() -> None:
        protocol = Echo()
        transport = FakeTransport(protocol)
        protocol.connection_made(transport)
        protocol.data_received(GET)
        protocol.close()
        await turns()
        assert transport.output == b""
        assert protocol.state is CLOSING
        protocol.connection_lost(None)
        await turns()
        assert protocol.state is CLOSED

    asyncio.run(main())


def test_an_idle_connection_is_closed_after_keep_alive() -> None:
    async def main() -> None:
        result = await converse(Echo(keep_alive=10), [GET], close=False)
        sweep(result.protocol, 0, 9)
        assert not result.transport.closed
        sweep(result.protocol, 11)
        assert result.transport.closed
        assert result.statuses == [200]

    asyncio.run(main())


@pytest.mark.parametrize("first", [[], [GET]])
def test_a_request_that_is_in_the_socket_already_is_served_at_the_end_of_the_time(first: list[bytes]) -> None:
    async def main() -> None:
        protocol = Echo(timeout=10, keep_alive=10)
        with on_a_socket(protocol) as (transport, ours, theirs):
            for data in first:
                protocol.data_received(data)
                await turns()
            theirs.send(GET)
            sweep(protocol, 0, 11)
            assert not transport.closed
            protocol.data_received(ours.recv(100))
            await turns()
            assert transport.output.count(b"HTTP/1.1 200 ") == len(first) + 1
            sweep(protocol, 20, 31)
            assert transport.closed
            assert theirs.recv(1) == b""

    asyncio.run(main())


def test_a_client_that_does_not_answer_the_end_of_tls_is_not_waited_for_longer_than_the_linger() -> None:
    class Waiting(FakeTransport):
        def close(self) -> None:  # as asyncio does it: until the client's close_notify, or for half a minute
            self.closed = True

        def abort(self) -> None:
            self.aborted = True

    async def main() -> None:
        protocol = Echo(keep_alive=10)
        transport = Waiting(protocol, tls=True)
        protocol.connection_made(transport)
        protocol.data_received(GET)
        await turns()
        sweep(protocol, 0, 11)
        assert transport.closed
        sweep(protocol, 1)
        assert not transport.aborted
        sweep(protocol, 3)
        assert transport.aborted
        protocol.connection_lost(None)
        await turns()

    asyncio.run(main())


def test_a_body_without_progress_is_answered_408() -> None:
    async def main() -> None:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nx"
        result = await converse(Echo(body_timeout=10), [head], close=False)
        sweep(result.protocol, 0, 9)
        assert result.output == b""
        sweep(result.protocol, 11)
        await turns()
        assert result.statuses == [408]
        assert result.seen == [("POST", "/", "BadRequestError")]
        assert result.ended
        result.protocol.connection_lost(None)

    asyncio.run(main())


def test_a_body_that_we_have_not_asked_for_yet_is_not_late() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 99\r\n\r\n"

    async def main() -> None:
        result = await converse(Stuck(body_timeout=10), [head], close=False)
        sweep(result.protocol, 0, 11, 22)
        assert result.protocol._intake.payload.exception() is None
        result.protocol._intake.body_wanted()
        await turns()
        sweep(result.protocol, 30, 41)
        assert result.protocol._intake.payload.exception() is not None
        result.protocol.connection_lost(None)

    asyncio.run(main())


def test_a_request_that_takes_too_long_is_cancelled_and_answered_503() -> None:
    async def main() -> None:
        result = await converse(Stuck(request_timeout=10), [GET], close=False)
        sweep(result.protocol, 0, 9)
        assert result.output == b""
        sweep(result.protocol, 11)
        await turns()
        assert result.statuses == [503]
        assert result.protocol.cancelled
        assert result.ended
        result.protocol.connection_lost(None)

    asyncio.run(main())


def test_a_handler_that_ignores_its_cancellation_is_cut() -> None:
    class Stubborn(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            while self.transport is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()

    async def main() -> None:
        result = await converse(Stubborn(request_timeout=10), [GET], close=False)
        sweep(result.protocol, 0, 11)
        await turns()
        sweep(result.protocol, 12)
        await turns()
        assert result.transport.aborted
        assert result.protocol.state is CLOSED

    asyncio.run(main())


def test_a_handler_that_answers_in_spite_of_its_cancellation_ends_the_connection() -> None:
    class Late(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await super().handle_request(message, payload)

    async def main() -> None:
        result = await converse(Late(request_timeout=10), [GET], close=False)
        sweep(result.protocol, 0, 11)
        await turns()
        assert [reply.headers["Connection"] for reply in result.replies] == ["close"]
        assert result.ended
        result.protocol.connection_lost(None)

    asyncio.run(main())


def test_a_client_that_does_not_read_is_cut() -> None:
    async def main() -> None:
        result = await converse(Stuck(write_timeout=10), [GET], close=False)
        result.protocol.writer.write(bytes(1000))
        result.protocol.writer.flush()
        result.transport.unsent = 1000
        sweep(result.protocol, 0, 9)
        assert not result.transport.aborted
        sweep(result.protocol, 11)
        assert result.transport.aborted

    asyncio.run(main())


def test_a_client_that_does_not_close_is_not_waited_for_longer_than_the_linger() -> None:
    class Bye(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            response = Response(self.writer, 200)
            response.send_headers()
            await response.write_eof()

    async def main() -> None:
        result = await converse(Bye(), [GET], close=False)
        assert result.transport.half_closed
        sweep(result.protocol, 1)
        assert not result.transport.closed
        sweep(result.protocol, 3)
        assert result.transport.closed

    asyncio.run(main())


def test_the_rest_of_an_unread_body_is_waited_for_as_long_as_a_body_is() -> None:
    class Unread(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            response = Response(self.writer, 200)
            response.send_headers()
            await response.write_eof()

    async def main() -> None:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nx"
        result = await converse(Unread(body_timeout=5), [head], close=False)
        assert not result.ended
        sweep(result.protocol, 0, 4)
        assert not result.ended, "its client was told keep-alive, and the next request comes behind that rest"
        sweep(result.protocol, 6)
        assert result.transport.half_closed
        result.protocol.connection_lost(None)

    asyncio.run(main())
