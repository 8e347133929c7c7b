"""What the admin process is told by its master when it is forked."""

from __future__ import annotations

from preforkd.workers.records import dataclass


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """What it answers with.

    Attributes:
        app: what is served, as configured.
        owner: the user id that the daemon was started with: who may use /control, beside root.
        listeners: where it is served, in the order of the queues on the scoreboard.
        statsd: where metrics are sent: a host and a port, or a path and 0.
        statsd_prefix, statsd_tags: as the options.
    """

    app: str
    owner: int
    listeners: tuple[str, ...]
    statsd: tuple[tuple[str, int], ...]
    statsd_prefix: str
    statsd_tags: str
