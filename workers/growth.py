"""What grows in a process: the lines whose memory is not given back, and the kinds of objects that become more.

Python's `tracemalloc` is on for as long as is asked, and off again: it sees what was allocated in that time and is
still there at its end. What is there once, as a cache that fills, has grown in the first half; what leaks grows in
both. Memory that C code takes without Python is not seen by it, so the size of the process is told as well.
"""

from __future__ import annotations

import gc
import mmap
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

MOST_LINES: Final = 100
MOST_TYPES: Final = 50
LONGEST_SOURCE: Final = 120
"""Characters of a line of source."""
_is_ours = False
"""tracemalloc is on because of this, and not by the app."""
_Lines = Mapping[tuple[str, int], tuple[int, int]]
"""Bytes and blocks by file and line."""


def growth(seconds: float, wait: Callable[[float], bool]) -> dict[str, Any]:
    """Look at what grows.

    Args:
        seconds: for so long.
        wait: waits until a time of the monotonic clock; tells whether to go on.

    Returns:
        What was found, as JSON has it; sizes are bytes.
    """
    import tracemalloc  # in the functions: most workers are never looked at, and it takes 2 ms to import

    global _is_ours
    pauses = _Pauses()
    began = time.monotonic()
    resident = _resident()
    types = pauses.of(_types)
    traced_before = tracemalloc.is_tracing()  # by the app: that stays as it is
    if not traced_before:
        _is_ours = True
        tracemalloc.start()
    try:
        first = _lines(pauses)
        wait(began + seconds / 2)
        middle = _lines(pauses)
        wait(began + seconds)
        last = _lines(pauses)
        overhead = tracemalloc.get_tracemalloc_memory()
    finally:
        if not traced_before:
            tracemalloc.stop()
            _is_ours = False
    ended = time.monotonic()
    resident_after, types_after = _resident(), pauses.of(_types)
    lines = compared(first, middle, last)
    return {
        "kind": "memory",
        "python": sys.version.partition(" ")[0],
        "seconds": round(ended - began, 3),
        "resident": [resident, resident_after],
        "overhead": overhead,
        "longest_pause": round(pauses.longest, 6),
        "traced_by_app": traced_before,
        "size": sum(size for _, _, size, _, _ in lines),
        "blocks": sum(blocks for _, _, _, blocks, _ in lines),
        "lines": [[*line, _source(line[0], line[1])] for line in lines[:MOST_LINES]],
        "types": more_of(types, types_after),
    }


def forked() -> None:
    """Undo, in a process that the app has forked, what the thread that was looking cannot undo there."""
    if _is_ours:
        import tracemalloc

        tracemalloc.stop()


class _Pauses:
    """How long the interpreter was kept from all other threads."""

    def __init__(self) -> None:
        self.longest = 0.0

    def of(self, function: Callable[[], Any]) -> Any:
        """Call something that keeps it."""
        began = time.perf_counter()
        found = function()
        self.longest = max(self.longest, time.perf_counter() - began)
        return found


def _types() -> Counter[type]:
    # The objects are asked for and let go of within one call of C: no other thread runs meanwhile, so no object's last
    # reference is ours, and none is ended in this thread that has to be in its own.
    return Counter(list(map(type, chain.from_iterable(map(gc.get_objects, (None,))))))


def _lines(pauses: _Pauses) -> _Lines:
    import tracemalloc

    snapshot: tracemalloc.Snapshot = pauses.of(tracemalloc.take_snapshot)
    snapshot = snapshot.filter_traces([tracemalloc.Filter(False, name) for name in (tracemalloc.__file__, __file__)])
    return {
        (one.traceback[0].filename, one.traceback[0].lineno): (one.size, one.count)
        for one in snapshot.statistics("lineno")
    }


def compared(first: _Lines, middle: _Lines, last: _Lines) -> list[tuple[str, int, int, int, int]]:
    """Return what has grown, most first: file, line, bytes more, blocks more, and bytes more since the middle.

    Args:
        first, middle, last: what was there at these times.
    """
    none = (0, 0)
    grown = [
        (
            *place,
            size - first.get(place, none)[0],
            blocks - first.get(place, none)[1],
            size - middle.get(place, none)[0],
        )
        for place, (size, blocks) in last.items()
    ]
    return sorted((one for one in grown if one[2] > 0), key=lambda one: -one[2])


def more_of(before: Counter[type], after: Counter[type]) -> list[list[Any]]:
    """Return the types of which there are more objects than before: name, how many more, and how many; most first."""
    more = ((kind, number - before[kind], number) for kind, number in after.items())
    found = sorted(((kind, grown, number) for kind, grown, number in more if grown > 0), key=lambda one: -one[1])
    return [[f"{kind.__module__}.{kind.__qualname__}", grown, number] for kind, grown, number in found[:MOST_TYPES]]


def _source(file: str, number: int) -> str:
    """Return a line of source; empty when it is not there to be read."""
    try:
        with Path(file).open(encoding="utf-8", errors="replace") as lines:
            return next((line for index, line in enumerate(lines, 1) if index == number), "").strip()[:LONGEST_SOURCE]
    except (OSError, ValueError):
        return ""  # as of "<frozen importlib._bootstrap>"


def _resident() -> int | None:
    """Return the bytes of this process that are in memory, None where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):
        return None
