"""The worker processes of a master: forked, listened to, told, signalled, reaped.

With a preload it is a mold that forks them (`preforkd.daemon.mold`), and such a worker is *unborn* here until it has
said its pid: it ends when its channel does, and to end it is to see that its first word will fail.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import field
from functools import partial

from preforkd.daemon.actions import Fork
from preforkd.daemon.comparison import Answers
from preforkd.daemon.events import (
    Event,
    ForkFailed,
    WorkerExited,
    WorkerFailed,
    WorkerGotTerm,
    WorkerReady,
    WorkerRetiring,
    WorkerStacks,
)
from preforkd.daemon.mold import FORK, ORPHANED, Mold, Molds
from preforkd.daemon.process_state import is_frozen
from preforkd.daemon.spawn import Child, become_subreaper, channel, spawn
from preforkd.workers import log
from preforkd.workers.channel import (
    ChannelError,
    Decoder,
    Failed,
    GotTerm,
    Hello,
    Message,
    Ready,
    Retire,
    Stacks,
    encode,
)
from preforkd.workers.records import dataclass
from preforkd.workers.scoreboard import Field, Row, RowState

Body = Callable[[socket.socket], int]
"""The life of a forked process, with its end of the channel; returns its exit code."""


@dataclass(slots=True)
class Link:
    """A forked worker, and what is left of a message from it."""

    serial: int
    child: Child
    row: Row
    decoder: Decoder = field(default_factory=Decoder)
    mold: Mold | None = None
    """What forks it."""
    order: Callable[[], tuple[Mold, socket.socket]] | None = None
    """Has it forked: returns by which mold, and the master's end of its channel. Raises OSError."""
    doom: int | None = None
    """The signal that it was to get while it was unborn."""
    killed: bool = False
    """It has been sent KILL by its master."""

    @property
    def listens(self) -> bool:
        """Whether its channel is still open."""
        return self.child.channel.fileno() >= 0

    @property
    def unborn(self) -> bool:
        """Whether its process is not known."""
        return self.child.pid is None


