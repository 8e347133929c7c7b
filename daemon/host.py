"""What the machine allows this process, and what `auto` makes of it."""

from __future__ import annotations

import math
import os
import resource

from preforkd.daemon.cgroup import cpu_quota, memory_limit
from preforkd.workers.records import dataclass

MOST_WITHOUT_QUOTA = 8
"""Workers that `auto` starts at most when nothing limits CPU: on a big shared machine more would be a surprise."""
MEMORY_OF_A_WORKER = 128 << 20
"""Bytes of a memory limit that `auto` counts for a worker.

Measured as USS behind 20,000 requests (CPython 3.11, x86-64): a worker with a FastAPI app of 200 routes has 45 MiB,
with OpenTelemetry, Sentry, httpx and Jinja beside it 58; and in a reload the old worker stands by beside its successor.
"""


@dataclass(frozen=True, slots=True)
class Host:
    """What the machine allows this process.

    Attributes:
        cpus: that it may run on.
        quota: of the tightest control group in CPUs, None without one.
        open_files: the soft limit of file descriptors.
        memory: that the tightest control group may have in bytes, None without a limit.
    """

    cpus: int
    quota: float | None
    open_files: int
    memory: int | None = None

    @classmethod
    def probe(cls) -> Host:
        """Ask the operating system."""
        affinity = getattr(os, "sched_getaffinity", None)  # Linux; a Mac has only the number of CPUs
        soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return cls(
            cpus=len(affinity(0)) if affinity else os.cpu_count() or 1,
            quota=cpu_quota(),
            open_files=1 << 20 if soft == resource.RLIM_INFINITY else soft,
            memory=memory_limit(),
        )


def auto_workers(host: Host) -> tuple[int, str]:
    """How many workers `auto` means here, and why: as many as there are CPUs for, and memory where that is limited."""
    number, why = _workers_by_cpus(host)
    if host.memory is None:
        return number, why
    room = host.memory // MEMORY_OF_A_WORKER
    limit, each = _mebibytes(host.memory), _mebibytes(MEMORY_OF_A_WORKER)
    return max(1, min(number, room)), f"{why}, cgroup memory limit of {limit} for {room or 'less than 1'} of {each}"


def _workers_by_cpus(host: Host) -> tuple[int, str]:
    cpus = f"{host.cpus} CPU{'s' if host.cpus != 1 else ''} usable"
    if host.quota is not None:
        number = max(1, min(host.cpus, math.ceil(host.quota)))
        return number, f"{cpus}, cgroup quota of {host.quota:g}"
    if host.cpus > MOST_WITHOUT_QUOTA:
        return MOST_WITHOUT_QUOTA, f"{cpus}, no cgroup quota, so {MOST_WITHOUT_QUOTA} at most"
    return host.cpus, f"{cpus}, no cgroup quota"


def _mebibytes(size: int) -> str:
    return f"{size >> 20} MiB"


def auto_connections(host: Host) -> tuple[int, str]:
    """How many connections a worker can hold, and why: what the app, logs and channels need is left free."""
    reserve = min(max(64, host.open_files // 10), host.open_files // 2)
    return max(1, host.open_files - reserve), f"{host.open_files} open files allowed (ulimit -n), {reserve} kept free"
