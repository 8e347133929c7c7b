"""Workers as their master sees them: forked by it or by a mold, heard, signalled, reaped. The processes are real."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from preforkd.daemon import children as module
from preforkd.daemon import mold
from preforkd.daemon import spawn as module_spawn
from preforkd.daemon.actions import Fork
from preforkd.daemon.children import Body, Children, Link
from preforkd.daemon.comparison import Answers
from preforkd.daemon.events import Event, ForkFailed, WorkerExited, WorkerFailed, WorkerReady
from preforkd.daemon.mold import Mold
from preforkd.daemon.spawn import Child
from preforkd.workers.blame import AppError
from preforkd.workers.channel import Drain, Failed, Hello, Message, Ready, encode
from preforkd.workers.scoreboard import Field, Scoreboard

pytestmark = pytest.mark.alone  # it forks

WAIT = 10.0  # seconds: a test that waits longer has failed
Life = Callable[[socket.socket], int]


def say(channel: socket.socket, *messages: Message) -> None:
    channel.sendall(b"".join(map(encode, messages)))


def ready_until_the_end(channel: socket.socket) -> int:
    """Be ready, exit with 7 when the master hangs up, or says anything."""
    say(channel, Ready())
    channel.recv(1)
    return 7


def ready_if_heard_until_killed(channel: socket.socket) -> int:
    """Be ready, whether the master still listens or not, and end by a signal only."""
    with contextlib.suppress(OSError):
        say(channel, Ready())
    while True:
        signal.pause()


def stop(pid: int) -> None:
    """Stop a child, and wait until it stands still: until then it may take another order."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


class Master:
    """As much of a master as its children need."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.oom_kills = 0
        """Of the kernel, that no death has been put down to yet."""
        self.children = Children(self._selector, self._claim_oom_kill)
        self._board = Scoreboard()
        self.events: list[Event] = []
        self.strangers: list[int] = []
        self._serial = 0

    def _claim_oom_kill(self, _now: float) -> bool:
        claimed = self.oom_kills > 0
        self.oom_kills -= claimed
        return claimed

    def fork(self, body: Life = ready_until_the_end, preload: Body | None = None, generation: int = 1) -> int:
        serial, self._serial = self._serial, self._serial + 1
        order = Fork(serial, slot=serial, generation=generation, row=serial)
        private = [self._selector.fileno()] if isinstance(self._selector, selectors.EpollSelector) else []
        failed = self.children.fork(order, self._board.row(serial), body, lambda: private, preload)
        self.events += [] if failed is None else [failed]
        return serial

    def turn(self, patience: float) -> None:
        for key, _ in self._selector.select(patience):
            if isinstance(key.data, Mold):
                key.data.flush()
            else:
                self.events += self.children.read(key.data)
        self.events += self.children.reap(lambda pid, _: self.strangers.append(pid))

    def until(self, done: Callable[[], object]) -> None:
        end = time.monotonic() + WAIT
        while not done():
            assert time.monotonic() < end, self.events
            self.turn(0.005)

    def wait(self, kind: type[Event], serial: int) -> Event:
        """The event of that kind about that worker."""

        def found() -> list[Event]:
            return [one for one in self.events if isinstance(one, kind) and getattr(one, "serial", None) == serial]

        self.until(found)
        return found()[0]

    def exited(self, serial: int) -> tuple[int | None, int | None]:
        """How it has ended: its exit code, its signal."""
        event = self.wait(WorkerExited, serial)
        assert isinstance(event, WorkerExited)
        assert all(link.serial != serial for link in self.children.links())
        return event.code, event.signum

    def link(self, serial: int) -> Link:
        return next(link for link in self.children.links() if link.serial == serial)

    def pid(self, serial: int) -> int:
        pid = self.link(serial).child.pid
        assert pid is not None
        return pid

    def mold(self, serial: int) -> Mold:
        found = self.link(serial).mold
        assert found is not None
        return found

    def close(self) -> None:
        self.children.kill_all()
        for link in self.children.links():
            link.child.channel.close()
        for pid in _children_of(os.getpid()):  # those that the children do not know, when a test has failed
            os.kill(pid, signal.SIGKILL)
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
        self._selector.close()


@pytest.fixture
def master() -> Iterator[Master]:
    made = Master()
    yield made
    made.close()


def molded(live: Life = ready_until_the_end, load: Callable[[], str] = lambda: "app") -> Body:
    """The life of a mold whose workers live so."""
    return partial(mold.serve, name="app", load=load, live=lambda channel, _order, _app: live(channel))


class Gate:
    """What an import waits for."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def load(self) -> str:
        """An import that takes until the gate is opened."""
        select.select([self.reader], [], [])
        return "app"

    def open(self) -> None:
        os.write(self.writer, b"x")


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    os.close(made.reader)
    os.close(made.writer)


