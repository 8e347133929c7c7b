"""Fork a process, and give it nothing of its parent's that it must not have."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import socket
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from io import FileIO
from types import FrameType
from typing import Final, NoReturn

from preforkd.daemon import signals
from preforkd.workers import log, offspring
from preforkd.workers.records import dataclass

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
INTERNAL_ERROR: Final = 1
PID: Final = struct.Struct("!i")
FORK_TIMEOUT: Final = 5.0
"""Seconds that a process which has only to fork may take; with gigabytes of memory that is 0.1 s."""

FLUSH_TIMEOUT: Final = 1.0
"""Seconds that the end of a process waits for those who read what its app has printed."""


@dataclass(frozen=True, slots=True)
class Child:
    """A forked process, seen from its master."""

    pid: int | None
    """None while another process has still to fork it, or it has not said its pid."""
    channel: socket.socket
    """The master's end; it never blocks."""


def channel(kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
    """Return the master's end of a new channel, which never blocks, and its child's.

    Args:
        kind: `SOCK_STREAM`, or `SOCK_SEQPACKET` for messages that keep their boundaries (not on macOS).

    Raises:
        OSError: there is no descriptor left.
    """
    ours, theirs = socket.socketpair(type=kind)
    ours.setblocking(False)
    return ours, theirs


def spawn(
    body: Callable[[socket.socket], int],
    private: Iterable[int],
    *,
    kind: int = socket.SOCK_STREAM,
    orphaned: int = signal.SIGTERM,
) -> Child:
    """Fork a process that runs `body` with its end of a channel and exits with what that returns.

    Args:
        body: the life of the child. It is called with no signal handler and no wake-up descriptor of the master's.
        private: the descriptors that the master keeps to itself. The channels of other workers are among them: as long
            as any process holds the master's end of one, its worker cannot see that the master is gone.
        kind: of the channel.
        orphaned: the signal that the kernel sends it when the master dies.

    Raises:
        OSError: the system has no process, memory or descriptor left.
    """
    ours, theirs = channel(kind)
    master = os.getpid()
    mask = signals.block()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    finally:
        if os.getpid() == master:
            signals.unblock(mask)
    if pid == 0:

        def life() -> int:
            signals.reset_in_child()
            for descriptor in (ours.fileno(), *private):
                os.close(descriptor)
            die_with(master, orphaned)
            signals.unblock(mask)
            return body(theirs)

        _live(life)
    theirs.close()
    return Child(pid, ours)


def spawn_sibling(body: Callable[[], int]) -> int:
    """Fork a process that is not a child of this one but of its parent, and exits with what `body` returns.

    The parent has to be a subreaper: a process in between is forked, forks, and ends, and the kernel gives its orphan
    to the parent. When `body` is called that has happened, and TERM will come when the parent dies.

    Returns:
        The pid of the new process, which is the parent's child now.

    Raises:
        TimeoutError: the process in between hangs: what the application has run at each fork may wait for a thread,
            and the forked process does not have that.
        OSError: the system has no process, memory or descriptor left.
    """
    parent = os.getppid()
    reader, writer = os.pipe()
    with FileIO(reader, "r") as pid, FileIO(writer, "w") as said:
        mask = signals.block()
        try:
            between = _fork()
            if between == 0:
                _be_between(body, parent, mask, pid, said)
        finally:
            signals.unblock(mask)
        said.close()
        return _sibling(between, pid)


def _sibling(between: int, pid: FileIO) -> int:
    """Return the pid that the process in between says, after its end."""
    poll = select.poll()
    poll.register(pid, select.POLLIN)
    hangs = not poll.poll(FORK_TIMEOUT * 1000)
    text = b"" if hangs else pid.read(PID.size)
    code = 0
    # The application may have had SIGCHLD ignored, or a handler of its own that reaps: then there is no child.
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        if hangs:
            os.kill(between, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(between, 0)[1])
    if hangs:
        raise TimeoutError(errno.ETIMEDOUT, f"a forked process has hung for {FORK_TIMEOUT:g} s")
    if not text:
        raise OSError(code, os.strerror(code)) if code > 0 else OSError(errno.EINTR, "the forked process was killed")
    sibling: int = PID.unpack(text)[0]
    return sibling


def _be_between(body: Callable[[], int], parent: int, mask: set[int], reader: FileIO, writer: FileIO) -> NoReturn:
    """Fork, say the pid, and end; the exit code is the error number of the fork."""
    between = os.getpid()
    code = INTERNAL_ERROR
    try:
        pid = _fork()
        if pid == 0:

            def life() -> int:
                reader.close()
                writer.close()
                # It ends right now. No event says that the kernel has found a new parent, so this has to look.
                while os.getppid() == between:
                    time.sleep(0.0005)
                die_with(parent)
                signals.unblock(mask)
                return body()

            _live(life)
        writer.write(PID.pack(pid))
        code = 0
    except OSError as exc:
        code = exc.errno or INTERNAL_ERROR
    finally:
        os._exit(code)


def _fork() -> int:
    with offspring.own_fork(), warnings.catch_warnings():
        # Of other threads, which Python 3.12 and later have seen: the caller has warned of them in its own words.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _live(life: Callable[[], int]) -> NoReturn:
    """Run the whole life of a forked process."""
    code = INTERNAL_ERROR
    try:
        code = life()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else INTERNAL_ERROR
    except BaseException as exc:  # noqa: BLE001 - nothing may climb out of the child into the frames of its parent
        log.LOGGER.critical("the process has failed: this is a bug in preforkd", exc_info=exc)
    finally:
        with contextlib.suppress(BaseException):  # whatever it is: this is the end of the process
            flush_output()
            log.finish()
        os._exit(code)


def flush_output() -> None:
    """Write what the program has printed: after a fork it would be written by both processes.

    The streams may be anything that an app has put there, and nobody may read what they write: this takes a second for
    each at most.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception), at_most(FLUSH_TIMEOUT):
            stream.flush()


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Interrupt what waits for the system in here with a TimeoutError; in the main thread alone."""

    def interrupt(_signum: int, _frame: FrameType | None) -> NoReturn:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, interrupt)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before if before is not None else signal.SIG_DFL)


def die_with(master: int, signum: int = signal.SIGTERM) -> None:
    """Have the kernel send a signal when the master dies: a worker that is still importing does not watch its channel.

    The kernel forgets this when the process changes its user: it has to be said again then.

    Args:
        master: the parent of this process. If it is not any more, the process ends.
        signum: the signal.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signum)
    if os.getppid() != master:
        os._exit(INTERNAL_ERROR)  # it died before the kernel was told


def become_subreaper() -> bool:
    """Have the orphans among this process's descendants become its children; returns whether the system can do that.

    It lasts through an exec and is not inherited by children.
    """
    if sys.platform != "linux":
        return False
    refused: int = ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return not refused
