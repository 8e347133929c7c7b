"""Where a worker is: the stacks of its threads and tasks, on standard error, also while its event loop is blocked.

The signal is `SIGUSR2`. The master sends it to a worker that hangs; an operator may send it to any worker.
"""

from __future__ import annotations

import asyncio
import faulthandler
import io
import signal
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Final

from preforkd.workers import log

SIGNAL: Final = signal.SIGUSR2
MOST_TASKS: Final = 100
"""Tasks that are shown: a worker that hangs may have thousands, and all wait for the same one."""

MOST_FRAMES: Final = 30
"""Frames that are told: the last ones, where it is."""


def install(loop: asyncio.AbstractEventLoop, tell: Callable[[str], None]) -> None:
    """Dump all stacks on `SIGNAL` from now on, and the threads' on a fatal signal too.

    The threads are written by a handler in C, which needs no interpreter; the tasks by one in Python, which runs as
    soon as the blocking call returns to the interpreter.

    Args:
        loop: whose tasks are shown.
        tell: is told where the main thread is, as text.
    """

    def dump_tasks(_signum: int, frame: FrameType | None) -> None:
        tell("".join(traceback.format_stack(frame, limit=MOST_FRAMES)).rstrip())
        tasks = list(asyncio.all_tasks(loop))
        text = io.StringIO(f"{len(tasks)} asyncio tasks:\n")
        text.seek(0, io.SEEK_END)
        for task in tasks[:MOST_TASKS]:
            task.print_stack(limit=8, file=text)
        if len(tasks) > MOST_TASKS:
            text.write(f"... and {len(tasks) - MOST_TASKS} more\n")
        log.write(text.getvalue())

    log.show_fatal_signals()
    signal.signal(SIGNAL, dump_tasks)
    faulthandler.register(SIGNAL, file=log.standard_error().fileno(), all_threads=True, chain=True)