linux = pytest.mark.skipif(sys.platform != "linux", reason="a preload needs subreapers, which only Linux has")


# Forked by the master


def test_what_a_worker_says_and_how_it_ends_are_events(master: Master) -> None:
    serial = master.fork()
    master.wait(WorkerReady, serial)
    master.children.send(serial, Drain(0, 0, final=True))
    assert master.exited(serial) == (7, None)


def test_last_words_come_before_the_end(master: Master) -> None:
    def fails(channel: socket.socket) -> int:
        say(channel, Failed("import", "broken"))
        return 3

    serial = master.fork(fails)
    master.exited(serial)
    assert [type(event) for event in master.events] == [WorkerFailed, WorkerExited]


def test_a_signal_is_the_cause_of_an_end(master: Master) -> None:
    serial = master.fork()
    assert master.children.kill(serial, signal.SIGKILL) == []
    assert master.exited(serial) == (None, signal.SIGKILL)
    assert master.children.kill(serial, signal.SIGKILL) == [], "it is gone"


@pytest.mark.parametrize(
    ("by_master", "signum", "kills", "oom"),
    [
        pytest.param(False, signal.SIGKILL, 1, True, id="the kernel's doing"),
        pytest.param(False, signal.SIGKILL, 0, False, id="somebody's"),
        pytest.param(True, signal.SIGKILL, 1, False, id="the master's"),
        pytest.param(False, signal.SIGTERM, 1, False, id="another signal"),
    ],
)
def test_a_kill_is_the_kernels_doing_when_its_counter_says_so_and_the_master_has_not_done_it(
    master: Master, by_master: bool, signum: int, kills: int, oom: bool
) -> None:
    serial = master.fork()
    master.wait(WorkerReady, serial)
    master.oom_kills = kills
    if by_master:
        master.children.kill(serial, signum)
    else:
        os.kill(master.pid(serial), signum)
    event = master.wait(WorkerExited, serial)
    assert isinstance(event, WorkerExited)
    assert (event.signum, event.oom) == (signum, oom)
    assert master.oom_kills == (0 if oom else kills)


