"""The file with the master's process id (--pid), for tools that want to signal the daemon."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from preforkd.workers.records import dataclass

_SLACK: Final = 2.0  # seconds by which file times and process times may disagree


class PidFileError(Exception):
    """The file cannot be used; the message says why and what would be right, in one line."""


@dataclass(frozen=True, slots=True)
class Process:
    """What the system says of a process that has an id.

    Attributes:
        title: as `ps` shows it, empty when it cannot be seen.
        started: seconds of the epoch.
    """

    title: str
    started: float


def look_up(pid: int) -> Process | None:
    """Return the process with that id, None when there is none or it is a zombie."""
    import psutil  # here: only a file left behind asks for it, and it takes 25 ms to import

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        started = process.create_time()
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return Process("", 0.0)
    try:
        return Process(" ".join(process.cmdline()) or process.name(), started)
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return Process("", started)


class PidFile:
    """The file, from the check before the first fork to its removal.

    Args:
        path: absolute.
        pid: of this process.
        look_up: gives the process with an id; tests give their own.
    """

    def __init__(self, path: str, pid: int, look_up: Callable[[int], Process | None] = look_up) -> None:
        self._path = Path(path)
        self._pid = pid
        self._look_up = look_up
        self._ours: tuple[int, int] | None = None

    def check(self) -> None:
        """Find out whether the file can be written later.

        Raises:
            PidFileError: it names a process that lives, or is not such a file, or its folder cannot be written to.
        """
        folder = self._path.parent
        if not folder.is_dir():
            raise PidFileError(f"the folder {folder} does not exist")
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PidFileError(f"the folder {folder} is not writable for this process")
        pid = self._written()
        # Our own id: this program before an upgrade in place, or process 1 of an earlier container.
        if pid is not None and pid != self._pid and (owner := self._owner(pid)) is not None:
            title = f" ({owner.title})" if owner.title else ""
            raise PidFileError(
                f"{self._path} is that of process {pid}{title}, which runs: stop it, or name another file"
            )

    def _written(self) -> int | None:
        """The id in the file, None when there is no file or nothing that could be an id."""
        try:
            if not stat.S_ISREG(self._path.stat().st_mode):
                raise PidFileError(f"{self._path} exists and is not a regular file")
            text = self._path.read_bytes()[:64].strip()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise PidFileError(f"{self._path} cannot be read: {exc.strerror}") from exc
        return int(text) if text.isdigit() and 0 < int(text) < 2**31 else None

    def _owner(self, pid: int) -> Process | None:
        """The process that wrote the file, as far as can be told: the id may be another's by now."""
        process = self._look_up(pid)
        if process is None:
            return None
        # One that is younger than the file has not written it. A clock that was set right after the start makes an
        # owner look so, too: hence the title.
        younger = process.started > self._path.stat().st_mtime + _SLACK
        return None if younger and ": master [" not in process.title else process

    def write(self) -> None:
        """Write the file beside its place and rename it: a reader never sees half of it.

        Raises:
            OSError: the folder has gone, or is full.
        """
        beside = self._path.with_name(f".{os.urandom(4).hex()}~")
        try:
            # O_EXCL: in a folder that others may write to, nobody can put a link to another file there first.
            with beside.open("xb") as file:
                # Other programs have to read it, whatever the umask is for the app's files.
                os.fchmod(file.fileno(), 0o644)
                file.write(f"{self._pid}\n".encode())
            ours = _inode(beside)
            beside.rename(self._path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        self._ours = ours

    def remove(self) -> None:
        """Remove the file if it is still ours: another daemon may have taken the place."""
        try:
            if self._ours is not None and _inode(self._path) == self._ours and self._written() == self._pid:
                self._path.unlink(missing_ok=True)
        except (OSError, PidFileError):
            return  # then the next start finds it stale
        self._ours = None


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
