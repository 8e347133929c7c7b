"""What `auto` makes of CPUs, their quota, memory and open files."""

from __future__ import annotations

import pytest

from preforkd.daemon.host import Host, auto_connections, auto_workers

MIB = 1 << 20


@pytest.mark.parametrize(
    ("cpus", "quota", "workers", "reason"),
    [
        (1, None, 1, "1 CPU usable, no cgroup quota"),
        (4, None, 4, "4 CPUs usable, no cgroup quota"),
        (64, None, 8, "64 CPUs usable, no cgroup quota, so 8 at most"),
        (64, 0.5, 1, "64 CPUs usable, cgroup quota of 0.5"),
        (64, 1.5, 2, "64 CPUs usable, cgroup quota of 1.5"),
        (64, 12.0, 12, "64 CPUs usable, cgroup quota of 12"),
        (2, 12.0, 2, "2 CPUs usable, cgroup quota of 12"),
    ],
)
def test_auto_workers_follow_affinity_and_quota_and_say_why(
    cpus: int, quota: float | None, workers: int, reason: str
) -> None:
    assert auto_workers(Host(cpus, quota, 1024)) == (workers, reason)


@pytest.mark.parametrize(
    ("cpus", "quota", "memory", "workers", "reason"),
    [
        (4, None, 256 * MIB, 2, "no cgroup quota, cgroup memory limit of 256 MiB for 2 of 128 MiB"),
        (4, None, 256 * MIB - 1, 1, "no cgroup quota, cgroup memory limit of 255 MiB for 1 of 128 MiB"),
        (4, 3.0, 10**9, 3, "cgroup quota of 3, cgroup memory limit of 953 MiB for 7 of 128 MiB"),
        (64, 32.0, 2048 * MIB, 16, "cgroup quota of 32, cgroup memory limit of 2048 MiB for 16 of 128 MiB"),
        (64, None, 512 * MIB, 4, "no cgroup quota, so 8 at most, cgroup memory limit of 512 MiB for 4 of 128 MiB"),
        (2, None, 100 * MIB, 1, "no cgroup quota, cgroup memory limit of 100 MiB for less than 1 of 128 MiB"),
        (2, None, 1, 1, "no cgroup quota, cgroup memory limit of 0 MiB for less than 1 of 128 MiB"),
    ],
)
def test_auto_workers_are_no_more_than_there_is_memory_for_where_it_is_limited(
    cpus: int, quota: float | None, memory: int, workers: int, reason: str
) -> None:
    assert auto_workers(Host(cpus, quota, 1024, memory)) == (workers, f"{cpus} CPUs usable, {reason}")


@pytest.mark.parametrize(("files", "connections"), [(16, 8), (128, 64), (1024, 922), (20000, 18000), (1 << 20, 943719)])
def test_auto_connections_leave_files_for_the_app(files: int, connections: int) -> None:
    assert auto_connections(Host(1, None, files))[0] == connections
