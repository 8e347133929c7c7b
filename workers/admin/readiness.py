"""Whether the daemon lives, and whether it is ready for traffic. Pure."""

from __future__ import annotations

import math
from typing import Final

from preforkd.workers.admin.snapshot import Snapshot, WorkerView

MASTER_SILENT: Final = 10.0
"""Seconds without a turn of the master's loop after which it is said to hang; it turns twice a second."""
WORKER_SILENT: Final = 5.0
"""Seconds without a heartbeat after which a worker is not ready: one that is only busy has one in this time."""
_STOPPING: Final = ("leaving", "stopping", "halting", "gone")
_SERVING: Final = ("ready", "retiring")


def alive(snapshot: Snapshot) -> bool:
    """Tell whether the master's loop turns; it does while the daemon drains and when it has too much to do."""
    return snapshot.silent < MASTER_SILENT


def serves(worker: WorkerView) -> bool:
    """Tell whether a worker accepts and its loop turns."""
    return worker.state in _SERVING and worker.silent < WORKER_SILENT


def ready_workers(snapshot: Snapshot) -> int:
    """Return how many slots have a worker that serves."""
    return len({worker.slot for worker in snapshot.workers if serves(worker)})


def unready(snapshot: Snapshot) -> list[str]:
    """Return why no traffic should come to this daemon; an empty list: it may come.

    Half of the wanted workers are enough: a reload or a death never takes more, and one that dies again and again is no
    reason to take away the rest.
    """
    reasons = []
    if not alive(snapshot):
        reasons.append(f"the master has not turned its loop for {snapshot.silent:.0f} s")
    if snapshot.phase in _STOPPING:
        reasons.append(f"the daemon stops ({snapshot.phase})")
    elif snapshot.phase in ("new", "booting"):
        reasons.append("no worker has been ready yet")
    else:
        ready, enough = ready_workers(snapshot), math.ceil(snapshot.wanted / 2)
        if ready < enough:
            reasons.append(f"{ready} of {snapshot.wanted} workers are ready, {enough} would be enough")
    return reasons
