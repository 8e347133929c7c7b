"""Everything that can happen to a master. Each event carries `now`, seconds of the monotonic clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from preforkd.daemon.comparison import Answers
from preforkd.daemon.slots import Generation
from preforkd.workers.examining import Order
from preforkd.workers.records import dataclass


@dataclass(frozen=True, slots=True)
class Started:
    """The sockets are bound and the signals caught: the daemon may fork."""

    now: float


@dataclass(frozen=True, slots=True)
class StopAsked:
    """TERM, or INT when `delay` is false: stop without losing a request."""

    now: float
    signum: int
    delay: bool


@dataclass(frozen=True, slots=True)
class HaltAsked:
    """QUIT: end at once."""

    now: float
    signum: int


@dataclass(frozen=True, slots=True)
class ReloadAsked:
    """HUP, and the configuration read anew is good."""

    now: float
    generation: Generation
    """Its number is given by the policy."""


@dataclass(frozen=True, slots=True)
class ReloadRefused:
    """HUP, and the configuration read anew is wrong: nothing has changed. `errors` has a line for each mistake."""

    now: float
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestartAsked:
    """The worker of a slot is to be replaced; with `first` its successor is ready before it leaves."""

    now: float
    slot: int
    first: bool


@dataclass(frozen=True, slots=True)
class StacksAsked:
    """The worker of a slot is to show where it is."""

    now: float
    slot: int


@dataclass(frozen=True, slots=True)
class ExaminationAsked:
    """The worker of a slot is to look at itself."""

    now: float
    slot: int
    order: Order


@dataclass(frozen=True, slots=True)
class LogLevelAsked:
    """The log is to be written from another level on.

    Attributes:
        level: its name; empty: the configured one.
        slot: of the worker that is meant; None: all processes, and those that come later.
    """

    now: float
    level: str
    slot: int | None


@dataclass(frozen=True, slots=True)
class ScaleAsked:
    """TTIN (+1) or TTOU (-1)."""

    now: float
    by: int


@dataclass(frozen=True, slots=True)
class ReopenAsked:
    """USR1: open the log files anew."""

    now: float


@dataclass(frozen=True, slots=True)
class ForkFailed:
    """The system refused to fork a worker."""

    now: float
    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker says that it accepts."""

    now: float
    serial: int


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """A worker says that it cannot boot."""

    now: float
    serial: int
    stage: str
    text: str
    details: str


@dataclass(frozen=True, slots=True)
class WorkerGotTerm:
    """A worker says that somebody has sent it a TERM. If that was for the whole daemon, `StopAsked` comes or came."""

    now: float
    serial: int


@dataclass(frozen=True, slots=True)
class WorkerRetiring:
    """A worker asks to be replaced."""

    now: float
    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerStacks:
    """A worker that was asked to has written where it is, and says it here too."""

    now: float
    serial: int
    text: str


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """A worker has ended.

    Attributes:
        code: its exit code, or None when a signal ended it.
        signum: the signal that ended it, or None.
        oom: the kernel killed it for want of memory.
        in_flight: the requests that it was handling.
        loading: code of the app was running, to be imported or started.
    """

    now: float
    serial: int
    code: int | None
    signum: int | None
    oom: bool
    in_flight: int
    loading: bool = True


@dataclass(frozen=True, slots=True)
class HeartbeatsRead:
    """The heartbeats on the scoreboard, by serial.

    `frozen` holds the workers that the system has stopped (SIGSTOP, a debugger): they do not hang. `answers` is
    what each has answered since its start.
    """

    now: float
    beats: Mapping[int, int]
    frozen: frozenset[int]
    answers: Mapping[int, Answers] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TimePassed:
    """A deadline has come."""

    now: float


Event = (
    Started
    | StopAsked
    | HaltAsked
    | ReloadAsked
    | ReloadRefused
    | RestartAsked
    | StacksAsked
    | ExaminationAsked
    | LogLevelAsked
    | ScaleAsked
    | ReopenAsked
    | ForkFailed
    | WorkerReady
    | WorkerFailed
    | WorkerGotTerm
    | WorkerRetiring
    | WorkerStacks
    | WorkerExited
    | HeartbeatsRead
    | TimePassed
)
