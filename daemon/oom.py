"""Whether the kernel killed a worker for want of memory.

A worker that is killed so dies by SIGKILL, like one that a person has killed. What tells them apart is the counter of
such kills that the kernel keeps for each control group (`oom_kill`: in memory.events of v2, memory.oom_control of v1).

What this cannot tell: the counter is the group's and names no process. If the kernel kills a process that the app has
started, and within `FRESH` seconds somebody else kills a worker by SIGKILL, the worker's death is put down to the
kernel. Without a memory controller (a group outside of any container or unit, macOS) nothing is put down to it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from preforkd.daemon.cgroup import Hierarchy, hierarchies, text_of

FRESH: Final = 10.0
"""Seconds for which a kill may belong to a death that is yet to be seen: big processes take a while to be torn down."""
# The one without .local (all there is before Linux 5.2) also counts the kills in groups below this one.
_FILES: Final = {1: ("memory.oom_control",), 2: ("memory.events.local", "memory.events")}
_COUNTER: Final = re.compile(r"^oom_kill ([0-9]+)$", re.MULTILINE)


class OomKills:
    """The kills of this process' control group that no death has been put down to yet.

    Args:
        root: the folder that stands for `/`; tests give one with a tree of their own.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._files = [file for one in hierarchies("memory", root) for file in _file(one)]
        self._counted = self._count()
        self._unclaimed = 0
        self._grown = 0.0

    def look(self, now: float) -> None:
        """Read the counter; to be called every second or so, so that it is known how old a kill is.

        Args:
            now: seconds of the monotonic clock.
        """
        counted = self._count()
        if counted > self._counted:
            self._unclaimed += counted - self._counted
            self._grown = now
        elif now - self._grown > FRESH:
            self._unclaimed = 0
        self._counted = counted

    def claim(self, now: float) -> bool:
        """Tell whether a death by SIGKILL that has just been seen was the kernel's doing.

        Args:
            now: seconds of the monotonic clock.
        """
        self.look(now)
        if not self._unclaimed:
            return False
        self._unclaimed -= 1
        return True

    def _count(self) -> int:
        return sum(int(found[1]) for file in self._files if (found := _COUNTER.search(text_of(file))))


def _file(hierarchy: Hierarchy) -> list[Path]:
    """The file of the group with the counter, if there is one."""
    paths = (hierarchy.own / name for name in _FILES[hierarchy.version])
    return [path for path in paths if _COUNTER.search(text_of(path))][:1]
