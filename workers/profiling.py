"""Where a process spends its time: its threads' stacks, looked at so many times a second by another thread.

What a sample stands for is the time since the one before it, as the clock says: where the interpreter could not be had
in between, as in a call of C that keeps it, the next sample has all of that time. So the weights of a thread sum up to
the time that was looked at.

Memory is bounded: by the number of different functions, stacks and threads, and by that of changes from one stack to
another; beyond that only their order in time is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

MOST_DEPTH: Final = 120
"""Frames of a stack that are kept: the innermost."""
MOST_FRAMES: Final = 5000
MOST_STACKS: Final = 10_000
MOST_RUNS: Final = 200_000
"""Changes from one stack to another, over all threads."""
MOST_THREADS: Final = 100
PROMPT: Final = 2e-5
"""Seconds in which a thread that runs Python gives the interpreter up for a sample. With the 5 ms of Python's own it
would be seen only where it gives it up by itself, as in a call of the system: a request of 1 ms would never be seen."""
LATE: Final = 2.0
"""Intervals after which a sample is late."""
LOOP: Final = "(event loop)"
WAITS: Final = "(waits for events)"
ITSELF: Final = "(in the event loop itself)"
CUT: Final = "(frames that are left out)"
OTHER: Final = "(other stacks)"
_Key = CodeType | str
_interval: float | None = None
"""What `sys.getswitchinterval()` is else, while a sample is waited for."""


class Samples:
    """What was seen, as small as it can be kept."""

    def __init__(self) -> None:
        self._frames: dict[_Key, int] = {}
        self._stacks: dict[tuple[int, ...], int] = {}
        self._threads: dict[Hashable, tuple[str, list[list[int]], dict[int, int]]] = {}
        self._runs = 0
        self.taken = 0
        """Samples of all threads."""

    def add(self, thread: Hashable, name: str, stack: Sequence[_Key], weight: int) -> None:
        """Add one sample.

        Args:
            thread: what it is known by.
            name: of the thread, when it is seen first.
            stack: the outermost first.
            weight: microseconds.
        """
        if thread not in self._threads and len(self._threads) >= MOST_THREADS:
            return
        self.taken += 1
        _, runs, last = self._threads.setdefault(thread, (name, [], {}))
        index = self._stack(stack)
        if runs and runs[-1][0] == index:
            runs[-1][1] += weight
        elif self._runs >= MOST_RUNS and index in last:
            runs[last[index]][1] += weight
        else:
            last[index] = len(runs)
            runs.append([index, weight])
            self._runs += 1

    def _stack(self, stack: Sequence[_Key]) -> int:
        if len(stack) > MOST_DEPTH:
            stack = [CUT, *stack[-MOST_DEPTH + 1 :]]
        key = tuple(map(self._frame, stack))
        if key not in self._stacks and len(self._stacks) >= MOST_STACKS:
            key = (self._frame(OTHER),)
        return self._stacks.setdefault(key, len(self._stacks))

    def _frame(self, key: _Key) -> int:
        if key not in self._frames and len(self._frames) >= MOST_FRAMES:
            key = OTHER
        return self._frames.setdefault(key, len(self._frames))

    def found(self) -> dict[str, list[Any]]:
        """Return it: `frames` (name, file, line), `stacks` (of frames), `threads`, `runs` (thread, stack, weight)."""
        return {
            "frames": [[key, "", 0] if isinstance(key, str) else _named(key) for key in self._frames],
            "stacks": [list(stack) for stack in self._stacks],
            "threads": [name for name, _, _ in self._threads.values()],
            "runs": [[thread, *run] for thread, (_, runs, _) in enumerate(self._threads.values()) for run in runs],
        }


def _named(code: CodeType) -> list[Any]:
    return [code.co_qualname, code.co_filename, code.co_firstlineno]


def profile(
    seconds: float, rate: int, wait: Callable[[float], bool], loop: asyncio.AbstractEventLoop, waits_in: CodeType
) -> dict[str, Any]:
    """Look at the threads of this process, from one of its own that is not shown.

    Args:
        seconds: for so long.
        rate: so many times a second.
        wait: waits until a time of the monotonic clock; tells whether to go on.
        loop: the event loop of the main thread.
        waits_in: the function that runs it.

    Returns:
        What was seen, as JSON has it; weights are microseconds.
    """
    _wake_sharply()
    samples = Samples()
    main = _Main(loop, waits_in)
    began = last = time.monotonic()
    own, looks, late, index = time.thread_time(), 0, 0, 0
    try:
        while last < began + seconds:
            looks, index = looks + 1, index + 1
            goes_on = _prompt_wait(wait, began + index / rate)
            now = time.monotonic()
            late += now - last > LATE / rate
            _take(samples, main, max(int((now - last) * 1e6), 1))
            last = now
            index = max(index, int((now - began) * rate))  # what was missed is not made up for
            if not goes_on:
                break
    finally:
        main.close()
    return {
        "kind": "profile",
        "python": sys.version.partition(" ")[0],
        "seconds": round(last - began, 6),
        "rate": rate,
        "samples": samples.taken,
        "looks": looks,
        "late": late,
        "sampler_cpu": round(time.thread_time() - own, 6),
        **samples.found(),
    }


def _wake_sharply() -> None:
    """Have the system end the waits of this thread when they are over: it adds up to 50 us otherwise."""
    with contextlib.suppress(OSError):  # no Linux, or a /proc that is read-only
        Path(f"/proc/{threading.get_native_id()}/timerslack_ns").write_text("1")


def _prompt_wait(wait: Callable[[float], bool], until: float) -> bool:
    """Wait, and get the interpreter soon when it is over; it is this thread's then for as long as a look takes."""
    global _interval
    _interval = before = sys.getswitchinterval()
    sys.setswitchinterval(PROMPT)
    try:
        return wait(until)
    finally:
        sys.setswitchinterval(before)
        _interval = None


