"""Whole lines to a descriptor that other processes share, without ever waiting for those who take them.

The rules:

1. No write waits: not for a pipe that nobody reads, nor for a terminal that is stopped (`ways.py`).
2. Lines stay whole. Up to PIPE_BUF bytes a pipe takes all or nothing (pipe(7)); what is longer is written when there is
   room for all of it.
3. What cannot be written now is kept, up to `ROOM` bytes, and comes before all that follows; what finds no room is
   dropped and counted.
4. A forked child has nothing of what its parent has still to write.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final
from weakref import WeakSet

from preforkd.workers.ways import Way

ROOM: Final = 1 << 20
"""Bytes that are kept while they cannot be written."""
SAY_EVERY: Final = 10.0
"""Seconds between two lines of the log that say the same."""
FINISH: Final = 1.0
"""Seconds that the end of a process waits for what it has still to write."""
_LOOK_AGAIN: Final = 0.02


class Losses:
    """What is to be said of lines that do not go out. Pure.

    Args:
        what: the lines, as in "the access log".
        where: they go.
    """

    def __init__(self, what: str, where: str) -> None:
        self._what = what
        self._where = where
        self.begin_anew()

    def begin_anew(self) -> None:
        """Nothing has been lost or said."""
        self._told = 0
        self._said = -SAY_EVERY
        self._why = ""

    def news(self, lost: int, error: OSError | None, now: float) -> str | None:
        """Return what is to be logged now, if anything is.

        Args:
            lost: lines, since the start.
            error: why nothing can be written now; None: it can again.
            now: seconds of the monotonic clock.
        """
        fresh = lost - self._told
        if error is None:
            if not fresh:
                return None
            self._told = lost
            return f"{_counted(fresh)} of {self._what} {'was' if fresh == 1 else 'were'} lost{self._why}"
        full = isinstance(error, BlockingIOError)
        reason = "nobody reads it" if full else error.strerror or str(error)
        self._why = f": {self._where} could not be written ({reason})"
        if (full and not fresh) or now - self._said < SAY_EVERY:
            return None
        self._said = now
        so_far = f"; {_counted(fresh)} lost so far" if fresh else ""
        return f"{self._what} cannot be written to {self._where}: {reason}{so_far}"


class Output:
    """Lines on their way out.

    Args:
        way: where to.
        losses: what is said of those that do not get there.
        room: bytes that are kept while they cannot be written.

    Attributes:
        error: why nothing can be written now; None: it can, as far as is known.
        lost: lines that found no room, since the start.
        whole: bytes of lines that may be written at once.
    """

    __slots__ = (
        "__weakref__",
        "_kept",
        "_losses",
        "_room",
        "_send",
        "_size",
        "_torn",
        "_way",
        "error",
        "lost",
        "whole",
    )

    def __init__(self, way: Way, losses: Losses, room: int = ROOM) -> None:
        self._losses = losses
        self._way = way
        self._send = way.write
        self.whole = way.whole
        self._room = room
        self._kept: deque[tuple[bytes, int]] = deque()
        self._size = 0
        self._torn = False
        self.error: OSError | None = None
        self.lost = 0
        _outputs.add(self)

    @property
    def size(self) -> int:
        """Bytes that are kept and have still to go out."""
        return self._size

    @property
    def waits(self) -> bool:
        """Whether something is kept that has still to go out."""
        return bool(self._kept)

    def write(self, data: bytes, lines: int = 1) -> None:
        """Write lines, or keep them behind those that wait.

        Args:
            data: one line of any length, or several of no more than `whole` bytes together.
            lines: how many they are.
        """
        size = len(data)
        if not self._kept and (size <= self.whole or self._finds_room(size)):
            try:
                sent = self._send(data)
            except OSError as exc:
                self._fail(exc)
            else:
                if sent != size:
                    self._keep_rest(data[sent:], lines)
                return
        self._keep(data, lines)

    def _finds_room(self, size: int) -> bool:
        if self._way.has_room(size):
            return True
        self._fail(BlockingIOError(errno.EAGAIN, "there is no room for a long line"))
        return False

    def _fail(self, exc: OSError) -> None:
        self.error = exc.with_traceback(None)  # a frame and an exception that hold each other wait for the collector

    def _keep_rest(self, rest: bytes, lines: int) -> None:
        self._torn = True
        self._fail(BlockingIOError(errno.EAGAIN, "it takes no more"))
        self._kept.appendleft((rest, lines))
        self._size += len(rest)

    def _keep(self, data: bytes, lines: int) -> None:
        if self._size + len(data) > self._room:
            self.lost += lines
            return
        self._size += len(data)
        if len(self._kept) > 1:  # the first one is not touched: it may be what is left of a line
            before, number = self._kept[-1]
            if len(before) + len(data) <= self.whole:
                self._kept[-1] = (before + data, number + lines)
                return
        self._kept.append((data, lines))

    def flush(self) -> bool:
        """Write what was kept; returns whether all of it is out."""
        while self._kept:
            data, lines = self._kept[0]
            if len(data) > self.whole and not self._torn and not self._finds_room(len(data)):
                return False
            self._kept.popleft()
            self._size -= len(data)
            try:
                sent = self._send(data)
            except OSError as exc:
                if exc.errno == errno.EMSGSIZE:  # of a datagram socket: it will never go
                    self.lost += lines
                    continue
                self._fail(exc)
                self._kept.appendleft((data, lines))
                self._size += len(data)
                return False
            self._torn = False
            if sent < len(data):
                self._keep_rest(data[sent:], lines)
                return False
        self.error = None
        return True

    def finish(self, seconds: float) -> None:
        """Write what was kept, at the end of a process; what does not go out in time counts as lost.

        Args:
            seconds: to wait at most.
        """
        deadline = time.monotonic() + seconds
        while not self.flush() and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN)
        self.lost += sum(lines for _, lines in self._kept)
        self._drop()

    def news(self) -> str | None:
        """Return what is to be logged of lost lines now, if anything is."""
        return self._losses.news(self.lost, self.error, time.monotonic())

    def begin_anew(self) -> None:
        """Be the output of a process that has just been forked: what was kept is its parent's to write."""
        self._drop()
        self._losses.begin_anew()
        self.error = None
        self.lost = 0

    def _drop(self) -> None:
        self._kept.clear()
        self._size = 0
        self._torn = False

    def redirect(self, way: Way) -> None:
        """Go on somewhere else, with what is still kept; but not with half a line."""
        if self._torn:
            rest, lines = self._kept.popleft()
            self._size -= len(rest)
            self.lost += lines
            self._torn = False
        self._way.close()
        self._way = way
        self._send = way.write
        self.whole = way.whole

    def fileno(self) -> int:
        """Return the descriptor, for what has to be written by others."""
        return self._way.fileno()

    def close(self) -> None:
        """Let go of the descriptor."""
        self._way.close()


_outputs: WeakSet[Output] = WeakSet()


def _begin_anew_in_child() -> None:
    for output in list(_outputs):
        output.begin_anew()


os.register_at_fork(after_in_child=_begin_anew_in_child)


def packed(lines: Iterable[bytes], whole: int) -> Iterator[tuple[bytes, int]]:
    """Join lines to pieces of no more than `whole` bytes, with the number of lines in each; a longer line is alone."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > whole:
            yield b"".join(piece), len(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if piece:
        yield b"".join(piece), len(piece)


def _counted(lines: int) -> str:
    return f"{lines:,} line{'' if lines == 1 else 's'}"
