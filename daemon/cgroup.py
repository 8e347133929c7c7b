"""The control groups of this process, v1 and v2: where their files are, and how much CPU and memory they allow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from preforkd.workers.records import dataclass

_NO_LIMIT = 1 << 62
"""v1 writes a limit that is not set as the most that fits a signed 64-bit number, rounded down to a page."""
_HIERARCHICAL = re.compile(r"^hierarchical_memory_limit ([0-9]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted hierarchy."""

    root: str  # the group that the mount point shows: not "/" in a container without a cgroup namespace
    point: str
    version: int


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The CPUs that the tightest control group above this process allows.

    A limit often stands on a parent (a Kubernetes pod over its container, a systemd slice over its unit), so each group
    up to the mount point is asked.

    Args:
        root: the folder that stands for `/`; tests give one with a tree of their own.

    Returns:
        A number of CPUs (0.5 is half of one), None when no group sets a limit or nothing can be read.
    """
    quotas = [
        quota
        for hierarchy in hierarchies("cpu", root)
        for folder in hierarchy.upwards()
        if (quota := _quota(folder, hierarchy.version)) is not None
    ]
    return min(quotas, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """The bytes of memory that the tightest control group above this process allows, those of swap not among them.

    Args:
        root: the folder that stands for `/`; tests give one with a tree of their own.

    Returns:
        None when no group sets a limit or nothing can be read.
    """
    limits = [
        limit
        for hierarchy in hierarchies("memory", root)
        for folder in hierarchy.upwards()
        if (limit := _limit(folder, hierarchy.version)) is not None
    ]
    return min(limits, default=None)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted tree of control groups that may know of a controller.

    Attributes:
        version: 1 or 2.
        top: the folder of its mount point.
        own: the folder of this process' group, as far below the mount point as it can be seen.
    """

    version: int
    top: Path
    own: Path

    def upwards(self) -> Iterator[Path]:
        """Yield the folders of this process' group and of all above it, up to the mount point."""
        folder = self.own
        while folder != self.top:
            yield folder
            folder = folder.parent
        yield self.top


def hierarchies(controller: str, root: Path = Path("/")) -> list[Hierarchy]:
    """Find the trees that may know of a controller: v2's one tree and, where it is mounted, the controller's in v1.

    Args:
        controller: "cpu", "memory".
        root: the folder that stands for `/`.
    """
    groups = text_of(root / "proc/self/cgroup")
    found: list[Hierarchy] = []
    for mount in _mounts(text_of(root / "proc/self/mountinfo"), controller):
        top = root / mount.point.lstrip("/")
        found.append(Hierarchy(mount.version, top, top / _below(mount, _group(groups, mount.version, controller))))
    return found


def text_of(path: Path) -> str:
    """Return what a file of the kernel says, nothing when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # no such controller, not Linux, or a sandbox that hides it: then there is no limit to know of
        return ""


def _mounts(mountinfo: str, controller: str) -> Iterator[_Mount]:
    """The mounts of hierarchies with that controller: proc(5) has the fields."""
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields, (kind, *_rest) = before.split(" "), (after.split(" ") if dash else [""])
        if len(fields) < 5:
            continue
        if kind == "cgroup2":
            yield _Mount(_plain(fields[3]), _plain(fields[4]), 2)
        elif kind == "cgroup" and controller in after.split(" ")[-1].split(","):
            yield _Mount(_plain(fields[3]), _plain(fields[4]), 1)


def _plain(field: str) -> str:
    """Undo the octal escapes of blanks in mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _group(groups: str, version: int, controller: str) -> str:
    for line in groups.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (version == 2 and number == "0" and not controllers) or (
            version == 1 and controller in controllers.split(",")
        ):
            return path
    return "/"


def _below(mount: _Mount, path: str) -> str:
    """The group's folder under the mount point; a group outside of what is mounted (`/../x`) counts as its top."""
    top = mount.root.rstrip("/")
    if path != top and not path.startswith(top + "/"):
        return ""
    below = path[len(top) :].strip("/")
    return "" if ".." in below.split("/") else below


def _quota(folder: Path, version: int) -> float | None:
    if version == 2:
        quota, _, period = text_of(folder / "cpu.max").strip().partition(" ")
    else:
        quota, period = text_of(folder / "cpu.cfs_quota_us").strip(), text_of(folder / "cpu.cfs_period_us").strip()
    if not (quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0):
        return None  # "max" in v2, -1 in v1, or a file that is not there: no limit at this level
    return int(quota) / int(period)


def _limit(folder: Path, version: int) -> int | None:
    if version == 2:
        text = text_of(folder / "memory.max").strip()
    else:
        # Not memory.limit_in_bytes: this one counts the groups above, too, also those that a container cannot see.
        found = _HIERARCHICAL.search(text_of(folder / "memory.stat"))
        text = found[1] if found else ""
    if not (text.isdecimal() and 0 < int(text) < _NO_LIMIT):
        return None  # "max" in v2, or a file that is not there: no limit at this level
    return int(text)
