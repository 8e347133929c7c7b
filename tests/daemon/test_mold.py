"""Molds: what a master keeps of them, and what they do themselves."""

from __future__ import annotations

import gc
import json
import logging
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import astuple

import psutil
import pytest

from preforkd.daemon import mold as molding
from preforkd.daemon.actions import Fork
from preforkd.daemon.mold import Mold, Molds, serve
from preforkd.daemon.spawn import Child, spawn
from preforkd.workers import log
from preforkd.workers.blame import AppError
from preforkd.workers.channel import INTERNAL, Decoder, Failed, Hello, Message, encode

pytestmark = [
    pytest.mark.alone,  # it forks
    pytest.mark.skipif(sys.platform != "linux", reason="a preload needs subreapers, which only Linux has"),
    # Tests of servers may have left threads in this process; they hold no lock that a mold would need.
    pytest.mark.filterwarnings("ignore:.*is multi-threaded, use of fork:DeprecationWarning"),
]

WAIT = 10  # seconds: a test that waits longer has failed


def order(serial: int = 0) -> Fork:
    return Fork(serial=serial, slot=serial, generation=1, row=serial)


def channel() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(WAIT)
    return ours, theirs


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as made:
        yield made


class Process:
    """Stands for the process of a mold: the other end of its orders, and the signals that it has been sent."""

    pid = 4711

    def __init__(self, selector: selectors.BaseSelector) -> None:
        control, self.end = socket.socketpair(type=socket.SOCK_SEQPACKET)
        control.setblocking(False)
        self.signals: list[int] = []
        self.mold = Mold(1, self.pid, control, selector)

    def orders(self) -> list[int]:
        """The serials of the orders that have arrived, with a descriptor each."""
        self.end.setblocking(False)
        serials: list[int] = []
        while True:
            try:
                text, descriptors, _, _ = socket.recv_fds(self.end, 4096, 2)
            except BlockingIOError:
                return serials
            assert len(descriptors) == 1
            os.close(descriptors[0])
            serials.append(json.loads(text)[0])


