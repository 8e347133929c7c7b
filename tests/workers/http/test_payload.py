"""The body as a stream, in all its ways to read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from preforkd.workers import EMPTY_PAYLOAD, ClientDisconnectedError, PayloadStream
from preforkd.workers.http.payload import HIGH_WATER, LOW_WATER


class Source:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause_body(self) -> None:
        self.calls.append("pause")

    def resume_body(self) -> None:
        self.calls.append("resume")

    def body_wanted(self) -> None:
        self.calls.append("wanted")


Reader = Callable[[PayloadStream], Awaitable[object]]


def read(reader: Reader, *parts: bytes, eof: bool = True, source: Source | None = None) -> object:
    """Let `reader` read while the parts arrive one a turn."""

    async def main() -> object:
        stream = PayloadStream(source or Source(), asyncio.get_running_loop())
        task = asyncio.ensure_future(reader(stream))
        for part in parts:
            await asyncio.sleep(0)
            stream.feed(part)
        await asyncio.sleep(0)
        if eof:
            stream.feed_eof()
        return await asyncio.wait_for(task, 5)

    return asyncio.run(main())


def both_ways(data: bytes) -> list[list[bytes]]:
    return [[data], [data[i : i + 1] for i in range(len(data))]]


@pytest.mark.parametrize("parts", both_ways(b"one\ntwo\n\nlast"))
def test_every_way_to_read_gives_the_same_bytes(parts: list[bytes]) -> None:
    async def lines(stream: PayloadStream) -> list[bytes]:
        found = []
        while not stream.at_eof():
            found.append(await stream.readline())
        return found

    async def exactly(stream: PayloadStream) -> list[bytes]:
        return [await stream.readexactly(4), await stream.readexactly(9), await stream.readexactly(0)]

    async def by_three(stream: PayloadStream) -> bytes:
        found = b""
        while part := await stream.read(3):
            assert len(part) <= 3
            found += part
        return found

    async def iterate(stream: PayloadStream) -> bytes:
        return b"".join([part async for part in stream])

    async def anything(stream: PayloadStream) -> bytes:
        found = b""
        while part := await stream.readany():
            found += part
        return found

    whole = b"one\ntwo\n\nlast"
    assert read(lambda stream: stream.read(), *parts) == whole
    assert read(lambda stream: stream.read(0), *parts) == b""
    assert [line for line in read(lines, *parts) if line] == [b"one\n", b"two\n", b"\n", b"last"]  # type: ignore[attr-defined]  # a list
    assert read(exactly, *parts) == [b"one\n", b"two\n\nlast", b""]
    assert read(by_three, *parts) == read(iterate, *parts) == read(anything, *parts) == whole


def test_readexactly_tells_what_came_of_it() -> None:
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        read(lambda stream: stream.readexactly(5), b"abc")
    assert (caught.value.partial, caught.value.expected) == (b"abc", 5)


def test_a_line_is_limited() -> None:
    with pytest.raises(ValueError, match="too long"):
        read(lambda stream: stream.readline(limit=10), b"x" * 11, b"\n")


@pytest.mark.parametrize(
    "reader",
    [
        lambda stream: stream.read(),
        lambda stream: stream.read(99),
        lambda stream: stream.readany(),
        lambda stream: stream.readline(),
        lambda stream: stream.readexactly(5),
        lambda stream: stream.__anext__(),
    ],
)
def test_a_cut_body_raises_in_every_way_to_read(reader: Reader) -> None:
    async def main() -> None:
        stream = PayloadStream(Source(), asyncio.get_running_loop())
        waiting = asyncio.ensure_future(reader(stream))
        await asyncio.sleep(0)
        stream.set_exception(ClientDisconnectedError("cut"))
        with pytest.raises(ClientDisconnectedError):
            await waiting
        late = PayloadStream(Source(), asyncio.get_running_loop())
        late.feed(b"ab")
        late.set_exception(ClientDisconnectedError("cut"))
        with pytest.raises(ClientDisconnectedError):
            await reader(late)
        assert not late.at_eof()

    asyncio.run(main())


def test_a_reader_that_was_cancelled_makes_room_for_another_at_once() -> None:
    async def main() -> None:
        stream = PayloadStream(Source(), asyncio.get_running_loop())
        first = asyncio.ensure_future(stream.readany())
        await asyncio.sleep(0)
        first.cancel()
        asyncio.get_running_loop().call_later(0.01, stream.feed, b"data")
        second = stream.readany()  # before the first knows
        assert await second == b"data"
        assert first.cancelled()

    asyncio.run(main())


def test_bytes_that_come_after_an_exception_are_dropped() -> None:
    async def main() -> None:
        source = Source()
        stream = PayloadStream(source, asyncio.get_running_loop())
        stream.feed(b"before")
        stream.set_exception(ClientDisconnectedError("cut"))
        stream.feed(b"x" * (HIGH_WATER + 1))
        stream.feed_eof()
        assert stream.total == 6
        for _ in range(2):
            with pytest.raises(ClientDisconnectedError):
                await stream.read()

    asyncio.run(main())


def test_an_exception_after_the_end_changes_nothing() -> None:
    async def main() -> None:
        stream = PayloadStream(Source(), asyncio.get_running_loop())
        stream.feed(b"all")
        stream.feed_eof()
        stream.set_exception(ClientDisconnectedError("late"))
        assert await stream.read() == b"all"

    asyncio.run(main())


def test_the_source_is_paused_above_the_high_and_resumed_below_the_low_water_mark() -> None:
    async def main() -> None:
        source = Source()
        stream = PayloadStream(source, asyncio.get_running_loop())
        stream.feed(b"x" * HIGH_WATER)
        assert source.calls == []
        stream.feed(b"x")
        stream.feed(b"x")
        assert source.calls == ["pause"]
        await stream.read(HIGH_WATER - LOW_WATER)
        assert source.calls == ["pause"]
        await stream.read(2)
        assert source.calls == ["pause", "resume"]

    asyncio.run(main())


def test_the_client_is_asked_for_the_body_when_the_handler_waits_for_it() -> None:
    source = Source()
    read(lambda stream: stream.read(), b"x", source=source)
    assert source.calls[0] == "wanted"

    async def at_once() -> None:
        stream = PayloadStream(source, asyncio.get_running_loop())
        stream.feed(b"x")
        source.calls.clear()
        await stream.readany()

    asyncio.run(at_once())
    assert source.calls == []


def test_two_readers_at_a_time_are_an_error() -> None:
    async def main() -> None:
        stream = PayloadStream(Source(), asyncio.get_running_loop())
        first = asyncio.ensure_future(stream.read())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await stream.readany()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        stream.feed(b"x")
        assert await stream.readany() == b"x"

    asyncio.run(main())


def test_the_empty_payload_is_at_its_end() -> None:
    async def main() -> None:
        assert EMPTY_PAYLOAD.at_eof()
        assert await EMPTY_PAYLOAD.read() == await EMPTY_PAYLOAD.readany() == await EMPTY_PAYLOAD.readline() == b""
        assert [part async for part in EMPTY_PAYLOAD] == []
        EMPTY_PAYLOAD.set_exception(ClientDisconnectedError("not for it"))
        assert EMPTY_PAYLOAD.exception() is None

    asyncio.run(main())
