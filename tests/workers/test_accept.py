"""Fair accept, with a loop and sockets that do what the test says."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from preforkd.workers.accept import AHEAD, ALONE, TROUBLE_PAUSE, YIELD, Acceptor, accept_from, takes
from preforkd.workers.scoreboard import NOBODY, AcceptState

LENT = 4
"""The descriptor of a listener that is somebody else's."""


class Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Readers and timers, run by the test."""

    def __init__(self) -> None:
        self.now = 0.0
        self.readers: dict[int, tuple[Callable[..., None], tuple[object, ...]]] = {}
        self.timers: list[tuple[float, Timer]] = []

    def add_reader(self, fd: int, callback: Callable[..., None], *args: object) -> None:
        self.readers[fd] = (callback, args)

    def remove_reader(self, fd: int) -> bool:
        return self.readers.pop(fd, None) is not None

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        self.timers.append((self.now + delay, timer))
        return timer

    def time(self) -> float:
        return self.now

    def readable(self) -> None:
        """All listeners are readable: one wake-up each."""
        for callback, args in list(self.readers.values()):
            callback(*args)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for when, timer in self.timers if when <= self.now]
        self.timers = [(when, timer) for when, timer in self.timers if when > self.now]
        for timer in due:
            if not timer.cancelled:
                timer.callback()


class Listener:
    """A listening socket with a queue of numbers, or of errors."""

    def __init__(self, fd: int, *queue: object) -> None:
        self.fd = fd
        self.queue = list(queue)
        self.asked = 0
        self.closed = False
        self.shut = False

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_RDWR
        self.shut = True

    def fileno(self) -> int:
        return self.fd

    def accept(self) -> tuple[object, None]:
        self.asked += 1
        if not self.queue:
            raise BlockingIOError
        first = self.queue.pop(0)
        if isinstance(first, OSError):
            raise first
        return first, None

    def close(self) -> None:
        self.closed = True


class World:
    def __init__(self, *queues: tuple[object, ...], limit: int = 100) -> None:
        self.loop = Loop()
        self.listeners = [Listener(fd, *queue) for fd, queue in enumerate(queues, start=3)]
        self.taken: list[object] = []
        self.least: int | None = 10**6
        self.elsewhere = 0
        self.busy = False
        self.shown: list[AcceptState] = []
        self.acceptor = Acceptor(
            cast(asyncio.AbstractEventLoop, self.loop),
            cast("list[socket.socket]", self.listeners),
            lent={LENT},
            take=lambda connection, _listener, _address: self.taken.append(connection),
            held=lambda: len(self.taken) + self.elsewhere,
            others=lambda: None if self.least is None else (self.least, self.least),
            show=self.shown.append,
            limit=limit,
            busy=lambda: self.busy,
            accept=lambda listener: listener.accept(),
            logger=logging.getLogger("preforkd.test"),
        )


def test_nothing_is_accepted_before_it_is_told_to() -> None:
    world = World((1, 2))
    world.loop.readable()
    assert world.taken == []


def test_one_connection_is_taken_per_wake_up() -> None:
    world = World((1, 2), (3,))
    world.acceptor.accept()
    world.loop.readable()
    assert world.taken == [1, 3]
    world.loop.readable()
    assert world.taken == [1, 3, 2]


def test_a_connection_that_another_worker_was_faster_to_take_is_no_error() -> None:
    world = World(())
    world.acceptor.accept()
    world.loop.readable()
    assert world.taken == []
    assert world.acceptor.state is AcceptState.ACCEPTING


@pytest.mark.parametrize("least", [None, 10**6], ids=["alone", "among others"])
def test_a_busy_worker_leaves_connections_to_the_kernel_for_as_long_as_it_is(least: int | None) -> None:
    world = World((1, 2))
    world.least, world.busy = least, True
    world.acceptor.accept()
    for _ in range(3):
        world.loop.readable()
        assert world.loop.readers == {}
        world.loop.pass_time(YIELD)
    assert world.taken == []
    world.busy = False
    world.loop.readable()
    assert 1 in world.taken


def test_a_worker_with_more_than_the_least_loaded_leaves_the_socket_for_a_moment_and_then_takes_one() -> None:
    world = World((1, 2, 3))
    world.elsewhere, world.least = 5, 4
    world.acceptor.accept()
    world.loop.readable()
    assert world.taken == []
    assert world.loop.readers == {}
    world.loop.pass_time(YIELD)
    world.loop.readable()
    assert world.taken == [1], "nobody else wanted it"
    world.loop.readable()
    assert world.taken == [1], "for the next one it waits again"


def test_who_has_waited_for_one_that_another_took_waits_for_the_next_one_too() -> None:
    world = World((1,))
    world.elsewhere, world.least = 5, 4
    world.acceptor.accept()
    world.loop.readable()
    world.listeners[0].queue.clear()
    world.loop.pass_time(YIELD)
    world.loop.pass_time(1.0)
    world.listeners[0].queue.append(2)
    world.loop.readable()
    assert world.taken == []


@pytest.mark.parametrize(
    ("held", "accepting", "least", "expected"),
    [
        (0, 0, 0, True),
        (1, 0, 0, False),  # with few connections each counts
        (5, 5, 5, True),
        (6, 5, 5, False),
        (5, 5, 5 - AHEAD, True),  # the least loaded one has left the socket, and does not know yet that it is that
        (6, 9, 5 - AHEAD, False),  # but it is not left behind
        (5, NOBODY, 5 - AHEAD, True),
        (6, NOBODY, 5 - AHEAD, False),
        (1050, 1050, 1000, True),
        (1063, 1063, 1000, False),
    ],
)
def test_who_holds_fewer_is_waited_for_if_it_takes_connections_or_falls_behind(
    held: int, accepting: int, least: int, expected: bool
) -> None:
    assert takes(held, accepting, least) is expected


def test_the_others_see_what_it_does_with_its_listeners() -> None:
    world = World((1, 2, OSError(errno.EMFILE, "x")), limit=7)
    world.elsewhere, world.least = 5, 4
    world.acceptor.accept()
    world.loop.readable()
    world.loop.pass_time(YIELD)
    world.least = 9
    for _ in range(3):
        world.loop.readable()
    world.listeners[0].queue.insert(0, 2)
    world.acceptor.stop()
    assert world.shown == [
        AcceptState.ACCEPTING,
        AcceptState.YIELDING,
        AcceptState.ACCEPTING,
        AcceptState.FULL,
        AcceptState.STOPPED,
    ]


def test_a_worker_that_is_alone_takes_several_per_wake_up_within_its_limit() -> None:
    world = World(tuple(range(100)), limit=ALONE + 3)
    world.least = None
    world.acceptor.accept()
    world.loop.readable()
    assert len(world.taken) == ALONE
    world.loop.readable()
    world.loop.readable()
    assert len(world.taken) == ALONE + 3


def test_a_worker_that_is_alone_asks_for_no_more_than_twice_as_many_as_there_were_last() -> None:
    world = World(())
    world.least = None
    (listener,) = world.listeners
    world.acceptor.accept()
    asked = []
    for number in (0, 1, 1, 1, 5, 5, 5, 5, 0):
        listener.queue[:] = range(number)
        listener.asked = 0
        world.loop.readable()
        asked.append((number - len(listener.queue), listener.asked))
    assert asked == [(0, 1), (1, 1), (1, 2), (1, 1), (2, 2), (4, 4), (5, 6), (5, 5), (0, 1)]
    assert len(world.taken) == sum(taken for taken, _ in asked)


@pytest.mark.parametrize(("held", "least"), [(4, 4), (4, 5), (0, 0)])
def test_a_worker_that_has_no_more_than_the_least_loaded_takes_at_once(held: int, least: int) -> None:
    world = World((1,))
    world.elsewhere, world.least = held, least
    world.acceptor.accept()
    world.loop.readable()
    assert world.taken == [1]


def test_at_the_limit_the_socket_is_left_alone_until_a_connection_ends(caplog: pytest.LogCaptureFixture) -> None:
    world = World((1, 2, 3), limit=2)
    world.acceptor.accept()
    for _ in range(4):
        world.loop.readable()
    assert world.taken == [1, 2]
    assert world.loop.readers == {}
    assert "--limit-connections" in caplog.text
    world.acceptor.connection_ended()
    assert world.loop.readers == {}, "the one that ended was not counted: still at the limit"
    world.taken.pop()
    world.acceptor.connection_ended()
    world.loop.readable()
    assert world.taken == [1, 3]


def test_without_descriptors_it_pauses_instead_of_spinning_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    full = [OSError(errno.EMFILE, os.strerror(errno.EMFILE)) for _ in range(5)]
    world = World((*full, 1))
    world.acceptor.accept()
    for _ in full:
        world.loop.readable()
        assert world.loop.readers == {}
        world.loop.pass_time(TROUBLE_PAUSE)
    world.loop.readable()
    assert world.taken == [1]
    assert len(caplog.records) == 1
    assert "Too many open files" in caplog.text


def test_stopping_ends_a_wait_too() -> None:
    world = World((1,))
    world.elsewhere, world.least = 5, 4
    world.acceptor.accept()
    world.loop.readable()
    world.acceptor.stop()
    world.loop.pass_time(60)
    assert world.loop.readers == {}
    world.acceptor.accept()
    world.least = 5
    world.loop.readable()
    assert world.taken == [1]


def test_a_connection_that_ends_does_not_start_an_acceptor_that_was_stopped() -> None:
    world = World((1, 2), limit=1)
    world.acceptor.accept()
    world.loop.readable()
    world.loop.readable()
    world.acceptor.stop()
    world.taken.clear()
    world.acceptor.connection_ended()
    assert world.loop.readers == {}


def test_closing_takes_what_is_queued_only_when_nobody_else_will() -> None:
    world = World((1, 2), (3,))
    world.acceptor.accept()
    world.acceptor.close(take_queued=True)
    assert world.taken == [1, 2, 3]
    assert all(listener.closed for listener in world.listeners)

    world = World((1, 2))
    world.acceptor.close(take_queued=False)
    assert world.taken == []
    assert world.listeners[0].closed


def test_closing_for_the_whole_daemon_ends_the_listening_also_on_the_copy_of_a_worker_that_hangs() -> None:
    world = World((), ())
    world.acceptor.close(take_queued=True)
    assert [listener.shut for listener in world.listeners] == [True, False], "but not of a socket that was lent"

    world = World((), ())
    world.acceptor.close(take_queued=False)
    assert [listener.shut for listener in world.listeners] == [False, False], "other workers go on"


def test_a_listener_that_another_worker_has_ended_is_left_alone_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World((OSError(errno.EINVAL, "x"),))
    world.acceptor.accept()
    world.loop.readable()
    assert world.loop.readers == {}
    assert not caplog.records
    world.acceptor.close(take_queued=True)


def test_closing_without_descriptors_ends() -> None:
    world = World((OSError(errno.EMFILE, "x"), 1))
    world.acceptor.close(take_queued=True)
    assert world.listeners[0].closed
    world.loop.pass_time(60)
    assert world.loop.readers == {}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX], ids=lambda family: family.name)
def test_what_is_accepted_is_what_python_accepts(family: socket.AddressFamily, tmp_path: Path) -> None:
    addresses: dict[socket.AddressFamily, Any] = {
        socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0), socket.AF_UNIX: str(tmp_path / "unix")
    }  # fmt: skip
    with socket.socket(family) as listener, socket.socket(family) as client:
        listener.bind(addresses[family])
        listener.listen()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            accept_from(listener)
        client.connect(listener.getsockname())
        connection, address = accept_from(listener)
        with connection:
            assert address == client.getsockname()
            assert (connection.family, connection.type, connection.proto) == (family, socket.SOCK_STREAM, client.proto)
            assert not connection.get_inheritable()
            client.send(b"hello")
            assert connection.recv(5) == b"hello"
