"""Fork a process, and give it nothing of its parent's that it must not have."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NoReturn

from preforkd.daemon import signals

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
INTERNAL_ERROR: Final = 1


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


def spawn_sibling(body: Callable[[], int]) -> None:
    """Fork a process that is not a child of this one but of its parent, and exits with what `body` returns.

    The parent has to be a subreaper: a process in between is forked, forks, and ends, and the kernel gives its orphan
    to the parent. When `body` is called that has happened, and TERM will come when the parent dies.

    Raises:
        OSError: the system has no process or memory left.
    """
    parent = os.getppid()
    mask = signals.block()
    try:
        between = _fork()
        if between == 0:
            _be_between(body, parent, mask)
    finally:
        signals.unblock(mask)
    # The application may have had SIGCHLD ignored, or a handler of its own that reaps: then there is no status to have.
    with contextlib.suppress(ChildProcessError):
        _, status = os.waitpid(between, 0)
        code = os.waitstatus_to_exitcode(status)
        if code > 0:
            raise OSError(code, os.strerror(code))


def _be_between(body: Callable[[], int], parent: int, mask: set[int]) -> NoReturn:
    """Fork and end; the exit code is the error number of the fork."""
    between = os.getpid()
    code = INTERNAL_ERROR
    try:
        if _fork() == 0:

            def life() -> int:
                # It ends right now. No event says that the kernel has found a new parent, so this has to look.
                while os.getppid() == between:
                    time.sleep(0.0005)
                die_with(parent)
                signals.unblock(mask)
                return body()

            _live(life)
        code = 0
    except OSError as exc:
        code = exc.errno or INTERNAL_ERROR
    finally:
        os._exit(code)


def _fork() -> int:
    with warnings.catch_warnings():
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
    except BaseException:  # noqa: BLE001 - nothing may climb out of the child into the frames of its parent
        sys.excepthook(*sys.exc_info())
    finally:
        flush_output()
        os._exit(code)


def flush_output() -> None:
    """Write what the program has printed: after a fork it would be written by both processes."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


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
