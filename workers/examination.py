"""The worker's side of `preforkd.workers.examining`: a thread that is begun by a signal, and what it leaves."""

from __future__ import annotations

import _thread
import asyncio
import json
import signal
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FrameType
from typing import Any, Final, Protocol

from preforkd.workers import growth, profiling
from preforkd.workers.examining import SIGNAL, Area, Cell, Order, Stage
from preforkd.workers.scoreboard import Field, Row, Scoreboard

PART: Final = 500
"""Items of a list that are made JSON at a time: other threads wait meanwhile."""


class Examine(Protocol):
    """What is done in the thread; returns what was found, whose long lists come from iterators."""

    def __call__(self, order: Order, wait: Callable[[float], bool]) -> Mapping[str, Any]:
        """Examine this process.

        Args:
            order: what is asked for.
            wait: waits until a time of the monotonic clock; tells whether the order still counts then.
        """


def install(loop: asyncio.AbstractEventLoop, waits_in: CodeType, board: Scoreboard, row: Row) -> None:
    """Obey orders from now on.

    Args:
        loop: whose tasks are named.
        waits_in: the function in which the main thread runs the loop, and is while that waits.
        board: the scoreboard.
        row: of this worker.
    """
    area = Area(board)
    examine: Mapping[str, Examine] = {
        "profile": lambda order, wait: profiling.profile(order.seconds, order.rate, wait, loop, waits_in),
        "memory": lambda order, wait: growth.growth(order.seconds, wait),
    }

    def begin(_signum: int, _frame: FrameType | None) -> None:
        order = area.order
        if area[Cell.STATE] != Stage.ASKED or area[Cell.SERIAL] != row[Field.SERIAL]:
            return  # somebody else's signal: it means nothing
        area[Cell.STATE] = Stage.RUNNING
        # Not threading.Thread: the main thread may hold the lock that its start takes, right where this interrupts it.
        try:
            _thread.start_new_thread(_obey, (area, order, examine[order.kind]))
        except RuntimeError as exc:
            area.leave(order.ident, Stage.FAILED, str(exc).encode())

    signal.signal(SIGNAL, begin)


def forked() -> None:
    """Undo what a thread of this was at, in a process that the app has forked meanwhile: it has no such thread."""
    profiling.forked()
    growth.forked()


def _obey(area: Area, order: Order, examine: Examine) -> None:
    def wait(until: float) -> bool:
        while (left := until - time.monotonic()) > 0 and area.wanted(order.ident):
            time.sleep(min(left, 0.1))
        return area.wanted(order.ident)

    try:
        data = _compressed(examine(order, wait))
    except BaseException as exc:  # noqa: BLE001 - whatever it is, the app goes on, and somebody waits
        text = f"the worker could not do it: {type(exc).__name__}: {exc}"
        area.leave(order.ident, Stage.FAILED, text.encode("utf-8", "replace")[:4096])
    else:
        area.leave(order.ident, Stage.DONE, data)


def _compressed(found: Mapping[str, Any]) -> bytes:
    packer = zlib.compressobj(6)
    return b"".join([*(packer.compress(part.encode()) for part in _as_json(found)), packer.flush()])


def _as_json(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield an object as JSON; no part of it is so long that other threads would wait for it."""
    for index, (name, value) in enumerate(found.items()):
        yield f"{', ' if index else '{'}{json.dumps(name)}: "
        if isinstance(value, list):
            yield "["
            for start in range(0, len(value), PART):
                yield (", " if start else "") + json.dumps(value[start : start + PART])[1:-1]
            yield "]"
        else:
            yield json.dumps(value)
    yield "}"
