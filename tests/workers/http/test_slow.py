"""Where a coroutine is, and which request is told to be slow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Generator
from types import SimpleNamespace
from typing import Any

import pytest

from preforkd.workers.http.deadlines import Times
from preforkd.workers.http.slow import MOST_FRAMES, SlowRequests, awaited, place
from preforkd.workers.http.states import ConnectionState


async def inner(event: asyncio.Event) -> None:
    await event.wait()


class Awaitable:
    def __init__(self, event: asyncio.Event) -> None:
        self.event = event

    def __await__(self) -> Generator[Any, None, None]:
        yield from inner(self.event).__await__()


async def parts(event: asyncio.Event) -> AsyncIterator[int]:
    await Awaitable(event)
    yield 1


async def outer(event: asyncio.Event) -> None:
    async def through_a_task() -> None:
        async for _ in parts(event):
            pass

    await asyncio.create_task(through_a_task())


def test_the_frames_lead_through_tasks_generators_and_awaitables() -> None:
    async def look() -> list[str]:
        event = asyncio.Event()
        task = asyncio.create_task(outer(event))
        await asyncio.sleep(0.01)
        names = [frame.f_code.co_name for frame in awaited(task)]
        event.set()
        await task
        assert list(awaited(task)) == []
        return names

    names = asyncio.run(look())
    assert names[:6] == ["outer", "through_a_task", "parts", "__await__", "inner", "wait"]


def test_a_place_is_one_line_of_the_last_calls() -> None:
    async def deep(depth: int, event: asyncio.Event) -> None:
        await (deep(depth - 1, event) if depth else event.wait())

    async def look() -> str:
        event = asyncio.Event()
        task = asyncio.create_task(deep(MOST_FRAMES + 5, event))
        await asyncio.sleep(0.01)
        said = place(awaited(task))
        event.set()
        await task
        return said

    said = asyncio.run(look())
    assert said.startswith("in ... > ")
    assert said.count(" > ") == MOST_FRAMES
    assert place([]) == "in none of the app's code"


class Connection(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]


def test_a_request_is_told_once_and_the_next_one_again(caplog: pytest.LogCaptureFixture) -> None:
    slow = SlowRequests(2.0, logging.getLogger("slow"))
    request = SimpleNamespace(method="GET", path="/\x1b")
    connection: Any = Connection(
        state=ConnectionState.ACTIVE, _times=Times(since=10.0), requests=1, request=request, remote="1.2.3.4",
        deferred=None, handler_task=None,
    )  # fmt: skip
    for now in (11.0, 12.5, 13.0):
        slow.look(connection, now)
    assert [one.getMessage() for one in caplog.records] == [
        "slow request: GET '/\\x1b' of 1.2.3.4, 2.5 s so far, in none of the app's code"
    ]
    connection.requests, connection._times.since = 2, 20.0
    slow.look(connection, 23.0)
    connection.state = ConnectionState.UPGRADED
    slow.look(connection, 99.0)
    assert len(caplog.records) == 2
