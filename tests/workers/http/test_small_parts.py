"""The small modules: limits, clock, errors, message, filters, waiter, writer, fields."""

from __future__ import annotations

import asyncio
import contextvars
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from preforkd.workers import ClientDisconnectedError, HttpProcessingError, HttpVersion11, RequestMessage
from preforkd.workers.http import fields
from preforkd.workers.http.clock import Clock, Zone
from preforkd.workers.http.errors import BadRequestError
from preforkd.workers.http.filters import Rechunker
from preforkd.workers.http.limits import DEFAULT_LIMITS, Limits, limits_from
from preforkd.workers.http.waiter import Wakeup
from preforkd.workers.http.writer import ResponseWriter
from tests.workers.http.wire import FakeTransport, turns

# limits


def test_the_same_limits_are_one_object() -> None:
    assert limits_from({}) is DEFAULT_LIMITS
    assert limits_from({"limit_body": 5}) is limits_from({"limit_body": 5})
    assert limits_from({"limit_body": 5}) == Limits(limit_body=5)


@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_limit_is_not_negative(value: float) -> None:
    with pytest.raises(ValueError, match="limit_body must not be negative"):
        limits_from({"limit_body": value})


@pytest.mark.parametrize("value", ["5", None, True])
def test_a_limit_is_a_number(value: Any) -> None:
    with pytest.raises(TypeError, match="limit_body must be a number"):
        limits_from({"limit_body": value})


# clock


@pytest.fixture
def zone_of() -> Iterator[Callable[[str | None], None]]:
    """Sets the process's time zone, for the test."""
    before = os.environ.get("TZ")

    def take(name: str | None) -> None:
        os.environ.pop("TZ", None)
        if name is not None:
            os.environ["TZ"] = name
        time.tzset()

    yield take
    take(before)


@pytest.mark.parametrize("name", ["Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3", "America/St_Johns", "UTC", "XYZ+3:30"])
def test_a_zone_is_known_for_years_and_stays_when_the_process_gets_another(
    name: str, zone_of: Callable[[str | None], None]
) -> None:
    zone_of(name)
    now = 1795000000
    zone = Zone(now)
    seconds = range(now - 86400, now + 9 * 365 * 86400, 3600 * 7 + 1)
    expected = [time.localtime(second).tm_gmtoff for second in seconds]
    zone_of("Asia/Tokyo")
    assert [zone.offset(second) for second in seconds] == expected


def test_the_clock_changes_to_summer_time_in_that_very_second(zone_of: Callable[[str | None], None]) -> None:
    zone_of("CET-1CEST,M3.5.0,M10.5.0/3")
    clock = Clock()
    zone_of("America/Chicago")
    begin = 1806195600  # 2027-03-28T01:00:00Z
    texts = []
    for second in (begin - 1, begin):
        clock.update(second)
        texts.append(clock.log_time)
    assert texts == ["[28/Mar/2027:01:59:59 +0100]", "[28/Mar/2027:03:00:00 +0200]"]


def test_the_texts_are_of_the_second_given() -> None:
    clock = Clock()
    clock.update(784111777.9)  # RFC 9110 section 5.6.7's example
    assert clock.date == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert clock.iso_time == "1994-11-06T08:49:37Z"
    fields = f"Date: {clock.date}\r\nServer: preforkd\r\nConnection: ".encode()
    assert clock.keep_alive_fields == fields + b"keep-alive\r\n\r\n"
    assert clock.close_fields == fields + b"close\r\n\r\n"
    local = time.localtime(784111777)
    assert clock.log_time == time.strftime("[%d/Nov/1994:%H:%M:%S %z]", local)
    before = clock.date
    clock.update(784111777.1)
    assert clock.date is before


# errors


def test_errors_carry_their_status() -> None:
    error = HttpProcessingError(404, "gone", {"X": "y"})
    assert (error.code, error.message, error.headers) == (404, "gone", {"X": "y"})
    assert str(error) == "404, message='gone'"
    assert (BadRequestError("x").code, BadRequestError("x", code=413).code) == (400, 413)
    assert HttpProcessingError().code == 500
    assert issubclass(ClientDisconnectedError, ConnectionError)


# message


