"""The table of workers: what the policy knows of each. Pure."""

from __future__ import annotations

from enum import Enum, StrEnum

from preforkd.daemon.comparison import Answers
from preforkd.workers.records import dataclass


class WorkerState(Enum):
    """The life of a worker as its master sees it: the ways go downwards, but for STANDBY, which may be READY again."""

    STARTING = "starting"
    """Forked; it has until its deadline to say that it is ready."""
    READY = "ready"
    """It accepts and serves."""
    RETIRING = "retiring"
    """It accepts and serves until a successor is ready."""
    STANDBY = "standby"
    """Drained, but kept until the generation that has replaced it has proved itself."""
    DRAINING = "draining"
    """It accepts no more, finishes what it has, and exits before its deadline."""
    DYING = "dying"
    """It has been sent a signal that ends it; KILL follows at its deadline."""
    KILLED = "killed"
    """It has been sent KILL: only its exit is awaited."""


class Loss(StrEnum):
    """How a worker was lost, by the name that it is counted by; one that has drained is not lost."""

    EXITED = "exited"
    """It ended itself, without having been told to."""
    CRASHED = "crashed"
    """A signal that was neither KILL nor TERM."""
    KILLED = "killed"
    """KILL by somebody else, or a TERM while it booted."""
    OOM = "oom"
    """KILL by the kernel."""
    HUNG = "hung"
    """Its event loop was blocked for `--stall-timeout`."""
    NOT_BOOTED = "not_booted"
    OVERDUE = "overdue"
    """It had not drained in time."""


class Reload(StrEnum):
    """How a reload has ended, by the name that it is counted by."""

    DONE = "done"
    ROLLED_BACK = "rolled_back"
    """The new generation has failed, the old one goes on."""
    SUPERSEDED = "superseded"
    """Another has begun before it was over."""
    REFUSED = "refused"
    """The configuration was wrong: nothing has begun."""


SERVING = frozenset({WorkerState.READY, WorkerState.RETIRING})
ENDING = frozenset({WorkerState.DRAINING, WorkerState.DYING, WorkerState.KILLED})


@dataclass(frozen=True, slots=True)
class Generation:
    """What all workers forked after one reading of the configuration have in common; times are seconds."""

    number: int
    size: int
    """Workers wanted."""
    surge: int = 0
    """Successors that may boot at a time beside the workers that serve; 0: a quarter of the workers."""
    startup_timeout: float = 60.0
    stall_timeout: float = 30.0
    drain_delay: float = 0.0
    graceful_timeout: float = 25.0
    shutdown_timeout: float = 5.0
    development: bool = False
    """A file is edited meanwhile: nobody stands by, and what does not boot is waited for to be saved again."""
    log_level: str = ""
    """Asked for at run time, in place of the configured one."""
    trial: float = 5.0
    """For which it has to serve before the generation before it is let go."""
    trial_workers: int = 0
    """Workers that are tried beside the generation before it, before the others follow; 0: all at once."""
    trial_errors: float = 0.0
    """Percentage points by which its share of 5xx may be above that of the generation before it; 0: any number."""

    @property
    def probation(self) -> float:
        """For how long it is tried, seconds."""
        return 0.0 if self.development else self.trial


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker, from its fork to its exit."""

    serial: int
    """Never used again, other than a pid."""
    slot: int
    generation: int
    row: int
    state: WorkerState
    started: float
    deadline: float | None
    """When the policy acts on it unless something happens first."""
    ready_at: float | None = None
    graceful_until: float | None = None
    """While it drains: when it has to have finished its requests."""
    doom: str | None = None
    """Why its master has ended it; said in the log when it is gone."""
    loss: str | None = None
    """A `Loss`, when its master has ended it for one."""
    beat: int = 0
    """The last heartbeat seen."""
    silent: float = 0.0
    """Seconds for which its master has watched it without seeing a heartbeat."""
    answers: Answers = Answers()
    """What it had answered when its master looked last."""

    def __str__(self) -> str:
        return f"worker {self.slot} (generation {self.generation})"
