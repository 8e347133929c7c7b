"""The status of the daemon as JSON. Pure.

`VERSION` grows when a field is taken away or changes its meaning; new fields may come at any time. Times are seconds,
sizes bytes; what is not known is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

from preforkd.workers.admin.history import History, Rates
from preforkd.workers.admin.processes import Usage
from preforkd.workers.admin.readiness import alive, ready_workers, unready
from preforkd.workers.admin.snapshot import Snapshot, WorkerView
from preforkd.workers.channel import Note

VERSION: Final = 1
MOST_IN_FLIGHT: Final = 50
_CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


def status(
    snapshot: Snapshot, history: History, usage: Mapping[int, Usage], notes: Iterable[Note], **identity: object
) -> dict[str, Any]:
    """Return the status.

    Args:
        snapshot: of the scoreboard.
        history: the last minutes.
        usage: of CPU and memory, by pid.
        notes: what has happened lately, oldest first.
        identity: what is known of the daemon beside that.
    """
    reasons = unready(snapshot)
    return {
        "version": VERSION,
        **identity,
        "uptime": round(snapshot.uptime, 1),
        "phase": snapshot.phase,
        "alive": alive(snapshot),
        "ready": not reasons,
        "reasons": reasons,
        "generation": snapshot.committed,
        "target_generation": snapshot.target,
        "workers_wanted": snapshot.wanted,
        "workers_ready": ready_workers(snapshot),
        "requests": {
            "total": snapshot.total.requests,
            "by_class": dict(zip(_CLASSES, snapshot.total.by_class(), strict=True)),
            "active": sum(worker.active for worker in snapshot.workers),
            "rejected": snapshot.total.rejected(),
            **_rates(history.all()),
        },
        "connections": sum(worker.connections for worker in snapshot.workers),
        "workers": [_worker(one, history.worker(one.serial), usage.get(one.pid, Usage())) for one in snapshot.workers],
        "in_flight": _in_flight(snapshot),
        "exits": dict(snapshot.exits),
        "reloads": dict(snapshot.reloads),
        "admin_lost": snapshot.admin_lost,
        "lost_lines": dict(snapshot.lost_lines),
        "events": [asdict(note) for note in notes],
    }


def series(history: History, since: float = 0.0) -> dict[str, Any]:
    """Return the last minutes, a list for each quantity, oldest first.

    Args:
        history: the samples.
        since: seconds since the epoch: only what is newer.
    """
    samples = [one for one in history.samples if one.time > since]
    return {
        "version": VERSION,
        "time": [one.time for one in samples],
        "requests_per_second": [round(one.rates.requests, 2) for one in samples],
        "errors_per_second": [round(one.rates.errors, 2) for one in samples],
        "p50": [one.rates.p50 for one in samples],
        "p95": [one.rates.p95 for one in samples],
        "p99": [one.rates.p99 for one in samples],
        "active": [one.active for one in samples],
        "connections": [one.connections for one in samples],
        "ready": [one.ready for one in samples],
    }


def _rates(rates: Rates) -> dict[str, float | None]:
    return {
        "per_second": round(rates.requests, 2),
        "errors_per_second": round(rates.errors, 2),
        "p50": rates.p50,
        "p95": rates.p95,
        "p99": rates.p99,
    }


def _worker(worker: WorkerView, rates: Rates, usage: Usage) -> dict[str, Any]:
    return {
        "slot": worker.slot,
        "generation": worker.generation,
        "pid": worker.pid or None,
        "state": worker.state,
        "age": round(worker.age, 1),
        "silent": round(worker.silent, 3),
        "loop_lag": worker.loop_lag,
        "connections": worker.connections,
        "active": worker.active,
        "requests": worker.counts.requests,
        **_rates(rates),
        "cpu": usage.cpu,
        "cpu_seconds": usage.cpu_seconds,
        "memory": usage.memory,
    }


def _in_flight(snapshot: Snapshot) -> list[dict[str, Any]]:
    found = [{**one, "slot": worker.slot, "pid": worker.pid} for worker in snapshot.workers for one in worker.in_flight]
    return sorted(found, key=lambda one: -one["seconds"])[:MOST_IN_FLIGHT]
