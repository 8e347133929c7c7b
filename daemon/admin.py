"""The admin processes of a master: forked, told, heard, replaced; `preforkd.daemon.attendant` decides when."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Final

from preforkd.daemon import attendant
from preforkd.daemon.attendant import Attendant, Begin, Dismiss, End
from preforkd.daemon.config import Config
from preforkd.daemon.listeners import Listener
from preforkd.daemon.privileges import Identity
from preforkd.daemon.spawn import Child, spawn
from preforkd.workers import log
from preforkd.workers.admin.settings import AdminSettings
from preforkd.workers.channel import Answer, Ask, ChannelError, Decoder, Message, Note, encode
from preforkd.workers.records import dataclass
from preforkd.workers.scoreboard import MasterField, Scoreboard

BACKLOG: Final = 128
MOST_NOTES: Final = 200
"""Lines of the log that a new admin process gets to know."""
MOST_UNSENT: Final = 1 << 20
"""Bytes that wait for an admin process to read them; above that notes are dropped."""
EXIT_TIMEOUT: Final = 1.0
"""Seconds that it gets to leave before the master ends."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an admin process is begun with; another plan is another process."""

    settings: AdminSettings
    listeners: tuple[Listener, ...]
    config: Config = field(compare=False)
    """Of this only what follows counts as another plan."""
    identity: Identity | None
    log: tuple[str, str]
    """Level and form."""


@dataclass(slots=True)
class Instance:
    """One admin process, seen from its master."""

    number: int
    child: Child
    decoder: Decoder = field(default_factory=Decoder)
    unsent: bytearray = field(default_factory=bytearray)

    def send(self, message: Message) -> None:
        """Tell it something, as soon as it reads."""
        if len(self.unsent) < MOST_UNSENT:
            self.unsent += encode(message)
            self.flush()

    def flush(self) -> None:
        """Send what it had no room for."""
        # It may have died: its end takes care of that. It may not be reading: this is tried again in each turn.
        with contextlib.suppress(OSError):
            while self.unsent:
                del self.unsent[: self.child.channel.send(self.unsent)]


