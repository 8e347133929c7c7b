"""Requests that take long, found by the sweep over the connections, and where in the app each of them is.

No request pays for this: it sets no timer and no mark. What a coroutine waits in is read from the frames that it holds.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from preforkd.workers.blame import short
from preforkd.workers.http.running import Runner
from preforkd.workers.http.states import ConnectionState

if TYPE_CHECKING:
    from preforkd.workers.http.connections import Live

MOST_FRAMES: Final = 20
"""Frames of a line: the last ones."""
MOST_STEPS: Final = 200
"""From one awaitable to the next: a cycle would have no end."""
_OURS: Final = f"{Path(__file__).parents[1]}/"
_HOLDERS: Final = (CoroutineType, GeneratorType, AsyncGeneratorType, asyncio.Task)


class SlowRequests:
    """Logs each request once that takes too long.

    Args:
        seconds: that one may take.
        logger: gets the lines.
    """

    def __init__(self, seconds: float, logger: logging.Logger) -> None:
        self._seconds = seconds
        self._logger = logger
        self._told: WeakKeyDictionary[Live, int] = WeakKeyDictionary()

    def look(self, connection: Live, now: float) -> None:
        """See whether a connection has been at the same request for too long.

        Args:
            connection: just swept: its marks are of now.
            now: seconds of the monotonic clock.
        """
        if connection.state is not ConnectionState.ACTIVE:
            return
        seconds = now - connection._times.since
        if seconds < self._seconds or self._told.get(connection) == connection.requests:
            return
        self._told[connection] = connection.requests
        request = connection.request
        if request is None:
            return
        where = place(frames_of(connection))
        text = (
            f"slow request: {request.method} {request.path!a} of {connection.remote}, {seconds:.1f} s so far, {where}"
        )
        fields = {
            "method": request.method,
            "path": request.path,
            "remote": connection.remote,
            "seconds": round(seconds, 3),
            "where": where,
        }
        self._logger.warning("%s", text, extra={"event": "slow_request", "fields": fields})


def place(frames: Iterable[FrameType]) -> str:
    """Say on one line where in the app's code, or that of libraries, something is; the innermost call comes last."""
    summary = traceback.StackSummary.extract(((one, one.f_lineno) for one in frames), lookup_lines=False)
    calls = [f"{short(one.filename)}:{one.lineno} {one.name}" for one in summary if not one.filename.startswith(_OURS)]
    if not calls:
        return "in none of the app's code"
    shown = calls[-MOST_FRAMES:]
    return "in " + " > ".join(["...", *shown] if len(shown) < len(calls) else shown)


def frames_of(connection: Live) -> list[FrameType]:
    """Return where the current request of a connection is, the outermost call first."""
    if connection.deferred is not None:
        return connection.deferred.frames()
    return list(awaited(connection.handler_task))


def awaited(one: object) -> Iterator[FrameType]:
    """Yield the frames of a task, or of any awaitable, and of what each of them waits for."""
    for _ in range(MOST_STEPS):
        frame: FrameType | None = None
        following: object = None
        match one:
            case asyncio.Task():
                following = one.get_coro()
            case CoroutineType():
                frame, following = one.cr_frame, one.cr_await
            case GeneratorType():
                frame, following = one.gi_frame, one.gi_yieldfrom
            case AsyncGeneratorType():
                frame, following = one.ag_frame, one.ag_await
            case None:
                return
            case _:  # what `__await__()` of a coroutine, or `asend()`, gives: nothing but the collector tells of what
                following = next((held for held in gc.get_referents(one) if isinstance(held, _HOLDERS)), None)
        if frame is not None:
            yield frame
            if frame.f_code is Runner.steps_of.__code__:
                following = frame.f_locals.get("steps")
        one = following
