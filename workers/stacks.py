"""Where a worker is: the stacks of its threads and tasks, on standard error, also while its event loop is blocked.

The signal is `SIGUSR2`. The master sends it to a worker that hangs; an operator may send it to any worker.
"""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Final

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
        print(f"{len(tasks)} asyncio tasks:", file=sys.stderr)
        for task in tasks[:MOST_TASKS]:
            task.print_stack(limit=8, file=sys.stderr)
        if len(tasks) > MOST_TASKS:
            print(f"... and {len(tasks) - MOST_TASKS} more", file=sys.stderr)
        sys.stderr.flush()

    faulthandler.enable()
    signal.signal(SIGNAL, dump_tasks)
    faulthandler.register(SIGNAL, all_threads=True, chain=True)
