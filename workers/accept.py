"""Fair accept: how a worker takes connections from a socket that all workers share.

What a shared socket lacks is balance: whoever wakes up first takes what is there, and with the accept loops of asyncio
and uvloop the busiest of four workers gets 1.5 to 2.9 times its share of held connections. So a worker takes one
connection per wake-up, and one that holds more than the least loaded other leaves the socket alone for a moment first.

Who has left it knows nothing of what happens meanwhile: its own connections end, and the others take more, until it is
the least loaded itself. Were it waited for, too, all would wait for each other, 2 ms for every short connection. So a
worker shows on the scoreboard whether it would take the next connection now, and is waited for only if it would, or
when it falls behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Collection, Sequence
from typing import Final

from preforkd.workers.scoreboard import AcceptState

YIELD: Final = 0.002
"""Seconds for which a worker that has more than its share leaves the socket to the others."""
AHEAD: Final = 4
AHEAD_SHARE: Final = 16
"""How far one may get ahead of a worker that has left the socket for a moment: so many connections, or one for so
many that it holds, whichever is more. It is back in 2 ms and then the least loaded."""
ALONE: Final = 16
"""Connections that a worker takes per wake-up while there is no other that is ready."""
TROUBLE_PAUSE: Final = 0.1
"""Seconds for which nothing is accepted when the system has no descriptor or memory left: trying at once would spin."""
COMPLAIN_EVERY: Final = 10.0
"""Seconds between two log lines about that."""


class Accepted(socket.socket):
    """A connection whose family and type are plain numbers.

    The loop asks for them, and each time that `socket.socket` makes members of enumerations of them costs 1 us.
    """

    __slots__ = ()

    family = socket.SocketType.family  # type: ignore[assignment]
    type = socket.SocketType.type  # type: ignore[assignment]


_family_of, _type_of = socket.SocketType.family.__get__, socket.SocketType.type.__get__


def accept_from(listener: socket.socket) -> tuple[socket.socket, object]:
    """Accept a connection: what `socket.accept()` does, without its enumerations."""
    descriptor, address = listener._accept()  # type: ignore[attr-defined]
    return Accepted(_family_of(listener), _type_of(listener), listener.proto, fileno=descriptor), address


def takes(held: int, accepting: int, least: int) -> bool:
    """Whether a worker takes a connection that has come, or leaves it to others for a moment.

    Args:
        held: connections that it holds.
        accepting, least: what others hold, see `Scoreboard.others()`.
    """
    return held <= accepting and held <= least + max(AHEAD, least // AHEAD_SHARE)


class Acceptor:
    """The listeners of a worker.

    Args:
        loop: the running event loop.
        listeners: listening sockets that do not block.
        lent: the descriptors of those that belong to somebody else, systemd for example, and outlive this daemon.
        take: is given each accepted socket, the listener that it comes from, and the address of the client.
        held: tells how many connections the worker holds.
        others: tells what the other workers hold, as `Scoreboard.others()` does.
        show: is told each new state.
        limit: connections at which nothing more is accepted.
        busy: tells whether the worker had better leave the socket alone for a moment, whatever others hold.
        accept: takes a connection from a listener; returns it, and the address of its client.
        logger: where trouble is reported.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: Sequence[socket.socket],
        *,
        lent: Collection[int],
        take: Callable[[socket.socket, socket.socket, object], None],
        held: Callable[[], int],
        others: Callable[[], tuple[int, int] | None],
        show: Callable[[AcceptState], None],
        limit: int,
        logger: logging.Logger,
        busy: Callable[[], bool] = lambda: False,
        accept: Callable[[socket.socket], tuple[socket.socket, object]] = accept_from,
    ) -> None:
        self.state = AcceptState.STOPPED
        self._loop = loop
        self._listeners = list(listeners)
        self._lent = lent
        self._take = take
        self._held = held
        self._others = others
        self._show = show
        self._limit = limit
        self._busy = busy
        self._accept_from = accept
        self._logger = logger
        self._timer: asyncio.TimerHandle | None = None
        self._at_once = ALONE
        """Connections that it tries to take at a wake-up while it is alone: twice as many as there were last."""
        self._patient_until = 0.0
        """It has just waited for the others: what is still there is its own. Seconds of the loop's clock."""
        self._complained = {"full": -COMPLAIN_EVERY, "trouble": -COMPLAIN_EVERY}

    def accept(self) -> None:
        """Take connections, from any state but ACCEPTING."""
        self._cancel_timer()
        self._enter(AcceptState.ACCEPTING)
        for listener in self._listeners:
            self._loop.add_reader(listener.fileno(), self._wake_up, listener)

    def stop(self) -> None:
        """Leave the listeners alone."""
        self._leave(AcceptState.STOPPED)

    def close(self, *, take_queued: bool) -> None:
        """Close the listeners of this process.

        Args:
            take_queued: the whole daemon leaves them: accept first what the kernel has queued, then end the listening
                for all processes. One of them may hang, and clients would queue on its copy and wait for nobody.
        """
        self.stop()
        for listener in self._listeners:
            while take_queued and self._accept(listener):
                pass
            if take_queued and listener.fileno() not in self._lent:
                with contextlib.suppress(OSError):  # another worker was faster
                    listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self._listeners.clear()

    def connection_ended(self) -> None:
        """A connection has ended: accept again, if it was the limit that prevented it."""
        if self.state is AcceptState.FULL and self._held() < self._limit:
            self.accept()

    def _wake_up(self, listener: socket.socket) -> None:
        held = self._held()
        if held >= self._limit:
            self._leave(AcceptState.FULL)
            self._complain(
                "full", f"holding {held} connections, all that --limit-connections allows: accepting no more"
            )
            return
        if self._busy():
            self._wait(AcceptState.YIELDING, YIELD)
            return
        others = self._others()
        if others is None:
            self._accept_several(listener, self._limit - held)
        elif takes(held, *others) or self._loop.time() < self._patient_until:
            self._patient_until = 0.0
            self._accept(listener)
        else:
            self._wait(AcceptState.YIELDING, YIELD)

    def _accept_several(self, listener: socket.socket, most: int) -> None:
        """Nobody else would take them: spare the wake-ups, and the question for one more where they come one by one."""
        tries = min(self._at_once, most)
        taken = 0
        while taken < tries and self._accept(listener):
            taken += 1
        self._at_once = min(2 * self._at_once, ALONE) if taken == self._at_once else max(taken, 1)

    def _accept(self, listener: socket.socket) -> bool:
        """Accept one connection; tells whether there was one."""
        try:
            connection, address = self._accept_from(listener)
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                # It listens no more: the daemon stops, another worker was told first, and this one will be soon.
                self._loop.remove_reader(listener.fileno())
                return False
            # Out of descriptors or memory (EMFILE, ENFILE, ENOBUFS, ENOMEM), or worse: the socket stays readable.
            self._complain("trouble", f"cannot accept ({exc.strerror}): trying again every {TROUBLE_PAUSE:g} s")
            if self.state is AcceptState.ACCEPTING:
                self._wait(AcceptState.PAUSED, TROUBLE_PAUSE)
            return False
        self._take(connection, listener, address)
        return True

    def _wait(self, state: AcceptState, seconds: float) -> None:
        self._leave(state)
        self._timer = self._loop.call_later(seconds, self._return)

    def _return(self) -> None:
        self._patient_until = self._loop.time() + YIELD
        self.accept()

    def _leave(self, state: AcceptState) -> None:
        self._cancel_timer()
        if self.state is AcceptState.ACCEPTING:
            for listener in self._listeners:
                self._loop.remove_reader(listener.fileno())
        self._enter(state)

    def _enter(self, state: AcceptState) -> None:
        self.state = state
        self._show(state)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _complain(self, what: str, text: str) -> None:
        now = self._loop.time()
        if now - self._complained[what] >= COMPLAIN_EVERY:
            self._complained[what] = now
            self._logger.warning("%s", text)
