"""How each kind of file is written to without waiting for those who read it.

`O_NONBLOCK` belongs to the open file, which whoever has started this daemon shares: it is never set there. A pipe or a
terminal is opened once more, a socket can be told with each call, and no write to a regular file waits for a reader.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import stat
import struct
import sys
import termios
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Protocol

_LUMP: Final = 65536
"""Bytes that are written at once where nothing is torn."""
_LOWEST: Final = 3  # of a descriptor of ours: those below an app may close, or open on something else


class Way(Protocol):
    """How a kind of file is written to without waiting.

    Attributes:
        whole: bytes up to which a write is never torn apart by those of other processes.
        write: writes, and returns how many bytes have gone out; raises `BlockingIOError` when it would have to wait.
    """

    whole: int

    @property
    def write(self) -> Callable[[bytes], int]:
        """See above."""

    def has_room(self, size: int) -> bool:
        """Whether a line of more than `whole` bytes would go out in one piece."""

    def fileno(self) -> int:
        """Return the descriptor."""

    def close(self) -> None:
        """Let go of the descriptor."""


def way_to(descriptor: int) -> Way:
    """Return the way to what a descriptor is open on now; what becomes of the descriptor later does not matter.

    Raises:
        OSError: it is not open.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        return _Socket(_duplicate(descriptor))
    if not stat.S_ISFIFO(mode) and not os.isatty(descriptor):
        return _Plain(_duplicate(descriptor), whole=_LUMP)  # a regular file, /dev/null: no write waits for a reader
    own = _open_anew(descriptor)
    if own is not None:
        return _of_pipe_or_terminal(own)
    if stat.S_ISFIFO(mode) and hasattr(os, "splice"):
        return _Spliced(_duplicate(descriptor))
    return _Polled(_duplicate(descriptor))


def way_to_file(path: Path) -> Way:
    """Open a file to append to.

    Raises:
        OSError: it cannot be opened; a named pipe cannot as long as nobody reads it (ENXIO).
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(path, flags, 0o644)
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode) or os.isatty(descriptor):
        return _of_pipe_or_terminal(descriptor)
    return _Plain(descriptor, whole=_LUMP)


def _duplicate(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LOWEST)


def _open_anew(descriptor: int) -> int | None:
    """Open the same file again: only what is opened anew has flags of its own, and only Linux can do that.

    None when it may not be: the pipes and the terminal of another user, as with `sudo -u`, or of a root that has
    become somebody else.
    """
    if sys.platform != "linux":
        return None
    try:
        return os.open(
            f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
        )
    except OSError:
        return None


def _of_pipe_or_terminal(descriptor: int) -> Way:
    return _Pipe(descriptor) if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else _Plain(descriptor, select.PIPE_BUF)


class _Plain:
    """A descriptor whose writes do not wait."""

    def __init__(self, descriptor: int, whole: int) -> None:
        self.whole = whole
        self.descriptor = descriptor
        # No method: 0.05 us for each turn of a worker's loop.
        self.write: Callable[[bytes], int] = partial(os.write, descriptor)

    def has_room(self, size: int) -> bool:  # noqa: ARG002 -- the ways' common signature
        return True

    def fileno(self) -> int:
        return self.descriptor

    def close(self) -> None:
        os.close(self.descriptor)


class _Pipe(_Plain):
    """A pipe that was opened here, without waiting."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, select.PIPE_BUF)

    def has_room(self, size: int) -> bool:
        """Whether it takes so many bytes at once; for more than it ever takes: whether it is empty.

        It is made of pages, and a line that does not fit into the rest of one begins another: half of each may be
        empty.
        """
        used: int = struct.unpack("i", fcntl.ioctl(self.descriptor, termios.FIONREAD, struct.pack("i", 0)))[0]
        if not used:
            return True
        capacity = fcntl.fcntl(self.descriptor, fcntl.F_GETPIPE_SZ) if hasattr(fcntl, "F_GETPIPE_SZ") else 65536
        return 2 * used + size + select.PIPE_BUF <= capacity


class _Spliced(_Pipe):
    """A pipe of somebody else, that cannot be opened here: moved into it from one of our own, which need not wait."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self.write = self._splice
        self._make_own()

    def _make_own(self) -> None:
        self._process = os.getpid()
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def _splice(self, data: bytes) -> int:
        if self._process != os.getpid():  # a fork: the parent goes on using its own
            os.close(self._reader)
            os.close(self._writer)
            self._make_own()
        size = os.write(self._writer, data)
        sent = 0
        try:
            sent = os.splice(self._reader, self.descriptor, size, flags=os.SPLICE_F_NONBLOCK)
        finally:
            if sent < size:
                os.read(self._reader, size)
        return sent

    def close(self) -> None:
        super().close()
        os.close(self._reader)
        os.close(self._writer)


class _Polled(_Plain):
    """The last resort: a terminal of another user, or a system without `/proc`.

    A pipe that polls writable takes PIPE_BUF bytes at once, unless another process is faster, for which it then waits.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, select.PIPE_BUF)
        self.write = self._write_if_polled

    def _write_if_polled(self, data: bytes) -> int:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        if not poll.poll(0):
            raise BlockingIOError(errno.EAGAIN, "it cannot be written to now")
        return os.write(self.descriptor, data[: select.PIPE_BUF])


class _Socket:
    """A socket, as the journal of systemd is."""

    whole = select.PIPE_BUF

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def write(self, data: bytes) -> int:
        return self._socket.send(data, socket.MSG_DONTWAIT)

    def has_room(self, size: int) -> bool:  # noqa: ARG002 -- the kernel takes what finds room in a piece, up to 100 kB
        return True

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()


def way_to_nowhere() -> Way:
    """Return the way to nowhere, for a descriptor that is not open."""
    return _Plain(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), whole=_LUMP)
