"""Processes that the app forks: to them the worker was a plain Python program, and nothing of ours lives on in them.

A fork copies all of a worker: handlers of signals, the descriptor in which the interpreter notes them, the channel, the
listeners, the connections, the scoreboard, the event loop. The child would take signals for its worker, keep the port,
the clients and the master waiting, and tamper with what the worker's loop watches. So, by `os.register_at_fork()`:

1. Its signals mean what they mean in a plain Python program, from the first instruction on: those that we have handlers
   for are blocked around the fork. Handlers of the app stay.
2. What is ours is let go of. Descriptors are not closed but replaced by /dev/null: objects of ours that have their
   numbers are still there, and must not close, or take out of the worker's epoll, what gets a number next.
3. Nothing of ours runs. When the app's own code has come to its end there, by a return, an exception or an `await`, the
   process ends as the interpreter ends a program (`end()`). What was registered for the end of the worker is not run.
4. Forks of our own, those of a mold, are none of the app's.

A program that is started without Python's fork (`subprocess`, `posix_spawn`) runs none of this and needs none: exec
resets handlers and closes our descriptors.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import field
from socket import AF_UNIX
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import setproctitle

from preforkd.workers.records import dataclass

if TYPE_CHECKING:
    from preforkd.workers.scoreboard import Scoreboard

T = TypeVar("T")
FAILED: Final = 1
strayed = False
"""The app has forked this process. A plain global: it is looked at for each request, where a child could get to."""


@dataclass(slots=True)
class _Ours:
    """What a process of ours has, and what it forks must not have."""

    handlers: dict[int, object] = field(default_factory=dict)
    """Of signals, by number."""
    sockets: Sequence[socket.socket] = ()
    names: frozenset[object] = frozenset()
    """Of the listeners: what is accepted on one has the same."""
    board: Scoreboard | None = None
    before_loop: frozenset[int] = frozenset()
    loop: Collection[int] = ()
    """The descriptors of the event loop."""
    titles: tuple[str, str] | None = None
    """That of the process, and that of its children."""
    forked: Callable[[], None] | None = None


_ours = _Ours()
_masks: dict[int, frozenset[int]] = {}
"""The signals that a thread has blocked for a fork, by thread."""
_is_own_fork = False
_is_watching = False


def watch_forks() -> None:
    """From now on, mind what the app forks; to be called before any of its code runs.

    All handlers of signals that there are now are taken for ours.
    """
    global _is_watching
    for signum in signal.valid_signals():
        handler = signal.getsignal(signum)
        if callable(handler) and handler is not signal.default_int_handler:
            _ours.handlers[signum] = handler
    if not _is_watching:
        _is_watching = True
        os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def claim(signum: int) -> None:
    """Take note that the handler which this signal has now is ours."""
    _ours.handlers[signum] = signal.getsignal(signum)


def possess(sockets: Sequence[socket.socket], board: Scoreboard) -> None:
    """Say what else is ours, instead of what was said before: listeners and channels, and the scoreboard."""
    _ours.sockets = sockets
    _ours.names = frozenset(name for one in sockets if (name := _name(one)) is not None)
    _ours.board = board


def entitle(title: str, of_children: str) -> None:
    """Set the title of this process, and that which the processes get that the app forks."""
    setproctitle.setproctitle(title)
    _ours.titles = (title, of_children)


@contextlib.contextmanager
def event_loop() -> Iterator[None]:
    """Make, run and close an event loop: its descriptors are ours from `loop_runs()` on."""
    _ours.before_loop = frozenset(_open_descriptors())
    try:
        yield
    finally:
        _ours.loop = ()


def loop_runs(forked: Callable[[], None]) -> None:
    """The event loop makes its first turn: all that it works with is open.

    Args:
        forked: to be called in each process that the app forks, before the scoreboard is let go of.
    """
    # A thread that the import of the app has started may have opened files, or connections to elsewhere.
    _ours.loop = [one for one in _open_descriptors() - _ours.before_loop if not _is_outward(one)]
    _ours.forked = forked


def _is_outward(descriptor: int) -> bool:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return True  # that thread has closed it
    return stat.S_ISREG(mode) or (stat.S_ISSOCK(mode) and _with_socket(descriptor, lambda one: one.family) != AF_UNIX)


@contextlib.contextmanager
def own_fork() -> Iterator[None]:
    """Fork a process of ours."""
    global _is_own_fork
    _is_own_fork = True
    try:
        yield
    finally:
        _is_own_fork = False


# Around a fork


def _before() -> None:
    if not _is_own_fork:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _ours.handlers)
        _masks[threading.get_ident()] = frozenset(_ours.handlers) - blocked


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _masks.pop(threading.get_ident(), frozenset()))


def _after_in_parent() -> None:
    if not _is_own_fork:
        _unblock()


def _after_in_child() -> None:
    global _ours, strayed
    if _is_own_fork:
        return
    strayed = True
    ours, _ours = _ours, _Ours()
    signal.set_wakeup_fd(-1)
    _reset_signals(ours.handlers)
    _unblock()
    _masks.clear()
    atexit._clear()  # of the worker's end, as multiprocessing does in its children
    _let_go([*(one.fileno() for one in ours.sockets), *ours.loop, *_accepted(ours.names)])
    if ours.forked is not None:
        ours.forked()
    if ours.board is not None:
        ours.board.let_go()
    if ours.titles is not None and setproctitle.getproctitle() == ours.titles[0]:
        setproctitle.setproctitle(ours.titles[1])


def _reset_signals(handlers: dict[int, object]) -> None:
    for signum, handler in handlers.items():
        if signal.getsignal(signum) == handler:  # else the app has its own by now
            faulthandler.unregister(signum)
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # libuv has a handler that Python does not know of


def _let_go(descriptors: Iterable[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        if descriptor >= 0:
            os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def _accepted(names: frozenset[object]) -> list[int]:
    """Return the descriptors of all connections that were accepted on listeners of these names.

    The system is asked, and not our own tables: another thread may be between the accept and the table.
    """
    sockets = [one for one in _open_descriptors() if stat.S_ISSOCK(os.fstat(one).st_mode)]
    return [one for one in sockets if _with_socket(one, _name) in names]


def _with_socket(descriptor: int, function: Callable[[socket.socket], T]) -> T | None:
    """Call a function with a descriptor as a socket; None for what the system does not know as one."""
    try:
        one = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        return function(one)
    except OSError:
        return None
    finally:
        one.detach()


def _name(one: socket.socket) -> object:
    """What a listener and the connections accepted on it have in common, None for what has no name.

    A port is enough: the system gives one that is bound to no connection that is made from here.
    """
    name = one.getsockname()
    if one.family == socket.AF_UNIX:
        return name or None
    return name[1] if one.type == socket.SOCK_STREAM else None


def _open_descriptors() -> set[int]:
    listed = [int(name) for name in os.listdir("/dev/fd")]  # noqa: PTH208 - numbers, not paths
    return {number for number in listed if _is_open(number)}  # without that of the listing itself


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


# The end of a process that the app has forked


def end_if_strayed(exc: BaseException | None = None) -> None:
    """End this process if the app has forked it: its own code has come to its end, or has raised `exc`."""
    if strayed:
        end(exc)


def end(exc: BaseException | None = None) -> NoReturn:
    """End this process as the interpreter ends a program.

    Args:
        exc: what has come out of the app's code, if that has not just returned.
    """
    code = FAILED
    try:
        code = _code(exc)
        threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing does in its children
        atexit._run_exitfuncs()
    except BaseException:  # noqa: BLE001 - there is nobody left to catch it
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        if isinstance(exc, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)  # whoever waits for it learns of the signal
        os._exit(code)


def end_with(*args: object, **_: object) -> NoReturn:
    """End this process: in place of a call that hands the result of a thread to an event loop which is not there."""
    raised = [one for one in args if isinstance(one, BaseException)]
    end(raised[0] if raised else sys.exc_info()[1])


def _code(exc: BaseException | None) -> int:
    """Return the exit code, and say what the interpreter says."""
    if exc is None:
        return 0
    if not isinstance(exc, SystemExit):
        sys.excepthook(type(exc), exc, exc.__traceback__)
        return FAILED
    if exc.code is None or isinstance(exc.code, int):
        return (exc.code or 0) & 0xFF
    print(exc.code, file=sys.stderr)
    return FAILED
