"""Which streams of a worker that leaves are told, and when."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest

from preforkd.workers.gateways.asgi.draining import DrainingEvent
from preforkd.workers.gateways.asgi.response import AsgiResponse
from preforkd.workers.gateways.hop_by_hop import HopByHopFields
from preforkd.workers.gateways.streams import StreamDrain, Times, Told, is_event_stream, times_to_tell
from preforkd.workers.gateways.wsgi.draining import DrainingFlag
from preforkd.workers.http.writer import ResponseWriter


class Loop:
    """A loop whose clock is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.planned: list[tuple[float, Callable[..., object], tuple[Any, ...]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Loop:
        self.planned.append((when, callback, args))
        return self

    def cancel(self) -> None:
        self.planned.clear()

    def pass_to(self, now: float) -> None:
        self.now = now
        due = [one for one in self.planned if one[0] <= now]
        self.planned = [one for one in self.planned if one[0] > now]
        for _, callback, args in due:
            callback(*args)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    fake = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: fake)
    return fake


@pytest.mark.parametrize(
    ("when", "knows", "times"),
    [
        ("auto", False, Times(100, 123)),
        ("all", False, Times(100, 100)),
        ("late", False, Times(123, 123)),
        ("auto", True, Times(102, 123)),
        ("all", True, Times(102, 102)),
        ("late", True, Times(123, 123)),
    ],
)
def test_streams_are_told_as_the_option_says_and_later_if_the_app_has_last_words(
    when: str, knows: bool, times: Times
) -> None:
    assert times_to_tell(when, 100, 125, app_knows=knows) == times


@pytest.mark.parametrize(("deadline", "late"), [(125, 123), (110, 108), (105, 104), (100, 100), (90, 90)])
def test_late_is_two_seconds_or_a_fifth_before_the_end(deadline: float, late: float) -> None:
    assert times_to_tell("late", 100, deadline, app_knows=False).others == late


def test_a_standby_that_leaves_for_good_keeps_its_time(loop: Loop) -> None:
    said: list[tuple[float, Told]] = []
    drain = StreamDrain("auto", lambda: said.append((loop.now, drain.told)))
    drain.begin(110, app_knows=False)
    loop.pass_to(105)
    drain.begin(110, app_knows=False)
    loop.pass_to(107.9)
    assert said == [(100, Told.RETURNING)]
    loop.pass_to(108)
    assert said == [(100, Told.RETURNING), (108, Told.ALL)]
    drain.begin(110, app_knows=False)
    assert drain.told is Told.ALL, "what was told is told"


def test_a_worker_that_serves_on_tells_nobody_and_begins_anew(loop: Loop) -> None:
    drain = StreamDrain("late", lambda: None)
    drain.begin(110, app_knows=False)
    drain.end()
    loop.pass_to(120)
    assert drain.told is Told.NONE
    drain.begin(130, app_knows=False)
    loop.pass_to(127.9)
    assert drain.told is Told.NONE
    loop.pass_to(128)
    assert [drain.told] == [Told.ALL]


def test_all_are_told_together(loop: Loop) -> None:
    drain = StreamDrain("all", lambda: None)
    drain.begin(110, app_knows=False)
    assert drain.told is Told.ALL
    assert not loop.planned


@pytest.mark.parametrize(
    ("pairs", "is_one"),
    [
        ([(b"content-type", b"text/event-stream")], True),
        ([(b"X-A", b"b"), (b"Content-Type", b" Text/Event-Stream ; charset=utf-8")], True),
        ([(b"content-type", b"text/event-streams")], False),
        ([(b"content-type", b"text/plain")], False),
        ([(b"x-content-type", b"text/event-stream")], False),
        ([], False),
    ],
)
def test_an_event_stream_is_known_by_its_type(pairs: list[tuple[bytes, bytes]], is_one: bool) -> None:
    fields = HopByHopFields(logging.getLogger("tests"))
    response = AsgiResponse(ResponseWriter(None, None, None, None), 200)  # type: ignore[arg-type]  # nothing is written
    response.add_pairs(pairs, fields)
    assert is_event_stream(response) == is_one


# What apps ask


def test_the_event_knows_whether_it_is_asked_for() -> None:
    async def main() -> None:
        for ask in (DrainingEvent.is_set, DrainingEvent.wait, lambda event: asyncio.ensure_future(event.wait())):
            event = DrainingEvent()
            event.set()
            event.clear()
            assert not event.is_used, "by us"
            asked: Any = ask(event)
            assert event.is_used
            getattr(asked, "close", getattr(asked, "cancel", bool))()
        event = DrainingEvent()
        event.set()
        assert await event is True
        assert event.is_used

    asyncio.run(main())


def test_a_copy_of_a_scope_has_the_same_event() -> None:
    scope = {"preforkd.draining": DrainingEvent(), "extensions": {"preforkd.draining": {}}}
    assert copy.deepcopy(scope)["preforkd.draining"] is scope["preforkd.draining"]


def test_the_flag_of_wsgi_knows_it_too() -> None:
    flag = DrainingFlag()
    flag.set()
    assert not flag.is_used
    assert flag.wait(0)
    assert flag.is_used
