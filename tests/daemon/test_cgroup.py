"""CPU quota and memory limit, from fake trees of v1, v2, both, containers with and without a namespace of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from preforkd.daemon.cgroup import cpu_quota, memory_limit

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V1_OTHER = "32 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
ROOT = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"


def tree(root: Path, cgroup: str, mountinfo: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": cgroup, "proc/self/mountinfo": ROOT + mountinfo, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "files", "quota"),
    [
        pytest.param("0::/\n", V2, {}, None, id="v2, nothing set"),
        pytest.param("0::/a\n", V2, {"sys/fs/cgroup/a/cpu.max": "max 100000\n"}, None, id="v2, no limit"),
        pytest.param("0::/a\n", V2, {"sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, 1.5, id="v2"),
        pytest.param("0::/\n", V2, {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5, id="v2 in a namespace"),
        pytest.param(
            "0::/pod/container\n",
            V2,
            {"sys/fs/cgroup/pod/cpu.max": "200000 100000\n", "sys/fs/cgroup/pod/container/cpu.max": "max 100000\n"},
            2.0,
            id="v2, the limit is the parent's",
        ),
        pytest.param(
            "0::/a/b/c\n",
            V2,
            {"sys/fs/cgroup/a/cpu.max": "100000 100000\n", "sys/fs/cgroup/a/b/c/cpu.max": "300000 100000\n"},
            1.0,
            id="v2, the tightest counts",
        ),
        pytest.param("4:cpu,cpuacct:/a\n", V1, {}, None, id="v1, nothing set"),
        pytest.param(
            "4:cpu,cpuacct:/a\n3:memory:/b\n",
            V1 + V1_OTHER,
            {
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "1",
            },
            None,
            id="v1, no limit",
        ),
        pytest.param(
            "4:cpu,cpuacct:/pod/c\n",
            V1,
            {
                "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_period_us": "100000\n",
            },
            2.5,
            id="v1, the limit is the parent's",
        ),
        pytest.param(
            "4:cpu,cpuacct:/docker/1f\n",
            V1.replace(" / /sys", " /docker/1f /sys"),
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            1.0,
            id="v1 in a container without a namespace: the mount shows its own group",
        ),
        pytest.param(
            "0::/../other\n",
            V2,
            {"sys/fs/cgroup/cpu.max": "100000 100000\n"},
            1.0,
            id="a group outside of the namespace",
        ),
        pytest.param(
            "0::/x\n",
            V2.replace(" / /sys", " /docker/1f /sys"),
            {"sys/fs/cgroup/cpu.max": "100000 100000\n"},
            1.0,
            id="a group that is not below what is mounted",
        ),
        pytest.param(
            "4:cpu,cpuacct:/a\n0::/b\n",
            V1 + V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
            {
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/unified/b/cpu.max": "300000 100000\n",
            },
            3.0,
            id="both: the tighter counts",
        ),
        pytest.param(
            "0::/a\n",
            V2.replace("/sys/fs/cgroup", "/my\\040groups"),
            {"my groups/a/cpu.max": "100000 50000\n"},
            2.0,
            id="a mount point with a blank",
        ),
        pytest.param("0::/a\n", V2, {"sys/fs/cgroup/a/cpu.max": "0 0\n"}, None, id="no sense"),
        pytest.param("0::/a\n", V2, {"sys/fs/cgroup/a/cpu.max": ""}, None, id="empty"),
        pytest.param("\n:\nx\n", "x\n - \n1 2 3 - cgroup2\n", {}, None, id="garbage"),
    ],
)
def test_the_tightest_quota_up_to_the_mount_point(
    tmp_path: Path, cgroup: str, mountinfo: str, files: dict[str, str], quota: float | None
) -> None:
    assert cpu_quota(tree(tmp_path, cgroup, mountinfo, files)) == quota


MEMORY = "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "files", "limit"),
    [
        pytest.param("0::/\n", V2, {}, None, id="v2, nothing set"),
        pytest.param("0::/a\n", V2, {"sys/fs/cgroup/a/memory.max": "max\n"}, None, id="v2, no limit"),
        pytest.param("0::/\n", V2, {"sys/fs/cgroup/memory.max": "268435456\n"}, 268435456, id="v2 in a namespace"),
        pytest.param(
            "0::/pod/container\n",
            V2,
            {"sys/fs/cgroup/pod/memory.max": "4096\n", "sys/fs/cgroup/pod/container/memory.max": "max\n"},
            4096,
            id="v2, the limit is the parent's",
        ),
        pytest.param(
            "0::/a/b/c\n",
            V2,
            {"sys/fs/cgroup/a/memory.max": "8192\n", "sys/fs/cgroup/a/b/c/memory.max": "4096\n"},
            4096,
            id="v2, the tightest counts",
        ),
        pytest.param("3:memory:/b\n", V1_OTHER, {}, None, id="v1, nothing set"),
        pytest.param(
            "3:memory:/b\n",
            V1_OTHER,
            {f"{MEMORY}/b/memory.stat": "cache 0\nhierarchical_memory_limit 9223372036854771712\n"},
            None,
            id="v1, no limit",
        ),
        pytest.param(
            "3:memory:/docker/1f\n",
            V1_OTHER.replace(" / /sys", " /docker/1f /sys"),
            {
                f"{MEMORY}/memory.limit_in_bytes": "9223372036854771712\n",
                f"{MEMORY}/memory.stat": "cache 0\nhierarchical_memory_limit 4096\nhierarchical_memsw_limit 8192\n",
            },
            4096,
            id="v1, the limit is that of a group that the container cannot see",
        ),
        pytest.param(
            "3:memory:/a/b\n",
            V1_OTHER,
            {
                f"{MEMORY}/a/memory.stat": "hierarchical_memory_limit 4096\n",
                f"{MEMORY}/a/b/memory.stat": "hierarchical_memory_limit 8192\n",
            },
            4096,
            id="v1, a group that does not count those above it",
        ),
        pytest.param(
            "3:memory:/a\n0::/b\n",
            V1_OTHER + V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
            {
                f"{MEMORY}/a/memory.stat": "hierarchical_memory_limit 8192\n",
                "sys/fs/cgroup/unified/b/memory.max": "4096\n",
            },
            4096,
            id="both: the tighter counts",
        ),
        pytest.param("0::/a\n", V2, {"sys/fs/cgroup/a/memory.max": "0\n"}, None, id="nothing can run in none"),
        pytest.param("0::/a\n", V2, {"sys/fs/cgroup/a/memory.max": ""}, None, id="empty"),
        pytest.param("3:memory:/a\n", V1_OTHER, {f"{MEMORY}/a/memory.stat": "cache\n"}, None, id="garbage"),
    ],
)
def test_the_tightest_memory_limit_up_to_the_mount_point(
    tmp_path: Path, cgroup: str, mountinfo: str, files: dict[str, str], limit: int | None
) -> None:
    assert memory_limit(tree(tmp_path, cgroup, mountinfo, files)) == limit


def test_a_system_without_proc_has_no_quota_and_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert memory_limit(tmp_path) is None