def forked() -> None:
    """Undo, in a process that the app has forked, what the thread that was looking cannot undo there."""
    if _interval is not None:
        sys.setswitchinterval(_interval)


def _take(samples: Samples, main: _Main, weight: int) -> None:
    own = threading.get_ident()
    names: dict[int | None, str] = {one.ident: one.name for one in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        if ident == main.ident:
            samples.add(ident, "main thread", main.stack(frame), weight)
        elif ident != own:
            name = names.get(ident, f"thread {ident}")
            samples.add((ident, name), name, list(_codes(frame))[::-1], weight)


def _codes(frame: FrameType | None) -> Iterator[CodeType]:
    """Yield the functions of a stack, the innermost first."""
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back


class _Main:
    """The thread of the event loop: what it does is told by task, and what is below the loop is left out."""

    def __init__(self, loop: asyncio.AbstractEventLoop, waits_in: CodeType) -> None:
        self.ident: Final = threading.main_thread().ident
        self._loop = loop
        self._waits_in = waits_in
        self._state = -1
        with contextlib.suppress(OSError):  # no Linux
            self._state = os.open(f"/proc/self/task/{os.getpid()}/stat", os.O_RDONLY | os.O_CLOEXEC)

    def stack(self, frame: FrameType) -> list[_Key]:
        """Return what it does, the outermost first."""
        stack: list[_Key] = []
        for code in _codes(frame):
            if code is self._waits_in:
                return self._in_loop(stack[::-1])
            stack.append(code)
        return stack[::-1]

    def _in_loop(self, stack: list[_Key]) -> list[_Key]:
        if not stack:
            return [LOOP, ITSELF if self._runs() else WAITS]
        task = asyncio.current_task(self._loop)
        return [LOOP, *([] if task is None else [_label(task)]), *stack]

    def _runs(self) -> bool:
        """Whether the system says that the thread runs; where it says nothing, it waits."""
        if self._state < 0:
            return False
        try:
            return os.pread(self._state, 512, 0).rpartition(b") ")[2][:1] == b"R"
        except OSError:
            return False

    def close(self) -> None:
        """Be done with it."""
        if self._state >= 0:
            os.close(self._state)


def _label(task: asyncio.Task[Any]) -> str:
    """Name a task by what it runs, so that those of a kind are one; or by its name, where the app has given it one."""
    name = task.get_name()
    if name.startswith("Task-"):
        coroutine = task.get_coro()
        name = getattr(coroutine, "__qualname__", type(coroutine).__name__)
    return f"task {name}"
