"""When a connection has had enough time: pure functions of its times, its limits and the time.

One sweep per worker and second looks at every connection (`connections.py`). A request sets no timer and, but for a
head that does not come in one piece, no mark: the sweep itself notes when it first saw a state. So what counts from
there (idle, whole request, progress of body and writes) ends up to one sweep late, and costs a request nothing.
"""

from __future__ import annotations

import dataclasses
import enum
from functools import cached_property, lru_cache

from preforkd.workers.http import compiled
from preforkd.workers.http.states import ConnectionState

SWEEP_SECONDS = 1.0
LINGER_SECONDS = 2.0  # how long what still comes in is discarded before a close (RFC 9112 section 9.6)
MIN_RATE = 240  # bytes a second that a body must make, either way, in each window of its timeout; as Kestrel has it
UNTAKEN_SECONDS = 60.0  # for a response that is complete but not taken, where there is no write timeout


class Deadline(enum.Enum):
    """What has run out."""

    HEAD = "head"  # the request's head was not complete in time
    KEEP_ALIVE = "keep-alive"  # no request came on an idle connection
    BODY = "body"  # the body makes no progress, or too little
    REST = "rest"  # the rest of a body that nobody read does not come
    REQUEST = "request"  # the whole request takes too long
    WRITE = "write"  # the client does not read what was sent
    LINGER = "linger"  # the client does not close


@dataclasses.dataclass(frozen=True)  # the library's, for it keeps what it has reckoned
class Allowance:
    """How long things may take, in seconds; 0: for ever."""

    head: float = 0
    keep_alive: float = 0
    body: float = 0
    request: float = 0
    write: float = 0
    linger: float = LINGER_SECONDS

    @cached_property
    def sweep_interval(self) -> float:
        """Seconds between two looks at the deadlines: one, or less when a time is so short that one would be late."""
        times = (self.head, self.keep_alive, self.body, self.request, self.write)
        return max(0.05, min([SWEEP_SECONDS, *(seconds / 4 for seconds in times if seconds)]))


@lru_cache(maxsize=64)
def allowance_of(head: float, keep_alive: float, body: float, request: float, write: float) -> Allowance:
    """Return the `Allowance` of these times; one object for all connections that are given the same."""
    return Allowance(head, keep_alive, body, request, write)


@compiled.in_both_forms
@dataclasses.dataclass(slots=True, eq=False, repr=False)  # the library's: one is made for each connection
class Times:
    """The times that deadlines count from, in seconds of the monotonic clock; 0: does not count now.

    Attributes:
        head: accept, or the first byte of a later head.
        linger: the start of the lingering close.
        cut: the time (not the start) at which `closing()` cuts what is left; a timer sees to it, not the sweep.
        since, state, requests: since when the sweep has seen this state, after this number of requests.
        body, body_bytes: start of the window in which the body has to make progress, and bytes at that time.
        write, write_goal: start of the window in which the client has to take what is there for it, and the bytes that
            it has to have taken at its end.
        took, taken: since when the client has taken no more than this number of bytes.
        delivered: bytes given to the transport when the client was last seen to have taken all of them.
        left: the request, by its number, during which it was seen that the client has closed its side.
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
    write_goal: int = 0
    took: float = 0.0
    taken: int = 0
    delivered: int = 0
    left: int = 0

    def stalls(self, now: float) -> bool:
        """Whether the client has taken nothing of what is there for it for a while."""
        return self.write > 0 and now - self.took >= LINGER_SECONDS


@dataclasses.dataclass(slots=True, eq=False, repr=False)  # the library's: one is made for each look
class Observed:
    """What the sweep sees of a connection.

    Attributes:
        state: where it is in its life.
        requests: how many requests it has had.
        body_bytes: of the current body so far; None: none is expected, or our own side does not read.
        taken: bytes that the client's system has acknowledged since the connection was made; counted while there are
            `untaken` ones.
        untaken: bytes that it has not: ours, and those that the kernel has and would keep for us.
    """

    state: ConnectionState
    requests: int = 0
    body_bytes: int | None = None
    taken: int = 0
    untaken: int = 0


def expired(observed: Observed, times: Times, allowed: Allowance, now: float) -> Deadline | None:
    """Return what has run out, None when nothing has; moves the times that follow from what is seen."""
    state = observed.state
    if state is not times.state or observed.requests != times.requests:
        times.state, times.requests, times.since = state, observed.requests, now
    if state is ConnectionState.CLOSED:
        return None
    is_over = state in (ConnectionState.IDLE, ConnectionState.CLOSING)
    if _write_stalls(observed, times, allowed.write or (UNTAKEN_SECONDS if is_over else 0), now):
        return Deadline.WRITE
    if state is ConnectionState.CLOSING:
        if times.linger and observed.untaken:
            times.linger = now  # the client is still reading the response: lingering has not begun
        return Deadline.LINGER if times.linger and now - times.linger >= allowed.linger else None
    if state is ConnectionState.ACTIVE:
        if 0 < allowed.request <= now - times.since:
            return Deadline.REQUEST
        return Deadline.BODY if _body_stalls(observed, times, allowed.body, now) else None
    if state is ConnectionState.UPGRADED:
        return None
    if times.head:
        return Deadline.HEAD if 0 < allowed.head <= now - times.head else None
    if observed.body_bytes is not None:
        # The head has said keep-alive: what is short and comes is waited for, or the next request would be lost.
        return Deadline.REST if _body_stalls(observed, times, allowed.body or allowed.keep_alive, now) else None
    if observed.untaken:
        times.since = now  # the client is still reading the response: it is not idle, and has its time for that
    return Deadline.KEEP_ALIVE if 0 < allowed.keep_alive <= now - times.since else None


def _body_stalls(observed: Observed, times: Times, seconds: float, now: float) -> bool:
    received = observed.body_bytes
    if received is None or not seconds:
        times.body = 0.0
        return False
    if not times.body or received < times.body_bytes or received - times.body_bytes >= MIN_RATE * seconds:
        times.body, times.body_bytes = now, received
        return False
    return now - times.body >= seconds


def _write_stalls(observed: Observed, times: Times, seconds: float, now: float) -> bool:
    """Whether the client has not taken, within its time, all that was there for it, nor as much as the rate wants."""
    taken = observed.taken
    if not observed.untaken:
        times.write = 0.0
        return False
    if not times.write or taken > times.taken:  # our FIN counts as a byte that is not taken yet
        times.taken, times.took = taken, now
    if not times.write or taken >= times.write_goal:
        times.write, times.write_goal = now, taken + min(observed.untaken, int(MIN_RATE * seconds))
        return False
    return 0 < seconds <= now - times.write
