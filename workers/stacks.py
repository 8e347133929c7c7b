"""Where a worker is: the stacks of its threads and tasks, on standard error, also while its event loop is blocked.

The signal is `SIGUSR2`. The master sends it to a worker that hangs; an operator may send it to any worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import io
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Final

from preforkd.workers import log

SIGNAL: Final = signal.SIGUSR2
MOST_TASKS: Final = 100
"""Tasks that are shown: a worker that hangs may have thousands, and all wait for the same one."""
STALL: Final = 1.0
"""Seconds without a heartbeat from which on it is a stall, and not somebody who wants to know."""
MOST_TEXT: Final = 256 << 10
"""Bytes of the threads' stacks in a record."""

MOST_FRAMES: Final = 30
"""Frames that are told: the last ones, where it is."""


def install(loop: asyncio.AbstractEventLoop, beat: Callable[[], int], tell: Callable[[str], None]) -> None:
    """Dump all stacks on `SIGNAL` from now on, and the threads' on a fatal signal too.

    The threads are written by a handler in C, which needs no interpreter; the tasks by one in Python, which runs as
    soon as the blocking call returns to the interpreter. Where a line of the log is a record, the handler in Python
    makes one of both.

    Args:
        loop: whose tasks are shown.
        beat: returns when the loop last turned, nanoseconds of the monotonic clock.
        tell: is told where the main thread is, as text.
    """
    written = _memory() if log.is_structured() else None

    def dump(_signum: int, frame: FrameType | None) -> None:
        tell("".join(traceback.format_stack(frame, limit=MOST_FRAMES)).rstrip())
        if written is None:
            log.write(_tasks(loop))
            return
        threads = os.pread(written, MOST_TEXT, 0).decode(errors="replace")
        os.lseek(written, 0, os.SEEK_SET)
        os.ftruncate(written, 0)
        _record(threads + _tasks(loop), (time.monotonic_ns() - beat()) / 1e9)

    log.show_fatal_signals()
    signal.signal(SIGNAL, dump)
    descriptor = log.standard_error().fileno() if written is None else written
    faulthandler.register(SIGNAL, file=descriptor, all_threads=True, chain=True)


def _memory() -> int:
    """Return the descriptor of a file in memory, where the system has such: it stays open as long as the process."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("preforkd-stacks")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _tasks(loop: asyncio.AbstractEventLoop) -> str:
    tasks = list(asyncio.all_tasks(loop))
    text = io.StringIO(f"{len(tasks)} asyncio tasks:\n")
    text.seek(0, io.SEEK_END)
    for task in tasks[:MOST_TASKS]:
        task.print_stack(limit=8, file=text)
    if len(tasks) > MOST_TASKS:
        text.write(f"... and {len(tasks) - MOST_TASKS} more\n")
    return text.getvalue()


def _record(stack: str, silent: float) -> None:
    with contextlib.suppress(Exception):  # this runs in the middle of whatever the app is doing
        if silent >= STALL:
            text = f"the event loop has been blocked for {silent:.1f} s"
            log.event("warning", "stall", text, {"seconds": round(silent, 3), "stack": stack})
        else:
            log.event("info", "stacks", "the stacks of this worker", {"stack": stack})
