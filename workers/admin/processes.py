"""How much CPU and memory the workers use, as the system says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process; None: not known.

    Attributes:
        cpu: CPUs in use since the last look: 1.0 is one of them all the time.
        cpu_seconds: since its start, in user and system mode.
        memory: bytes of it that are in memory, shared ones included.
    """

    cpu: float | None = None
    cpu_seconds: float | None = None
    memory: int | None = None


class Processes:
    """Looks at processes again and again."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}
        self._before: dict[int, tuple[float, float]] = {}

    def look(self, pids: Iterable[int], now: float) -> Mapping[int, Usage]:
        """Return what each of these processes uses; those that cannot be seen are left out.

        Args:
            pids: the processes.
            now: seconds of the monotonic clock.
        """
        found, before = {}, self._before
        self._before, known, self._known = {}, self._known, {}
        for pid in pids:
            try:
                process = self._known[pid] = known.get(pid) or psutil.Process(pid)
                times, memory = process.cpu_times(), process.memory_info()
            except psutil.Error:  # it has ended, or the system shows nobody but root
                continue
            seconds = times.user + times.system
            self._before[pid] = (now, seconds)
            began, used = before.get(pid, (now, seconds))
            cpu = round((seconds - used) / (now - began), 3) if now > began else None
            found[pid] = Usage(cpu, round(seconds, 2), memory.rss)
        return found