def test_headers_are_made_once_and_keep_every_byte() -> None:
    fields = [(b"a", b"1"), (b"a", b"\xff"), (b"b", b"\xc3\xa4")]
    head = b"GET / HTTP/1.1\r\nA: \t 1 \r\na:\xff\r\nB: \xc3\xa4\r\n\r\n"
    message = RequestMessage("GET", "/", HttpVersion11, fields, should_close=False, head=head)
    assert message.headers is message.headers
    assert message.headers.getall("A") == ["1", "\udcff"]
    assert message.headers["b"] == "ä"
    assert message.raw_headers == ((b"A", b"1"), (b"a", b"\xff"), (b"B", b"\xc3\xa4"))
    assert [name for name, _ in message.headers.items()] == ["A", "a", "B"]
    assert RequestMessage("GET", "/", HttpVersion11, fields, should_close=False).raw_headers == tuple(fields)
    assert repr(message) == "<RequestMessage GET / HTTP/1.1>"


# filters


def test_rechunker_keeps_the_bytes() -> None:
    parts = Rechunker(3)
    out = [part for data in (b"", b"ab", b"cdefgh", b"i") for part in parts.feed(data)]
    assert [*out, *parts.finish()] == [b"abc", b"def", b"ghi"]
    assert [*parts.feed(b"jk"), *parts.finish(), *parts.finish()] == [b"jk"]


# fields


def test_memory_of_fields_is_bounded() -> None:
    for number in range(5000):
        fields.meaning_of(f"X-{number}")
        fields.remember("Content-Type", str(number), b"line")
    assert len(fields._MEANINGS) <= 2048
    assert len(fields._FIELDS) <= 1024


# waiter


def test_a_wakeup_resumes_its_task_at_once_again_and_again() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        wakeup = Wakeup(loop)
        woken = 0

        async def wait() -> None:
            nonlocal woken
            while True:
                await wakeup
                woken += 1

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        done = loop.create_future()

        def wake_twice() -> None:
            wakeup.wake()
            assert woken == 1
            wakeup.wake()
            assert woken == 2
            done.set_result(None)

        loop.call_soon(wake_twice)
        await done
        wakeup.wake()  # within another task: in the next turn
        assert woken == 2
        await asyncio.sleep(0)
        assert woken == 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        wakeup.wake()
        assert not wakeup.cancel()

    asyncio.run(main())


def test_a_cancellation_reaches_the_task_that_has_waited_not_the_one_that_waits_now() -> None:
    async def main() -> None:
        wakeup = Wakeup(asyncio.get_running_loop())
        woken: list[asyncio.Future[None]] = []

        async def wait() -> None:
            await wakeup

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        task.cancel()
        # Another one waits, and is woken before the first has had its turn.
        wakeup.add_done_callback(woken.append, context=contextvars.copy_context())
        wakeup.wake()
        woken[0].result()  # the other's: does not raise
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_the_task_of_a_wakeup_keeps_its_identity_and_its_context() -> None:
    variable = contextvars.ContextVar[str]("variable")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wakeup = Wakeup(loop)
        seen = []

        async def wait() -> None:
            variable.set("the task's")
            await wakeup
            async with asyncio.timeout(5):
                await asyncio.sleep(0)
                seen.append((asyncio.current_task(), variable.get()))

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        variable.set("the caller's")
        loop.call_soon(wakeup.wake)
        await task
        assert seen == [(task, "the task's")]

    asyncio.run(main())


# writer


def test_drain_waits_for_all_who_wait_and_ends_with_the_connection() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        connection: Any = None
        transport = FakeTransport(asyncio.Protocol())
        writer = ResponseWriter(connection, connection, transport, loop)
        writer.write(b"x")
        await writer.drain()
        assert transport.output == b"x"
        writer.pause()
        waiting = [asyncio.ensure_future(writer.drain()) for _ in range(3)]
        await turns()
        waiting[0].cancel()
        await turns()
        assert [task.done() for task in waiting] == [True, False, False]
        writer.resume()
        await asyncio.gather(*waiting[1:])
        writer.pause()
        last = asyncio.ensure_future(writer.drain())
        await turns()
        writer.lose()
        with pytest.raises(ClientDisconnectedError):
            await last
        with pytest.raises(ClientDisconnectedError):
            await writer.drain()
        with pytest.raises(ClientDisconnectedError):
            writer.write(b"x")

    asyncio.run(main())


def test_small_writes_of_a_turn_are_joined_and_large_ones_not_copied() -> None:
    async def main() -> None:
        connection: Any = None
        transport = FakeTransport(asyncio.Protocol())
        writer = ResponseWriter(connection, connection, transport, asyncio.get_running_loop())
        for _ in range(5):
            writer.write(b"ab")
        assert transport.writes == []
        await asyncio.sleep(0)
        assert transport.writes == [b"ab" * 5]
        writer.write(b"x" * (2 << 20))
        assert len(transport.writes) == 2
        assert writer.sent == 10 + (2 << 20)

    asyncio.run(main())