def test_a_system_that_refuses_is_an_event(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Child:
        raise OSError(11, "no more processes")

    monkeypatch.setattr(module, "spawn", refuse)
    serial = master.fork()
    event = master.wait(ForkFailed, serial)
    assert isinstance(event, ForkFailed)
    assert event.reason == "no more processes"


def test_a_worker_that_talks_nonsense_is_not_heard_any_more(master: Master) -> None:
    def nonsense(channel: socket.socket) -> int:
        channel.sendall(b"\xff" * 100)
        return channel.recv(1) != b""

    serial = master.fork(nonsense)
    assert master.exited(serial) == (0, None), "its channel was closed"


def test_a_process_that_is_no_worker_is_a_stranger(master: Master) -> None:
    stranger = os.posix_spawn("/bin/true", ["true"], {})
    master.until(lambda: master.strangers == [stranger])


def test_no_worker_holds_the_channel_of_another(master: Master) -> None:
    # If one did, a worker would not see that its master is gone.
    first, second = master.fork(), master.fork()
    for serial in (first, second):
        master.wait(WorkerReady, serial)
    master.link(first).child.channel.shutdown(socket.SHUT_RDWR)
    assert master.exited(first) == (7, None)
    assert master.link(second).listens


# Forked by a mold


@linux
@pytest.mark.usefixtures("subreaper")
class TestPreload:
    def test_a_worker_from_a_mold_is_heard_signalled_and_reaped_as_any_other(self, master: Master) -> None:
        first, second, third = (master.fork(preload=molded()) for _ in range(3))
        for serial in (first, second, third):
            master.wait(WorkerReady, serial)
        assert len({master.pid(serial) for serial in (first, second, third)}) == 3
        master.children.send(first, Drain(0, 0, final=True))
        assert master.exited(first) == (7, None)
        master.children.kill(second, signal.SIGTERM)
        assert master.exited(second) == (None, signal.SIGTERM)
        assert master.mold(third).usable
        assert master.strangers == []

    def test_a_generation_has_one_mold(self, master: Master) -> None:
        serials = [master.fork(preload=molded(), generation=generation) for generation in (1, 1, 2)]
        for serial in serials:
            master.wait(WorkerReady, serial)
        first, same, other = (master.mold(serial) for serial in serials)
        assert first is same
        assert other is not first

    def test_a_dead_mold_harms_no_worker_and_the_next_one_gets_another(self, master: Master) -> None:
        serial = master.fork(preload=molded())
        master.wait(WorkerReady, serial)
        dead = master.mold(serial)
        os.kill(dead.pid, signal.SIGKILL)
        master.until(lambda: dead.status is not None)
        successor = master.fork(preload=molded())
        master.wait(WorkerReady, successor)
        assert master.mold(successor) is not dead
        assert master.link(serial).listens
        assert not any(isinstance(event, WorkerExited) for event in master.events)

    def test_an_order_that_dies_with_a_proven_mold_is_given_to_another(self, master: Master) -> None:
        serial = master.fork(preload=molded())
        master.wait(WorkerReady, serial)
        dead = master.mold(serial)
        stop(dead.pid)
        successor = master.fork(preload=molded())
        assert master.mold(successor) is dead
        os.kill(dead.pid, signal.SIGKILL)
        master.wait(WorkerReady, successor)
        assert master.mold(successor) is not dead
        assert not any(isinstance(event, WorkerExited) for event in master.events)

    def test_an_order_that_dies_with_a_mold_that_was_to_end_is_not_given_to_another(self, master: Master) -> None:
        serial = master.fork(preload=molded())
        master.wait(WorkerReady, serial)
        stop(master.mold(serial).pid)
        successor = master.fork(preload=molded())
        master.children.end_molds()
        assert master.exited(successor) == (None, signal.SIGKILL)

    def test_the_workers_that_a_mold_has_not_forked_end_with_it(self, master: Master, gate: Gate) -> None:
        serials = [master.fork(preload=molded(load=gate.load)) for _ in range(3)]
        os.kill(master.mold(serials[0]).pid, signal.SIGKILL)
        assert [master.exited(serial) for serial in serials] == [(None, signal.SIGKILL)] * 3

    def test_an_import_that_ends_the_process_is_the_end_of_the_worker(self, master: Master) -> None:
        serial = master.fork(preload=molded(load=lambda: os._exit(9)))
        assert master.exited(serial) == (9, None)

    def test_an_import_that_fails_is_a_worker_that_could_not_boot(self, master: Master) -> None:
        def load() -> str:
            raise AppError("it is broken")

        serials = [master.fork(preload=molded(load=load)) for _ in range(2)]
        for serial in serials:
            event = master.wait(WorkerFailed, serial)
            assert isinstance(event, WorkerFailed)
            assert (event.stage, event.text) == ("import", "it is broken")
        for serial in serials:
            master.events += master.children.kill(serial, signal.SIGTERM)
        assert [master.exited(serial) for serial in serials] == [(None, signal.SIGTERM)] * 2

    def test_an_import_is_ended_when_every_worker_that_waits_for_it_is(self, master: Master, gate: Gate) -> None:
        first, second = (master.fork(preload=molded(load=gate.load)) for _ in range(2))
        importing = master.mold(first)
        master.events += master.children.kill(first, signal.SIGTERM)
        assert master.exited(first) == (None, signal.SIGTERM)
        assert importing.usable
        master.events += master.children.kill(second, signal.SIGTERM)
        assert master.exited(second) == (None, signal.SIGTERM)
        assert importing.status == signal.SIGTERM

    def test_a_worker_that_is_given_up_during_the_import_is_never_born(self, master: Master, gate: Gate) -> None:
        given_up, wanted = (master.fork(preload=molded(load=gate.load)) for _ in range(2))
        master.events += master.children.kill(given_up, signal.SIGTERM)
        gate.open()
        master.wait(WorkerReady, wanted)
        assert not any(isinstance(event, WorkerReady) and event.serial == given_up for event in master.events)

    def test_a_worker_that_is_given_up_while_it_is_being_born_gets_the_signal(self, master: Master) -> None:
        first = master.fork(preload=molded(ready_if_heard_until_killed))
        master.wait(WorkerReady, first)
        late = master.fork(preload=molded(ready_if_heard_until_killed))
        ready, _, _ = select.select([master.link(late).child.channel], [], [], WAIT)
        assert ready, "it has said its pid, and the master has not read that"
        assert master.link(late).unborn
        master.events += master.children.kill(late, signal.SIGKILL)
        assert master.exited(late) == (None, signal.SIGKILL)

    def test_a_worker_that_dies_before_its_first_word_was_read_is_no_stranger(self, master: Master) -> None:
        first = master.fork(preload=molded())
        master.wait(WorkerReady, first)
        second = master.fork(preload=molded())
        ready, _, _ = select.select([master.link(second).child.channel], [], [], WAIT)
        assert ready
        (pid,) = _children_of(os.getpid()) - {master.mold(first).pid, master.pid(first)}
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        master.events += master.children.reap(lambda pid, _: master.strangers.append(pid))
        assert master.exited(second) == (None, signal.SIGKILL)
        assert master.strangers == []

    @pytest.mark.parametrize("claimed", [1, 0, -1, 10**30, "me"])
    def test_a_pid_that_is_not_that_of_a_child_is_not_believed(
        self, master: Master, monkeypatch: pytest.MonkeyPatch, claimed: int
    ) -> None:
        def lies(control: socket.socket) -> int:
            _, descriptors, _, _ = socket.recv_fds(control, 1000, 1)
            with socket.socket(fileno=descriptors[0]) as channel:
                say(channel, Hello(claimed))
                control.recv(1)
            return 0

        serial = master.fork(preload=lies)
        master.until(lambda: not master.link(serial).listens)
        assert master.link(serial).unborn
        signals: list[int] = []
        real = os.kill

        def kill(pid: int, signum: int) -> None:
            signals.append(pid)
            real(pid, signum)

        monkeypatch.setattr(os, "kill", kill)
        liar = master.mold(serial).pid
        master.events += master.children.kill(serial, signal.SIGKILL)
        assert signals == [liar], "the only process that is to blame"
        assert master.exited(serial) == (None, signal.SIGKILL)

    def test_a_refused_fork_in_the_mold_is_a_fork_that_failed(
        self, master: Master, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: object) -> None:
            raise OSError(11, "no more processes")

        monkeypatch.setattr(mold, "spawn_sibling", refuse)
        serial = master.fork(preload=molded())
        event = master.wait(ForkFailed, serial)
        assert isinstance(event, ForkFailed)
        assert event.reason == "no more processes"
        assert master.children.links() == []

    def test_no_process_has_the_masters_end_of_a_molds_orders(self, master: Master) -> None:
        # If one did, a mold would not see that its master is gone.
        serial = master.fork(preload=molded())
        master.wait(WorkerReady, serial)
        control = os.fstat(master.mold(serial).descriptors()[0]).st_ino

        def has_it(channel: socket.socket) -> int:
            found = {one.stat().st_ino for one in Path("/proc/self/fd").iterdir() if one.is_socket()}
            say(channel, Ready())
            return control in found

        others = [master.fork(preload=molded(has_it), generation=2), master.fork(has_it)]
        assert [master.exited(other) for other in others] == [(0, None), (0, None)]

    def test_a_worker_that_hangs_before_its_first_word_is_known_by_its_mold(
        self, master: Master, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def hang() -> int:
            signal.pause()
            return 0

        def spawn_sibling(_: object) -> int:
            return module_spawn.spawn_sibling(hang)

        monkeypatch.setattr(mold, "spawn_sibling", spawn_sibling)
        serial = master.fork(preload=molded())
        master.until(lambda: not master.link(serial).unborn)
        master.children.kill(serial, signal.SIGKILL)
        assert master.exited(serial) == (None, signal.SIGKILL)

    def test_a_first_word_fails_from_the_moment_that_the_worker_is_given_up(
        self, master: Master, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ours, theirs = module_spawn.channel()
        master.children.adopt(Link(0, Child(None, ours), Scoreboard().row(0)))
        read, reads = Children.read, []

        def late(children: Children, link: Link, dead: int | None = None) -> Iterator[Event]:
            reads.append(link)
            if len(reads) == 2:  # the first one is for what has been said before
                with pytest.raises(BrokenPipeError):
                    theirs.send(encode(Hello(1)))  # it would be lost if the channel were only closed after this
            return read(children, link, dead)

        monkeypatch.setattr(Children, "read", late)
        (ended,) = master.children.kill(0, signal.SIGTERM)
        assert isinstance(ended, WorkerExited)
        assert len(reads) == 2
        theirs.close()

    def test_without_subreapers_each_worker_is_forked_by_the_master(
        self, master: Master, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "become_subreaper", lambda: False)
        serial = master.fork(preload=molded())
        master.wait(WorkerReady, serial)
        assert master.link(serial).mold is None


def _children_of(pid: int) -> set[int]:
    try:
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except FileNotFoundError:  # not Linux: there are none that were adopted
        return set()


def test_what_a_worker_has_answered_is_read_from_its_row_with_the_5xx_among_it() -> None:
    board, (ours, theirs) = Scoreboard(), socket.socketpair()
    with selectors.DefaultSelector() as selector, ours, theirs:
        children = Children(selector)
        children.adopt(Link(7, Child(os.getpid(), ours), board.row(0)))
        row = board.row(0)
        row[Field.RESPONSES_1XX], row[Field.RESPONSES_2XX], row[Field.RESPONSES_3XX] = 1, 20, 300
        row[Field.RESPONSES_4XX], row[Field.RESPONSES_5XX] = 4000, 50000
        row[Field.ACCEPTED] = row[Field.BYTES_SENT] = row[Field.LOOP_LAG] = 1 << 40
        assert children.answers() == {7: Answers(54321, 50000)}
