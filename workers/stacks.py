"""Where a worker is: the stacks of its threads and tasks, on standard error, also while its event loop is blocked.

The signal is `SIGUSR2`. The master sends it to a worker that hangs; an operator may send it to any worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import CoroutineType, FrameType, GeneratorType
from typing import Any, Final

from preforkd.workers import log
from preforkd.workers.http.running import Runner

SIGNAL: Final = signal.SIGUSR2
MOST_TASKS: Final = 100
"""Tasks that are shown: a worker that hangs may have thousands, and all wait for the same one."""
STALL: Final = 1.0
"""Seconds without a heartbeat from which on it is a stall, and not somebody who wants to know."""
MOST_TEXT: Final = 256 << 10
"""Bytes of the threads' stacks in a record."""

TASK_FRAMES: Final = 8
"""Of a task that are shown: the last ones."""
MOST_TOLD: Final = 20
"""Tasks that are told: it is read on a screen."""
MOST_FRAMES: Final = 30
"""Frames that are told: the last ones, where it is."""

MOST_AWAITED: Final = 200
"""Coroutines that await each other which are followed."""
_REST: Final = Runner.steps_of.__code__


def install(loop: asyncio.AbstractEventLoop, beat: Callable[[], int], tell: Callable[[str], None]) -> None:
    """Dump all stacks on `SIGNAL` from now on, and the threads' on a fatal signal too.

    The threads are written by a handler in C, which needs no interpreter; the tasks by one in Python, which runs as
    soon as the blocking call returns to the interpreter. Where a line of the log is a record, the handler in Python
    makes one of both.

    Args:
        loop: whose tasks are shown.
        beat: returns when the loop last turned, nanoseconds of the monotonic clock.
        tell: is told where the main thread is, and then the other threads and the tasks, as text.
    """
    written = _memory() if log.is_structured() else None

    def dump(_signum: int, frame: FrameType | None) -> None:
        tasks = list(asyncio.all_tasks(loop))
        tell("\n".join([*_threads(frame), _tasks(tasks, MOST_TOLD)]))
        all_tasks = _tasks(tasks, MOST_TASKS) + "\n"
        if written is None:
            log.write(all_tasks)
            return
        threads = os.pread(written, MOST_TEXT, 0).decode(errors="replace")
        os.lseek(written, 0, os.SEEK_SET)
        os.ftruncate(written, 0)
        _record(threads + all_tasks, (time.monotonic_ns() - beat()) / 1e9)

    log.show_fatal_signals()
    signal.signal(SIGNAL, dump)
    descriptor = log.standard_error().fileno() if written is None else written
    faulthandler.register(SIGNAL, file=descriptor, all_threads=True, chain=True)


def _memory() -> int:
    """Return the descriptor of a file in memory, where the system has such: it stays open as long as the process."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("preforkd-stacks")
    import tempfile  # on macOS alone

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _record(stack: str, silent: float) -> None:
    with contextlib.suppress(Exception):  # this runs in the middle of whatever the app is doing
        if silent >= STALL:
            text = f"the event loop has been blocked for {silent:.1f} s"
            log.event("warning", "stall", text, {"seconds": round(silent, 3), "stack": stack})
        else:
            log.event("info", "stacks", "the stacks of this worker", {"stack": stack})


def _threads(frame: FrameType | None) -> Iterator[str]:
    """Yield the stacks of all threads; that of this one, which is the main one, comes first and begins at `frame`."""
    own, frames = threading.get_ident(), sys._current_frames()
    yield _stack(frame)
    for thread in threading.enumerate():
        if thread.ident in frames and thread.ident != own:
            yield f"thread {thread.name}:\n{_stack(frames[thread.ident])}"


def _tasks(tasks: Sequence[asyncio.Task[Any]], most: int) -> str:
    lines = [f"{len(tasks)} asyncio tasks:", *map(_task, tasks[:most])]
    return "\n".join([*lines, *([f"... and {len(tasks) - most} more"] if len(tasks) > most else [])])


def _task(task: asyncio.Task[Any]) -> str:
    frames = list(_frames(task.get_coro()))[-TASK_FRAMES:]
    places = [traceback.FrameSummary(f.f_code.co_filename, f.f_lineno, f.f_code.co_name) for f in frames]
    return f"task {task.get_name()}:\n{''.join(traceback.format_list(places))}".rstrip()


def _frames(awaited: object) -> Iterator[FrameType]:
    """Yield the frames of what is awaited, from the outermost in; a task itself knows of its own coroutine's alone."""
    for _ in range(MOST_AWAITED):
        if isinstance(awaited, CoroutineType):
            frame, awaited = awaited.cr_frame, awaited.cr_await
        elif isinstance(awaited, GeneratorType):
            frame, awaited = awaited.gi_frame, awaited.gi_yieldfrom
            if frame is not None and frame.f_code is _REST:
                awaited = frame.f_locals["steps"]  # which it makes one by one
        else:
            # What `__await__()` of a coroutine gives says nothing of itself, but refers to the coroutine.
            wrapped = gc.get_referents(awaited) if type(awaited).__name__ == "coroutine_wrapper" else []
            frame, awaited = None, next((one for one in wrapped if isinstance(one, CoroutineType)), None)
        if frame is not None:
            yield frame
        if awaited is None:
            return


def _stack(frame: FrameType | None) -> str:
    return "".join(traceback.format_stack(frame, limit=MOST_FRAMES)).rstrip()
