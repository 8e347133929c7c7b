"""Everything that a master can do: values that the policy returns and `preforkd.daemon.master` carries out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from preforkd.workers.channel import Message
from preforkd.workers.examining import Order
from preforkd.workers.records import dataclass


@dataclass(frozen=True, slots=True)
class Fork:
    """Fork a worker of that generation for that slot; it writes that row of the scoreboard."""

    serial: int
    slot: int
    generation: int
    row: int
    reason: str = "start"
    """`start`, `reload`, `retire` (the one before has asked to be replaced) or `vacancy` (the slot was empty)."""
    log_level: str = ""
    """From which it logs; empty: as configured."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to a worker."""

    serial: int
    message: Message


@dataclass(frozen=True, slots=True)
class Kill:
    """Send a signal to a worker."""

    serial: int
    signum: int


@dataclass(frozen=True, slots=True)
class DumpStacks:
    """Have a worker that does not answer write where each of its threads and tasks is."""

    serial: int


@dataclass(frozen=True, slots=True)
class Examine:
    """Have a worker look at itself, in place of what another may have been told before."""

    serial: int
    order: Order


@dataclass(frozen=True, slots=True)
class Announce:
    """Say what is served where, by how many workers, and how to stop it: the first worker is ready."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A generation has taken over: its listeners, options and log are the daemon's."""

    generation: int


@dataclass(frozen=True, slots=True)
class RollBack:
    """A generation is given up: forget what was made for it."""

    generation: int


@dataclass(frozen=True, slots=True)
class ForkNoMore:
    """No worker will be forked any more; the listening sockets stay open."""


@dataclass(frozen=True, slots=True)
class CloseListeners:
    """Close the master's copies of the listening sockets."""


@dataclass(frozen=True, slots=True)
class ReopenLogs:
    """Open the master's log anew."""


@dataclass(frozen=True, slots=True)
class SetLogLevel:
    """Write the master's log, and the admin process's, from another level on; empty: from the configured one."""

    level: str


@dataclass(frozen=True, slots=True)
class Log:
    """Write a line to the log, at a level of `logging` in lower case.

    `event` is the stable name of what has happened, if it has one, and `fields` say more of it to machines.
    """

    level: str
    text: str
    event: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Show:
    """Tell those who watch the daemon something that others have written to the log."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Exit:
    """End the master with this exit code: no worker is left."""

    code: int


Action = (
    Fork
    | Send
    | Kill
    | DumpStacks
    | Examine
    | Announce
    | Commit
    | RollBack
    | ForkNoMore
    | CloseListeners
    | ReopenLogs
    | SetLogLevel
    | Log
    | Show
    | Exit
)