class Children:
    """All worker processes that have not been reaped.

    Args:
        selector: where the channels are waited for, each with its `Link` as data.
        oom: tells at a time of the monotonic clock whether a SIGKILL that nobody here has sent was the kernel's.
    """

    def __init__(self, selector: selectors.BaseSelector, oom: Callable[[float], bool] = lambda _: False) -> None:
        self._selector = selector
        self._oom = oom
        self._by_serial: dict[int, Link] = {}
        self._by_pid: dict[int, Link] = {}
        self._molds = Molds(selector)
        self._can_mold: bool | None = None

    def __len__(self) -> int:
        return len(self._by_serial)

    def channels(self) -> list[int]:
        """Return the descriptors that none but the master may have: its ends of all channels, and its molds' orders."""
        channels = [link.child.channel.fileno() for link in self._by_serial.values() if link.listens]
        return channels + self._molds.descriptors()

    def fork(
        self, order: Fork, row: Row, body: Body, private: Callable[[], Iterable[int]], mold: Body | None = None
    ) -> ForkFailed | None:
        """Fork a worker, or have it forked; returns the event that says why not, if the system refuses.

        Args:
            order: the action of the policy.
            row: its row of the scoreboard.
            body: its life, unless it comes from a mold.
            private: returns the descriptors of the master that it must not have now, besides the channels.
            mold: the life of the mold that forks it; None: the master does.
        """
        try:
            if mold is not None and self._molding():
                ordering = partial(self._order, order, mold, private)
                by, ours = ordering()
                link = Link(order.serial, Child(None, ours), row, mold=by, order=ordering)
            else:
                link = Link(order.serial, spawn(body, [*private(), *self.channels()]), row)
        except OSError as exc:
            return ForkFailed(time.monotonic(), order.serial, exc.strerror or str(exc))
        self.adopt(link)
        who = "to be forked by a mold" if link.child.pid is None else f"process {link.child.pid}"
        log.LOGGER.debug("worker %d (generation %d) is %s", order.slot, order.generation, who)
        return None

    def _molding(self) -> bool:
        """Whether the children of a mold can become the master's."""
        if self._can_mold is None:
            self._can_mold = become_subreaper()
            if not self._can_mold:
                log.LOGGER.warning("--preload: this system has no subreapers, so each worker imports the app itself")
        return self._can_mold

    def _order(self, order: Fork, body: Body, private: Callable[[], Iterable[int]]) -> tuple[Mold, socket.socket]:
        """Have the generation's mold fork a worker; see `Link.order`."""

        def start() -> Child:
            return spawn(body, [*private(), *self.channels()], kind=socket.SOCK_SEQPACKET, orphaned=ORPHANED)

        mold = self._molds.get(order.generation, start)
        ours, theirs = channel()
        mold.order(order, theirs)
        return mold, ours

    def links(self) -> list[Link]:
        """Return all workers that have not been reaped."""
        return list(self._by_serial.values())

    def adopt(self, link: Link) -> None:
        """Look after a worker: one just forked, or one that the program before this one, with the same pid, has."""
        self._by_serial[link.serial] = link
        if link.child.pid is not None:
            self._by_pid[link.child.pid] = link
        self._selector.register(link.child.channel, selectors.EVENT_READ, link)

    def read(self, link: Link, dead: int | None = None) -> Iterator[Event]:
        """Yield what a worker has said; at the end of its stream it is listened to no more.

        Args:
            link: the worker.
            dead: a process that has just been reaped, and may be the worker.
        """
        # One wait may bring both the signal of its death, after which nothing is left to read, and its last words.
        while link.listens:
            try:
                data = link.child.channel.recv(65536)
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                data = b""
            try:
                for message in link.decoder.feed(data):
                    yield from self._heard(link, message, dead)
            except ChannelError as exc:
                log.LOGGER.error("process %s talks nonsense: %s", link.child.pid, exc)
                data = b""
            if not data:
                self._hang_up(link)
                yield from self._ended_unborn(link)

    def _heard(self, link: Link, message: Message, dead: int | None) -> Iterator[Event]:
        if isinstance(message, Hello) and link.mold is not None:
            if message.pid != link.child.pid:  # both the worker and its mold say it
                self._born(link, message.pid, dead)
        elif link.unborn and isinstance(message, Failed) and message.stage == FORK:
            self._forget(link)
            yield ForkFailed(time.monotonic(), link.serial, message.text)
        else:
            yield _event(message, link.serial)

    def _born(self, link: Link, pid: int, dead: int | None) -> None:
        """Note the pid of a worker from a mold. It is checked, for the master will send signals to it."""
        if not link.unborn or not isinstance(pid, int) or pid in self._by_pid or (pid != dead and not _is_child(pid)):
            raise ChannelError(f"{pid!r} is not the pid of a new child")
        link.child = Child(pid, link.child.channel)
        self._by_pid[pid] = link
        if link.mold is not None:
            link.mold.proven = True
            link.mold.awaited.discard(link.serial)
        if link.doom is not None:
            os.kill(pid, link.doom)
        log.LOGGER.debug("worker process %d was forked by the mold", pid)

    def _ended_unborn(self, link: Link) -> Iterator[Event]:
        """Deal with the end of a channel whose worker has not said its pid, and will not."""
        mold = link.mold
        if not link.unborn:
            return  # it is reaped, as every worker is
        if mold is None or (mold.status is None and mold.proven and mold.usable):
            # The mold forks others: between its birth and its first word this one can only have been killed.
            self._forget(link)
            yield _exit_event(link, signal.SIGKILL)
        elif mold.status is not None and mold.proven and not mold.told and link.doom is None:
            yield from self._order_again(link)
        elif mold.status is not None:
            self._forget(link)
            yield _exit_event(link, mold.status, oom=mold.oom)
        # Otherwise the end of the mold tells why, and is to come.

    def _order_again(self, link: Link) -> Iterator[Event]:
        """Have a new mold fork a worker: the one that had been ordered to had proved itself, and was killed."""
        if link.order is None:  # impossible: it has a mold
            return
        try:
            link.mold, ours = link.order()
        except OSError as exc:
            self._forget(link)
            yield ForkFailed(time.monotonic(), link.serial, exc.strerror or str(exc))
        else:
            link.child, link.decoder = Child(None, ours), Decoder()
            self._selector.register(ours, selectors.EVENT_READ, link)

    def _forget(self, link: Link) -> None:
        self._hang_up(link)
        self._by_serial.pop(link.serial, None)
        if link.mold is not None:
            link.mold.awaited.discard(link.serial)

    def reap(self, stranger: Callable[[int, int], None]) -> Iterator[Event]:
        """Collect every process that has ended: as PID 1 also the orphans of others, which are nobody's workers.

        Args:
            stranger: is told the pid and the status of each that is neither a worker nor a mold.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            mold = self._molds.reaped(pid, status)
            if mold is not None:
                mold.oom = self._was_oom(status, killed=mold.told)
                yield from self._lost(mold)
            else:
                yield from self._reaped(pid, status, stranger)

    def _was_oom(self, status: int, *, killed: bool) -> bool:
        """Whether the kernel has ended a process for want of memory, and not its master."""
        by_kill = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        return by_kill and not killed and self._oom(time.monotonic())

    def _reaped(self, pid: int, status: int, stranger: Callable[[int, int], None]) -> Iterator[Event]:
        if pid not in self._by_pid:
            for unborn in [link for link in self._by_serial.values() if link.unborn]:
                yield from self.read(unborn, dead=pid)  # it may be one of them, whose first word has not been read
        link = self._by_pid.pop(pid, None)
        if link is None:
            stranger(pid, status)
            return
        yield from self.read(link)  # what it has said before its end comes first
        self._forget(link)
        yield _exit_event(link, status, oom=self._was_oom(status, killed=link.killed))

    def _lost(self, mold: Mold) -> Iterator[Event]:
        """End those workers that a dead mold has not forked; one that it just has will say so yet."""
        for link in [link for link in self._by_serial.values() if link.mold is mold and link.unborn]:
            if link.listens:
                yield from self.read(link)
            else:
                yield from self._ended_unborn(link)

    def send(self, serial: int, message: Message) -> None:
        """Tell a worker something, if it is there to hear it."""
        link = self._by_serial.get(serial)
        if link is None or not link.listens:
            return
        try:
            link.child.channel.send(encode(message))
        except OSError as exc:
            # It is dead, or has read nothing for thousands of messages: its deadline takes care of both.
            log.LOGGER.debug("process %s cannot be told %s: %s", link.child.pid, type(message).__name__, exc)

    def send_all(self, message: Message) -> None:
        """Tell every worker something."""
        for serial in self._by_serial:
            self.send(serial, message)

    def kill(self, serial: int, signum: int) -> list[Event]:
        """Send a signal to a worker; until it is reaped its pid is nobody else's.

        Returns:
            What has come of it: an unborn worker that is not to be born has ended with that.
        """
        link = self._by_serial.get(serial)
        if link is None:
            return []
        link.killed |= signum == signal.SIGKILL
        if link.child.pid is None:
            return list(self._kill_unborn(link, signum))
        os.kill(link.child.pid, signum)
        return []

    def _kill_unborn(self, link: Link, signum: int) -> Iterator[Event]:
        # It may have been born by now, and serve: it needs its channel, whose end would be its master's to it.
        yield from self.read(link)
        if link.serial not in self._by_serial:
            return
        if link.child.pid is not None:
            os.kill(link.child.pid, signum)
            return
        link.doom = signum
        if link.mold is not None and link.mold.kill_for(link.serial, signum):
            return
        # From here on its first word fails. If it has been said already, it gets the signal.
        if link.listens:
            link.child.channel.shutdown(socket.SHUT_RD)
        yield from self.read(link)
        if link.unborn and link.serial in self._by_serial:
            self._forget(link)
            yield _exit_event(link, signum)

    def kill_all(self) -> None:
        """Leave no worker behind."""
        for pid in self._by_pid:
            os.kill(pid, signal.SIGKILL)
        self._molds.leave_none()

    def end_molds(self, keep: Collection[int] = ()) -> None:
        """End the molds of all generations but those of `keep`: nothing will be forked for them any more."""
        self._molds.end(keep)

    def leave_no_mold(self) -> None:
        """See the last mold gone, at the end of the master; this may take a moment."""
        self._molds.leave_none()

    def heartbeats(self) -> dict[int, int]:
        """Return the last heartbeat of each worker by its serial."""
        return {serial: link.row[Field.HEARTBEAT] for serial, link in self._by_serial.items()}

    def answers(self) -> dict[int, Answers]:
        """Return what each worker has answered up to its last heartbeat, by its serial."""
        return {serial: _answers(link.row) for serial, link in self._by_serial.items()}

    def frozen(self, serials: Iterable[int]) -> frozenset[int]:
        """Return those of these workers that the system has stopped."""
        pids = {serial: self._by_serial[serial].child.pid for serial in serials}
        return frozenset(serial for serial, pid in pids.items() if pid is not None and is_frozen(pid))

    def _hang_up(self, link: Link) -> None:
        if link.listens:
            self._selector.unregister(link.child.channel)
            link.child.channel.close()


def _is_child(pid: int) -> bool:
    """Whether a process is a child of this one; it may be a zombie."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (OSError, OverflowError):
        return False
    return True


def _event(message: Message, serial: int) -> Event:
    now = time.monotonic()
    match message:
        case Ready():
            return WorkerReady(now, serial)
        case Failed(stage, text, details):
            return WorkerFailed(now, serial, stage, text, details)
        case GotTerm():
            return WorkerGotTerm(now, serial)
        case Retire(reason):
            return WorkerRetiring(now, serial, reason)
        case Stacks(text):
            return WorkerStacks(now, serial, text)
        case _:
            raise ChannelError(f"a worker does not say {type(message).__name__}")


def _exit_event(link: Link, status: int, *, oom: bool = False) -> WorkerExited:
    code = os.waitstatus_to_exitcode(status)
    return WorkerExited(
        time.monotonic(),
        link.serial,
        code=code if code >= 0 else None,
        signum=-code if code < 0 else None,
        oom=oom,
        in_flight=link.row[Field.ACTIVE],
        loading=link.unborn or link.row[Field.STATE] == RowState.LOADING,
    )


def _answers(row: Row) -> Answers:
    counts = row.cells[Field.RESPONSES_1XX : Field.RESPONSES_5XX + 1].tolist()
    return Answers(sum(counts), counts[-1])
