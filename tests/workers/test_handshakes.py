"""Whose turn a TLS handshake is, which one gives way, and which is too slow, on a loop whose time the test sets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

import pytest

from preforkd.workers import handshakes
from preforkd.workers.handshakes import TURNS, Handshakes
from preforkd.workers.tls_connection import TlsConnection

TIMEOUT = 10.0


class Loop:
    """Runs what is due when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.soon: list[Callable[[], None]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        self.timers.append((self.now + delay, callback))
        return callback

    def turn(self) -> None:
        due, self.soon = self.soon, []
        for callback in due:
            callback()

    def reach(self, now: float) -> None:
        while self.timers and min(self.timers)[0] <= now:
            self.timers.sort()
            self.now, callback = self.timers.pop(0)
            callback()
        self.now = now


class Above:
    """The protocol that waits for its connection."""

    peer_address = ("192.0.2.1", 1)


class Handshake:
    """One that is begun when its turn has come, and tells what is done to it."""

    def __init__(self, world: World, name: str, *, heard: bool = True) -> None:
        self.world, self.name, self.heard = world, name, heard
        self.above = Above()
        world.handshakes.begun(self.tls)

    @property
    def tls(self) -> TlsConnection:
        return cast(TlsConnection, self)

    def begin(self) -> None:
        self.world.told.append(f"{self.name} begins")

    def abort(self) -> None:
        self.give_up(ConnectionAbortedError("given up"))

    def give_up(self, exc: Exception) -> None:
        self.world.told.append(f"{self.name}: {exc}")
        self.world.handshakes.over(self.tls, exc)

    def get_protocol(self) -> Above:
        return self.above


class World:
    def __init__(self, timeout: float = TIMEOUT, loop: Loop | None = None) -> None:
        self.loop = loop or Loop()
        self.told: list[str] = []
        self.failed: list[object] = []
        self.opened: list[object] = []
        self.handshakes = Handshakes(
            cast(asyncio.AbstractEventLoop, self.loop),
            timeout,
            begun=self.opened.append,
            failed=self.failed.append,
            complains=lambda: True,
            logger=logging.getLogger("preforkd.test"),
        )


def test_handshakes_are_begun_one_each_turn_of_the_loop_and_the_oldest_gives_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handshakes, "HANDSHAKES", 2)
    world = World()
    waiting = [Handshake(world, name) for name in "abc"]
    for one in (*waiting, *waiting):
        world.handshakes.costs(one.tls)
    for number in range(5):
        world.loop.turn()
        world.told.append(str(number))
    assert world.told == ["a begins", "0", "b begins", "1", "c begins", "a: given up", "2", "3", "4"]
    assert world.failed == [waiting[0].above]
    assert "2 TLS handshakes have begun and are not done" in caplog.text


def test_whoever_is_given_up_while_it_waits_has_no_turn() -> None:
    world = World()
    first, second = Handshake(world, "a"), Handshake(world, "b")
    for one in (first, second):
        world.handshakes.costs(one.tls)
    first.give_up(OSError("gone"))
    world.loop.turn()
    second.give_up(OSError("gone"))
    world.loop.turn()
    assert world.told == ["a: gone", "b begins", "b: gone"]


def test_others_are_left_in_the_kernel_while_many_wait_for_their_turn() -> None:
    world = World()
    for number in range(TURNS + 1):
        assert not world.handshakes.is_busy()
        world.handshakes.costs(Handshake(world, str(number)).tls)
    assert world.handshakes.is_busy()
    world.loop.turn()
    assert not world.handshakes.is_busy()


def test_each_ends_when_its_time_is_over_and_there_is_one_timer_for_all() -> None:
    world = World()
    slow, good = Handshake(world, "slow"), Handshake(world, "good")
    world.loop.reach(4)
    late, later = Handshake(world, "late"), Handshake(world, "later")
    world.handshakes.over(good.tls, None)
    assert len(world.loop.timers) == 1
    world.loop.reach(TIMEOUT - 0.1)
    assert world.told == []
    world.loop.reach(TIMEOUT)
    assert world.told == ["slow: the handshake has taken too long"]
    world.loop.reach(TIMEOUT + 3.9)
    assert len(world.told) == 1
    world.loop.reach(TIMEOUT + 4)
    assert world.told[1:] == [f"{name}: the handshake has taken too long" for name in ("late", "later")]
    assert world.failed == [slow.above, late.above, later.above]
    assert world.loop.timers == [], "nothing to wait for"
    Handshake(world, "next")
    assert len(world.loop.timers) == 1
    assert len(world.handshakes) == 1


def test_without_a_timeout_nothing_ends() -> None:
    world = World(timeout=0)
    Handshake(world, "a")
    assert world.loop.timers == []
    assert len(world.handshakes) == 1


def test_the_silent_are_given_up_first_and_then_all() -> None:
    world = World()
    Handshake(world, "silent", heard=False)
    Handshake(world, "heard")
    world.handshakes.give_up(only_silent=True)
    assert world.told == ["silent: given up"]
    world.handshakes.give_up()
    assert world.told == ["silent: given up", "heard: given up"]


def test_the_end_of_the_last_one_is_waited_for() -> None:
    async def main() -> None:
        world = World()
        world.loop.create_future = asyncio.get_running_loop().create_future  # type: ignore[attr-defined]
        await world.handshakes.wait_over()  # there is none
        first, second = Handshake(world, "a"), Handshake(world, "b")
        waits = asyncio.ensure_future(world.handshakes.wait_over())
        await asyncio.sleep(0)
        world.handshakes.over(first.tls, None)
        await asyncio.sleep(0)
        assert not waits.done()
        second.give_up(OSError("gone"))
        await asyncio.wait_for(waits, 10)

    asyncio.run(main())


def test_what_goes_wrong_is_logged_by_whose_fault_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "preforkd.test")
    world = World()
    Handshake(world, "a").give_up(OSError("no certificate"))
    Handshake(world, "b").give_up(RuntimeError("no protocol"))
    levels = [record.levelname for record in caplog.records]
    assert levels == ["DEBUG", "ERROR"]
    assert "('192.0.2.1', 1) has failed: no certificate" in caplog.text
