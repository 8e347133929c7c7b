"""Who has a TCP port: only asked when binding it has failed, to say so in the message."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

_LISTEN = "0A"  # TCP_LISTEN as /proc/net/tcp writes it
_BUDGET = 0.2  # seconds: the answer is a courtesy, the error must be on the screen within half a second


def occupant(port: int, proc: Path = Path("/proc")) -> str:
    """Name the process that has a port.

    Args:
        port: the TCP port, of any local address.
        proc: where procfs is mounted.

    Returns:
        "pid 123 (nginx)", or "" when it cannot be seen: another user's process, another container, not Linux.
    """
    inodes = sorted(_sockets(port, proc), key=lambda found: found[0] != _LISTEN)
    deadline = time.monotonic() + _BUDGET
    for _state, inode in inodes[:1]:
        for pid in _pids(proc):
            if time.monotonic() > deadline:
                return ""
            if _has(proc / pid / "fd", f"socket:[{inode}]"):
                return f"pid {pid}{_command(proc / pid)}"
    return ""


def _sockets(port: int, proc: Path) -> Iterator[tuple[str, str]]:
    """State and inode of each socket whose local port it is; a socket in TIME_WAIT has no inode and no owner."""
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError), (proc / table).open(encoding="ascii") as lines:
            next(lines, None)
            for line in lines:
                fields = line.split()
                if len(fields) > 9 and fields[1].endswith(f":{port:04X}") and fields[9] != "0":
                    yield fields[3], fields[9]


def _pids(proc: Path) -> list[str]:
    """Every process, the youngest last: a master is older than the workers that share its socket."""
    return sorted((entry.name for entry in proc.iterdir() if entry.name.isdecimal()), key=int)


def _has(folder: Path, link: str) -> bool:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # not ours to look at, or just gone
        for entry in entries:
            with contextlib.suppress(OSError):
                if os.readlink(entry.path) == link:  # noqa: PTH115 - a Path for each of thousands is what takes the time
                    return True
    return False


def _command(process: Path) -> str:
    with contextlib.suppress(OSError):
        return f" ({(process / 'comm').read_text(errors='replace').strip()})"
    return ""