class Admins:
    """The admin process of a master, and those that it has dismissed and that are not gone.

    Args:
        selector: where their channels are waited for, each with its `Instance` as data.
        board: the scoreboard.
        live: the life of one: gets its plan and its end of the channel, returns an exit code.
        private: returns the descriptors that it must not have.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        board: Scoreboard,
        live: Callable[[Plan, socket.socket], int],
        private: Callable[[], Iterable[int]],
    ) -> None:
        self._selector = selector
        self._board = board
        self._live = live
        self._private = private
        self._state = Attendant()
        self._plan: Plan | None = None
        self._plan_number = 0
        self._instances: dict[int, Instance] = {}
        self._notes: deque[Note] = deque(maxlen=MOST_NOTES)
        self.handler: Final = NoteHandler(self.note)
        """For the log: what it gets is told to the admin process."""

    def follow(self, plan: Plan | None, now: float) -> None:
        """See that there is what should be; to be called after each turn of the master.

        Args:
            plan: None: there should be none.
            now: seconds of the monotonic clock.
        """
        if plan != self._plan:
            self._plan = plan
            self._plan_number += 1
        for instance in self._instances.values():
            instance.flush()
        self._state, orders = attendant.tend(self._state, self._wanted, self._beat, now)
        for order in orders:
            match order:
                case Begin(number):
                    self._begin(number)
                case Dismiss(number):
                    self._instances[number].child.channel.shutdown(socket.SHUT_WR)
                case End(number, why):
                    log.LOGGER.warning("the admin process is killed: %s", why)
                    self._kill(self._instances[number])

    @property
    def _wanted(self) -> int | None:
        return None if self._plan is None else self._plan_number

    @property
    def _beat(self) -> int:
        beat: int = self._board.master[MasterField.ADMIN_HEARTBEAT]
        return beat

    def next_deadline(self, now: float) -> float | None:
        """Return when `follow` is due even if nothing happens."""
        return attendant.next_deadline(self._state, self._wanted, now)

    def _begin(self, number: int) -> None:
        plan = self._plan
        if plan is None:  # impossible: it is begun after a plan
            return
        private = [*self._private(), *self.descriptors()]
        try:
            for listener in plan.listeners:
                listen(listener.socket)
            child = spawn(lambda channel: self._live(plan, channel), private)
        except OSError as exc:
            log.LOGGER.error("the admin process cannot be started: %s", exc.strerror or exc)
            self._ended(number)
            return
        log.LOGGER.debug("the admin process is process %d", child.pid)
        instance = self._instances[number] = Instance(number, child)
        self._selector.register(child.channel, selectors.EVENT_READ, instance)
        for note in self._notes:
            instance.send(note)

    def descriptors(self) -> list[int]:
        """Return those that none but the master may have: its ends of the channels."""
        return [one.child.channel.fileno() for one in self._instances.values()]

    def note(self, note: Note) -> None:
        """Tell the admin process what has happened, and those that come after it."""
        self._notes.append(note)
        for instance in self._instances.values():
            instance.send(note)

    def note_unlogged(self, level: str, text: str) -> None:
        """Note an event that --log-level has kept out of the log, unless it is for debugging."""
        severity = log.LEVELS[level]
        if severity >= logging.INFO and not log.LOGGER.isEnabledFor(severity):
            self.note(Note(time.time(), level, text))

    def answer(self, number: int, answer: Answer) -> None:
        """Answer a question of that instance, if it is still there."""
        if number in self._instances:
            self._instances[number].send(answer)

    def has(self, number: int) -> bool:
        """Whether that instance is still there."""
        return number in self._instances

    def read(self, instance: Instance) -> list[Ask]:
        """Return what an instance asks."""
        asks: list[Ask] = []
        data = b""
        if not self.has(instance.number):
            return asks  # it has been reaped since the selector named it
        with contextlib.suppress(ConnectionError):
            try:
                data = instance.child.channel.recv(65536)
            except (BlockingIOError, InterruptedError):
                return asks
        try:
            for message in instance.decoder.feed(data):
                if not isinstance(message, Ask):
                    raise ChannelError(f"the admin process does not say {type(message).__name__}")  # noqa: TRY301 - as of what is no message at all
                asks.append(message)
        except ChannelError as exc:
            log.LOGGER.error("the admin process talks nonsense: %s", exc)
            self._kill(instance)
        if not data:
            self._selector.unregister(instance.child.channel)  # its end is to come
        return asks

    def reaped(self, pid: int, status: int) -> bool:
        """Take note of a process that has been reaped; tells whether it was one of these."""
        instance = next((one for one in self._instances.values() if one.child.pid == pid), None)
        if instance is None:
            return False
        del self._instances[instance.number]
        with contextlib.suppress(KeyError):
            self._selector.unregister(instance.child.channel)
        instance.child.channel.close()
        if instance.number == self._state.current:
            code = os.waitstatus_to_exitcode(status)
            how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
            log.LOGGER.warning("the admin process ended: %s; another one is started", how)
        self._ended(instance.number)
        return True

    def _ended(self, number: int) -> None:
        self._state = attendant.ended(self._state, number, time.monotonic())
        self._board.master[MasterField.ADMIN_LOST] = self._state.lost

    def _kill(self, instance: Instance) -> None:
        if instance.child.pid is not None:  # always: it is forked by the master itself
            os.kill(instance.child.pid, signal.SIGKILL)

    def leave_none(self) -> None:
        """See the last one gone, at the end of the master, so that its addresses are free; this may take a moment."""
        for instance in self._instances.values():
            with contextlib.suppress(OSError):
                instance.child.channel.shutdown(socket.SHUT_WR)
        until = time.monotonic() + EXIT_TIMEOUT
        for instance in self._instances.values():
            if not _gone(instance.child.pid, until):
                self._kill(instance)
                _gone(instance.child.pid, until + EXIT_TIMEOUT)

    def kill_all(self) -> None:
        """Leave none behind, at once."""
        for instance in self._instances.values():
            self._kill(instance)


def listen(listener: socket.socket) -> None:
    """Have the kernel queue connections from now on: a probe waits for the first answer, and is not refused.

    Raises:
        OSError: the address was taken between bind and listen.
    """
    if listener.family != socket.AF_UNIX:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the workers do when they listen
    listener.listen(BACKLOG)


def _gone(pid: int | None, until: float) -> bool:
    """Wait for the end of a child, until a time of the monotonic clock."""
    while pid is not None:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return True
        except ChildProcessError:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


class NoteHandler(logging.Handler):
    """Hands on what the master logs."""

    def __init__(self, tell: Callable[[Note], None]) -> None:
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one on."""
        self._tell(Note(record.created, record.levelname.lower(), record.getMessage()))