@pytest.fixture
def process(selector: selectors.BaseSelector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    made = Process(selector)
    monkeypatch.setattr(os, "kill", lambda pid, signum: made.signals.append(signum) if pid == made.pid else None)
    yield made
    made.end.close()
    made.mold.reaped(signal.SIGKILL)


# In the master


def test_an_order_carries_the_workers_end_of_its_channel_and_leaves_no_copy(process: Process) -> None:
    ours, theirs = channel()
    with ours:
        process.mold.order(order(7), theirs)
        assert theirs.fileno() == -1
        text, (descriptor,), _, _ = socket.recv_fds(process.end, 4096, 1)
        assert Fork(*json.loads(text)) == order(7)
        with socket.socket(fileno=descriptor) as received:
            received.sendall(b"x")
        assert (ours.recv(9), ours.recv(9)) == (b"x", b"")


def test_orders_for_which_there_is_no_room_wait_without_blocking_and_in_their_order(
    process: Process, selector: selectors.BaseSelector
) -> None:
    kept = []
    while not selector.get_map():
        ours, theirs = channel()
        kept.append(ours)
        process.mold.order(order(len(kept) - 1), theirs)
    assert len(process.mold.descriptors()) == 2, "the socket for orders and the channel that waits"
    arrived: list[int] = []
    while selector.get_map():
        arrived += process.orders()
        ((key, _),) = selector.select(WAIT)
        assert key.data is process.mold
        process.mold.flush()
    assert arrived + process.orders() == list(range(len(kept)))
    for ours in kept:
        ours.close()


def test_the_orders_of_a_dead_mold_end_with_their_channels(process: Process, selector: selectors.BaseSelector) -> None:
    kept = []
    while not selector.get_map():
        ours, theirs = channel()
        kept.append(ours)
        process.mold.order(order(len(kept) - 1), theirs)
    process.end.close()
    process.mold.flush()
    assert not selector.get_map()
    assert {ours.recv(1) for ours in kept} == {b""}
    for ours in kept:
        ours.close()


def test_a_mold_that_has_died_gets_no_order_even_before_it_is_reaped(process: Process) -> None:
    assert process.mold.usable
    process.end.close()
    assert not process.mold.usable


def test_a_mold_that_was_told_to_end_gets_no_order(process: Process) -> None:
    process.mold.end()
    assert not process.mold.usable
    assert process.signals == [signal.SIGKILL]
    process.mold.end()
    assert process.signals == [signal.SIGKILL], "once is enough"


@pytest.mark.parametrize(
    ("given_up", "signals"),
    [
        ([(0, signal.SIGTERM)], []),
        ([(0, signal.SIGTERM), (1, signal.SIGTERM)], [signal.SIGTERM]),
        ([(0, signal.SIGABRT), (1, signal.SIGTERM)], [signal.SIGABRT]),
        ([(0, signal.SIGABRT), (1, signal.SIGKILL)], [signal.SIGKILL]),
        ([(0, signal.SIGTERM), (1, signal.SIGABRT), (1, signal.SIGKILL)], [signal.SIGABRT, signal.SIGKILL]),
    ],
    ids=["one of two", "both", "a stack is wanted", "no stack from KILL", "it does not end"],
)
def test_an_import_is_ended_when_nobody_waits_for_it_any_more(
    process: Process, given_up: list[tuple[int, int]], signals: list[int]
) -> None:
    kept = [channel() for _ in range(2)]
    for serial, (_, theirs) in enumerate(kept):
        process.mold.order(order(serial), theirs)
    told = [process.mold.kill_for(serial, signum) for serial, signum in given_up]
    assert process.signals == signals
    assert told == [False] + [True] * len(signals)
    for ours, _ in kept:
        ours.close()


def test_a_mold_that_does_not_fork_in_time_is_ended_though_it_has_worked(process: Process) -> None:
    kept = [channel() for _ in range(2)]
    for serial, (_, theirs) in enumerate(kept):
        process.mold.order(order(serial), theirs)
    process.mold.proven = True
    assert process.mold.kill_for(0, signal.SIGABRT)
    assert process.mold.kill_for(0, signal.SIGKILL)
    assert process.mold.kill_for(1, signal.SIGTERM), "it is ended already, and the worker with it"
    assert process.signals[:2] == [signal.SIGABRT, signal.SIGKILL]
    for ours, _ in kept:
        ours.close()


def test_a_mold_that_works_outlives_every_worker_that_is_given_up(process: Process) -> None:
    ours, theirs = channel()
    process.mold.order(order(), theirs)
    process.mold.proven = True
    assert not process.mold.kill_for(0, signal.SIGTERM)
    assert process.signals == []
    ours.close()


class Nursery:
    """Molds whose processes are made up."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.molds = Molds(selector)
        self.ends: list[socket.socket] = []

    def get(self, generation: int) -> Mold:
        return self.molds.get(generation, self._start)

    def _start(self) -> Child:
        control, end = socket.socketpair(type=socket.SOCK_SEQPACKET)
        control.setblocking(False)
        self.ends.append(end)
        return Child(1000 + len(self.ends), control)

    def die(self, mold: Mold, status: int = signal.SIGKILL) -> None:
        self.ends[mold.pid - 1001].close()
        assert self.molds.reaped(mold.pid, status) is mold


@pytest.fixture
def nursery(selector: selectors.BaseSelector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nursery]:
    made = Nursery(selector)
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, signum: killed.append((pid, signum)))
    yield made
    for number, end in enumerate(made.ends):
        end.close()
        made.molds.reaped(1001 + number, 0)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(log.LOGGER, "propagate", True)
    return caplog


def test_a_generation_has_one_mold_for_as_long_as_it_works(nursery: Nursery, logged: pytest.LogCaptureFixture) -> None:
    first = nursery.get(1)
    assert nursery.get(1) is first
    assert nursery.get(2) is not first
    first.proven = True
    nursery.die(first)
    assert "its workers go on" in logged.text
    assert "SIGKILL" in logged.text
    logged.clear()
    second = nursery.get(1)
    assert second is not first
    assert [record.levelno for record in logged.records] == [logging.WARNING]
    assert "the code as it is on disk now" in logged.text


def test_the_mold_of_a_generation_that_is_gone_is_ended(nursery: Nursery) -> None:
    old, new = nursery.get(1), nursery.get(2)
    nursery.molds.end(keep={2})
    assert (old.told, new.told) == (True, False)
    nursery.molds.end()
    assert new.told
    assert nursery.molds.reaped(99, 0) is None, "another process"


def test_the_death_of_a_mold_that_was_told_to_end_is_nothing_to_report(
    nursery: Nursery, logged: pytest.LogCaptureFixture
) -> None:
    mold = nursery.get(1)
    mold.proven = True
    mold.end()
    nursery.die(mold)
    assert [record for record in logged.records if record.levelno >= logging.WARNING] == []


def test_no_mold_is_left_at_the_end_of_the_master(selector: selectors.BaseSelector) -> None:
    molds = Molds(selector)

    def deaf(control: socket.socket) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        control.send(b"x")
        while True:
            signal.pause()

    def start() -> Child:
        child = spawn(deaf, [], kind=socket.SOCK_SEQPACKET)
        child.channel.settimeout(WAIT)
        child.channel.recv(1)
        child.channel.setblocking(False)
        return child

    mold = molds.get(1, start)
    molds.leave_none()
    with pytest.raises(ProcessLookupError):
        os.kill(mold.pid, 0)
    molds.reaped(mold.pid, signal.SIGKILL)


# In the mold's own process


class Running:
    """A mold that runs, as the child of the test."""

    def __init__(self, load: Callable[[], str], live: Callable[[socket.socket, Fork, str], int]) -> None:
        self.child = spawn(lambda control: serve(control, "app", load, live), [], kind=socket.SOCK_SEQPACKET)
        self.child.channel.setblocking(True)

    def order(self, one: Fork) -> socket.socket:
        ours, theirs = channel()
        socket.send_fds(self.child.channel, [json.dumps(astuple(one)).encode()], [theirs.fileno()])
        theirs.close()
        return ours

    def end(self) -> int:
        self.child.channel.close()
        assert self.child.pid is not None
        return os.waitstatus_to_exitcode(os.waitpid(self.child.pid, 0)[1])


def said(ours: socket.socket) -> list[Message]:
    """All that was said on a channel, up to its end, each once: both a worker and its mold say the pid."""
    with ours:
        return list(dict.fromkeys(Decoder().feed(b"".join(iter(lambda: ours.recv(65536), b"")))))


def live(ours: socket.socket, one: Fork, app: str) -> int:
    """Say with which code and memory this worker lives."""
    ours.sendall(encode(Failed(app, json.dumps([one.serial, os.getppid(), gc.get_freeze_count() > 0]))))
    return one.serial


def children() -> set[int]:
    """The pids of this process's children, those included that have ended and are not reaped."""
    return {child.pid for child in psutil.Process().children()}


@pytest.mark.usefixtures("subreaper")
def test_each_order_is_a_worker_that_says_its_pid_and_has_the_app() -> None:
    running = Running(lambda: "the app", live)
    for serial in (3, 5):
        hello, then = sorted(said(running.order(order(serial))), key=lambda message: not isinstance(message, Hello))
        assert isinstance(hello, Hello)
        assert then == Failed("the app", json.dumps([serial, os.getpid(), True]))
        assert os.waitstatus_to_exitcode(os.waitpid(hello.pid, 0)[1]) == serial
    assert running.end() == 0


def test_a_mold_ends_when_the_master_is_gone() -> None:
    assert Running(lambda: "the app", live).end() == 0


def test_a_failure_of_our_own_before_the_import_is_said_to_be_ours() -> None:
    def load() -> str:
        raise TypeError("x")

    running = Running(load, live)
    (answer,) = said(running.order(order(0)))
    assert isinstance(answer, Failed)
    assert (answer.stage, answer.text) == (INTERNAL, "TypeError: x")
    assert "Traceback" in answer.details
    assert running.end() == molding.INTERNAL_ERROR


def test_every_order_for_an_app_that_cannot_be_imported_is_answered_with_the_reason() -> None:
    def load() -> str:
        raise AppError("app.py:3: it is broken", "the traceback")

    running = Running(load, live)
    for serial in range(3):
        assert said(running.order(order(serial))) == [Failed("import", "app.py:3: it is broken", "the traceback")]
    assert running.end() == molding.INTERNAL_ERROR


@pytest.mark.usefixtures("subreaper")
def test_a_worker_that_was_given_up_during_the_import_is_not_forked() -> None:
    reader, writer = os.pipe()

    def load() -> str:
        os.read(reader, 1)
        return "the app"

    before = children()
    running = Running(load, live)
    running.order(order(0)).close()
    wanted = running.order(order(1))
    os.write(writer, b"x")
    (hello,) = (message for message in said(wanted) if isinstance(message, Hello))
    assert running.end() == 0
    assert children() - before == {hello.pid}, "there is no other"
    os.waitpid(hello.pid, 0)
    os.close(reader)
    os.close(writer)


@pytest.mark.usefixtures("subreaper")
def test_a_fork_that_hangs_is_a_boot_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(_: object) -> int:
        raise TimeoutError(110, "a forked process has hung for 5 s")

    monkeypatch.setattr(molding, "spawn_sibling", hang)
    running = Running(lambda: "the app", live)
    (failed,) = said(running.order(order()))
    assert isinstance(failed, Failed)
    assert (failed.stage, failed.text[:35]) == ("start", "a forked process has hung for 5 s: ")
    assert running.end() == 0


@pytest.mark.usefixtures("subreaper")
def test_a_refused_fork_is_told_to_the_master(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise OSError(11, "no more processes")

    monkeypatch.setattr(molding, "spawn_sibling", refuse)
    running = Running(lambda: "the app", live)
    assert said(running.order(order())) == [Failed(molding.FORK, "no more processes")]
    assert running.end() == 0


def said_of(load: Callable[[], object]) -> str:
    """The warnings of a mold about an import; not in this process, in which others may have left threads."""
    reader, writer = os.pipe()

    def load_and_tell() -> str:
        log.LOGGER.setLevel(logging.WARNING)
        log.LOGGER.addHandler(logging.StreamHandler(os.fdopen(writer, "w")))
        load()
        return "the app"

    with os.fdopen(reader) as lines:
        running = Running(load_and_tell, live)
        os.close(writer)
        assert running.end() == 0
        return lines.read()


def test_threads_that_the_import_has_started_are_warned_of_by_name() -> None:
    def load() -> None:
        for name in ("ticker", "poller"):
            threading.Thread(target=threading.Event().wait, name=name, daemon=True).start()

    assert "2 threads started at import: ticker, poller; they do not exist in the workers" in said_of(load)


def test_no_thread_is_no_warning() -> None:
    assert said_of(lambda: None) == ""


def test_threads_that_only_the_system_knows_are_warned_of_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(molding, "_tasks", lambda: 4)
    assert "3 threads started at import: 3 of native code;" in said_of(lambda: None)


def test_what_the_import_has_opened_for_all_workers_is_warned_of(logged: pytest.LogCaptureFixture) -> None:
    before = molding._shareable()
    with socket.socket(), socket.socket(), selectors.EpollSelector():
        molding._warn_of_descriptors(molding._shareable() - before)
    assert "opened at import: 2 sockets and 1 event loop, which all workers share" in logged.text
    logged.clear()
    molding._warn_of_descriptors(molding._shareable() - before)
    assert logged.text == ""
