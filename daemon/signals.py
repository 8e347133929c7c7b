"""Signals of the master: a handler writes one byte, the loop decides.

Three stages, in this order:

1. `install_early()` before anything else is imported: as PID 1 a process without a handler ignores TERM, and a HUP
   without one kills. Nothing has been started yet, so TERM, INT and QUIT end the process on the spot.
2. `catch()` before the first socket is bound: from now on each signal is one byte in a pipe that the loop reads.
3. `reset_in_child()` in a forked worker, with all signals blocked: none may run a handler of its master's.
"""

import os
import signal
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
LEFT_TO_MASTER = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU)
CAUGHT = (
    *STOPPING,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
    signal.SIGWINCH,
)

_LATE = {signal.SIGTTOU: 1, signal.SIGCHLD: 2}


def _exit_at_once(signum: int, _frame: FrameType | None) -> None:
    # os._exit: an exception raised between two arbitrary instructions of an import can be swallowed there.
    os._exit(128 + signum if signum == signal.SIGQUIT else 0)


def _note(_signum: int, _frame: FrameType | None) -> None:
    """Do nothing: the byte that the interpreter has written to the wake-up pipe says it all."""


def install_early() -> None:
    """Obey TERM, INT and QUIT, and survive every other signal, while the program is still being imported."""
    for signum in CAUGHT:
        signal.signal(signum, _exit_at_once if signum in STOPPING else _note)


def catch() -> int:
    """Turn every signal of the master into a byte, its number.

    Returns:
        The read end of the pipe in which the bytes arrive; it never blocks.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    # A full pipe loses a byte, but 64 Ki signals that nobody has read say no more than one; so no warning either.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for signum in CAUGHT:
        do_nothing_on(signum)
    # The program before this one, or whoever has started it, may have blocked some: those that wait arrive now.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return reader


def do_nothing_on(signum: int) -> None:
    """Let a signal mean nothing to this process, and its default to the programs that it starts."""
    signal.signal(signum, _note)
    signal.siginterrupt(signum, False)


def read(reader: int) -> list[signal.Signals]:
    """Return the signals that have arrived since the last call, in the order in which they are to be obeyed.

    Their own says little: of several that wait while a process does not run, the kernel begins the handler of the last
    one first. So a worker less comes behind a worker more, lest it is refused for there being only one. Deaths come
    last: a signal to all ends those that have no handler, and this one's own copy of it says why.
    """
    try:
        received = os.read(reader, 65536)
    except BlockingIOError:
        return []
    return sorted(map(signal.Signals, received), key=lambda one: _LATE.get(one, 0))


def block() -> set[int]:
    """Block all signals around a fork; returns the mask to give back to `unblock`."""
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()))


def unblock(mask: set[int]) -> None:
    """Restore the mask that `block` has returned."""
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def reset_in_child() -> None:
    """Give a forked worker its own signals: those that are the master's business do nothing, the rest are default.

    A Ctrl-C in a terminal reaches the whole process group, and so does its HUP: the master answers for all. They are
    not ignored: the programs that the app starts would inherit that, where exec makes the default of a handler.
    """
    writer = signal.set_wakeup_fd(-1)
    for signum in CAUGHT:
        signal.signal(signum, signal.SIG_DFL)
    for signum in LEFT_TO_MASTER:
        do_nothing_on(signum)
    if writer >= 0:
        os.close(writer)
