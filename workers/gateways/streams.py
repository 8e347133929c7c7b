"""When the streams of a worker are told that it leaves, and which of them: `--drain-streams`, for ASGI and WSGI.

An event stream (`text/event-stream`) has no end of its own, and who asks for it by GET, as `EventSource` of browsers
does, comes back when it ends (HTML, section 9.2): it is told at the beginning of a drain. Any other stream may be half
of an answer that nobody asks for twice, a download or the events that answer a POST (the tokens of a language model,
the result of a tool): it gets all of the drain's time but the last seconds.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import TYPE_CHECKING

from preforkd.workers.records import dataclass

if TYPE_CHECKING:
    from preforkd.workers.http.head import ResponseHead
    from preforkd.workers.http.message import RequestMessage

LAST_WORDS = 2.0
"""Seconds that an app has from the moment when its streams are told to the one when they are cut; a fifth, if less."""

_NAME = b"content-type:"
_EVENTS = b"text/event-stream"


class Told(enum.Enum):
    """Which streams have been told that their worker leaves, and are told when they begin."""

    NONE = "none"
    RETURNING = "those whose clients come back"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Times:
    """When streams are told, seconds of the loop's clock.

    Attributes:
        returning: those whose clients come back.
        others: all others.
    """

    returning: float
    others: float


def times_to_tell(when: str, began: float, deadline: float, *, app_knows: bool) -> Times:
    """Return when the streams of a worker that leaves are told.

    Args:
        when: the value of `--drain-streams`: "auto", "all" or "late".
        began: when it began to leave, seconds of the loop's clock. A worker that stands by at first, and is told to
            leave for good later, has begun when it was told to stand by.
        deadline: when what is left is cut, of the same clock.
        app_knows: the app asks for the drain itself: it gets the time for its last words before it is told.
    """
    grace = min(LAST_WORDS, max(deadline - began, 0.0) / 5)
    early = began + (grace if app_knows else 0.0)
    late = deadline - grace
    return Times(late if when == "late" else early, early if when == "all" else late)


def is_event_stream(response: ResponseHead) -> bool:
    """Whether a response consists of server-sent events."""
    for line in response.lines:
        if line[: len(_NAME)].lower() == _NAME:
            return line[len(_NAME) :].partition(b";")[0].strip().lower() == _EVENTS
    return False


def comes_back(request: RequestMessage, response: ResponseHead) -> bool:
    """Whether the client of a stream asks for it again when it ends."""
    return request.method == "GET" and is_event_stream(response)


class StreamDrain:
    """Tells streams in time.

    Args:
        when: see `times_to_tell`.
        tell: called when more streams are to be told; may be called again with nothing new.

    Attributes:
        told: which have been.
    """

    def __init__(self, when: str, tell: Callable[[], None]) -> None:
        self.told = Told.NONE
        self._when = when
        self._tell = tell
        self._began: float | None = None
        self._timers: list[asyncio.TimerHandle] = []

    def begin(self, deadline: float, *, app_knows: bool) -> None:
        """The worker leaves, or leaves by another time than it was told before; arguments as for `times_to_tell`."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._began is None:
            self._began = now
        self._stop_timers()
        times = times_to_tell(self._when, self._began, deadline, app_knows=app_knows)
        for when, told in sorted([(times.returning, Told.RETURNING), (times.others, Told.ALL)], key=lambda one: one[0]):
            if self.told is Told.ALL or self.told is told:
                continue
            if when <= now:
                self._tell_now(told)
            else:
                self._timers.append(loop.call_at(when, self._tell_now, told))

    def _tell_now(self, told: Told) -> None:
        if self.told is not Told.ALL:
            self.told = told
        self._tell()

    def end(self) -> None:
        """The worker serves on after all."""
        self._began = None
        self.told = Told.NONE
        self._stop_timers()

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def tells(self, request: RequestMessage, response: ResponseHead) -> bool:
        """Whether the stream of this response is told."""
        return self.told is Told.ALL or (self.told is Told.RETURNING and comes_back(request, response))
