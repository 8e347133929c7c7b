"""When a connection has had enough time: pure functions of its marks, its limits and the time.

One sweep per worker and second looks at every connection (`connections.py`). A request sets no timer and, but for a
head that does not come in one piece, no mark: the sweep itself notes when it first saw a state. So what counts from
there (idle, whole request, progress of body and writes) ends up to one sweep late, and costs a request nothing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from preforkd.workers.http.states import ConnectionState

SWEEP_SECONDS = 1.0
LINGER_SECONDS = 2.0  # how long what still comes in is discarded before a close (RFC 9112 section 9.6)
MIN_RATE = 240  # bytes a second that a body must make, either way, in each window of its timeout; as Kestrel has it


class Deadline(enum.Enum):
    """What has run out."""

    HEAD = "head"  # the request's head was not complete in time
    KEEP_ALIVE = "keep-alive"  # no request came on an idle connection
    BODY = "body"  # the body makes no progress, or too little
    REST = "rest"  # the rest of a body that nobody read does not come
    REQUEST = "request"  # the whole request takes too long
    WRITE = "write"  # the client does not read what was sent
    LINGER = "linger"  # the client does not close
    CUT = "cut"  # closing(timeout) was called and its time is over


@dataclass(frozen=True, slots=True)
class Allowance:
    """How long things may take, in seconds; 0: for ever."""

    head: float = 0
    keep_alive: float = 0
    body: float = 0
    request: float = 0
    write: float = 0
    linger: float = LINGER_SECONDS

    def sweep_interval(self) -> float:
        """Seconds between two looks at the deadlines: one, or less when a time is so short that one would be late."""
        times = (self.head, self.keep_alive, self.body, self.request, self.write)
        return max(0.05, min([SWEEP_SECONDS, *(seconds / 4 for seconds in times if seconds)]))


@dataclass(slots=True)
class Marks:
    """The times that deadlines count from, in seconds of the monotonic clock; 0: does not count now.

    Attributes:
        head: accept, or the first byte of a later head.
        linger: the start of the lingering close.
        cut: the time (not the start) at which `closing()` cuts what is left.
        since, state, requests: since when the sweep has seen this state, after this number of requests.
        body, body_bytes: start of the window in which the body has to make progress, and bytes at that time.
        write, write_bytes: the same for the bytes that the client has to take.
    """

    head: float = 0.0
    linger: float = 0.0
    cut: float = 0.0
    since: float = 0.0
    state: ConnectionState = ConnectionState.NEW
    requests: int = 0
    body: float = 0.0
    body_bytes: int = 0
    write: float = 0.0
    write_bytes: int = 0


@dataclass(slots=True)
class Sight:
    """What the sweep sees of a connection.

    Attributes:
        state: where it is in its life.
        requests: how many requests it has had.
        body_bytes: of the current body so far; None: none is expected, or our own side does not read.
        written: bytes that the client has taken since the connection was made; counted while there are `unsent` ones.
        unsent: bytes that the kernel could not take yet.
    """

    state: ConnectionState
    requests: int = 0
    body_bytes: int | None = None
    written: int = 0
    unsent: int = 0


def expired(sight: Sight, marks: Marks, allowed: Allowance, now: float) -> Deadline | None:
    """Return what has run out, None when nothing has; moves the marks that follow from what is seen."""
    state = sight.state
    if state is not marks.state or sight.requests != marks.requests:
        marks.state, marks.requests, marks.since = state, sight.requests, now
    if state is ConnectionState.CLOSED:
        return None
    if 0 < marks.cut <= now:
        return Deadline.CUT
    if _write_stalls(sight, marks, allowed.write, now):
        return Deadline.WRITE
    if state is ConnectionState.CLOSING:
        if marks.linger and sight.unsent:
            marks.linger = now  # the client is still reading the response: lingering has not begun
        return Deadline.LINGER if marks.linger and now - marks.linger >= allowed.linger else None
    if state is ConnectionState.ACTIVE:
        if 0 < allowed.request <= now - marks.since:
            return Deadline.REQUEST
        return Deadline.BODY if _body_stalls(sight, marks, allowed.body, now) else None
    if state is ConnectionState.UPGRADED:
        return None
    if marks.head:
        return Deadline.HEAD if 0 < allowed.head <= now - marks.head else None
    if sight.body_bytes is not None:
        # The head has said keep-alive: what is short and comes is waited for, or the next request would be lost.
        return Deadline.REST if _body_stalls(sight, marks, allowed.body or allowed.keep_alive, now) else None
    return Deadline.KEEP_ALIVE if 0 < allowed.keep_alive <= now - marks.since else None


def _body_stalls(sight: Sight, marks: Marks, seconds: float, now: float) -> bool:
    received = sight.body_bytes
    if received is None or not seconds:
        marks.body = 0.0
        return False
    if not marks.body or received < marks.body_bytes or received - marks.body_bytes >= MIN_RATE * seconds:
        marks.body, marks.body_bytes = now, received
        return False
    return now - marks.body >= seconds


def _write_stalls(sight: Sight, marks: Marks, seconds: float, now: float) -> bool:
    if not sight.unsent or not seconds:
        marks.write = 0.0
        return False
    progress = sight.written - marks.write_bytes
    if not marks.write or progress < 0 or progress >= MIN_RATE * seconds:
        marks.write, marks.write_bytes = now, sight.written
        return False
    return now - marks.write >= seconds
