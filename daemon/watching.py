"""`--reload`: a process that watches files, and tells its master through a pipe that one was saved.

The watching takes threads (watchfiles), which the master must not have. The first half of this file is the master's,
the second the watcher's own.
"""

from __future__ import annotations

import fnmatch
import os
import select
import selectors
import signal
import socket
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

import setproctitle

from preforkd.daemon.options import Options
from preforkd.daemon.spawn import spawn
from preforkd.workers import log
from preforkd.workers.records import dataclass

STEP: Final = 30
"""Milliseconds without a further change after which those that there were are told: an editor makes several."""
LONGEST_STEP: Final = 300
"""Milliseconds after which they are told in any case."""
LOOK_EVERY: Final = 500
"""Milliseconds between two looks whether the master is still there."""
LONGEST_NAME: Final = 4096
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_FOLDERS: Final = frozenset({"__pycache__", "node_modules"})


@dataclass(frozen=True, slots=True)
class Watch:
    """What is watched.

    Attributes:
        folders: with all that is below them.
        includes, excludes: patterns of a file's name, or of its path below the folder.
        files: that count whatever they are called.
        title: of the process.
        level, form: of its log.
    """

    folders: tuple[str, ...]
    includes: tuple[str, ...]
    excludes: tuple[str, ...]
    files: frozenset[str]
    title: str = "preforkd: watcher"
    level: str = "info"
    form: str = "text"

    @classmethod
    def of(cls, options: Options, file: str | None) -> Watch | None:
        """Return what these options want watched; None: nothing.

        Args:
            options: of the daemon.
            file: its configuration.
        """
        if not options.reload:
            return None
        files = frozenset({file}) if file is not None else frozenset()
        return cls(
            options.reload_dir,
            options.reload_include,
            options.reload_exclude,
            files,
            f"{options.proc_name}: watcher",
            options.log_level,
            options.log_format,
        )

    def wants(self, path: str) -> bool:
        """Whether a change of this file counts; caches, and what is in hidden folders, never does."""
        if path in self.files:
            return True
        below = next((str(Path(path).relative_to(one)) for one in self.folders if Path(path).is_relative_to(one)), None)
        if below is None:
            return False
        *folders, name = below.split("/")
        if any(folder in _FOLDERS or folder.startswith(".") for folder in folders):
            return False
        return _matches(self.includes, name, below) and not _matches(self.excludes, name, below)


def _matches(patterns: Iterable[str], name: str, below: str) -> bool:
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns for text in (name, below))


class Watcher:
    """The watching process, seen from its master; there is none while nothing is to be watched.

    Args:
        selector: where the pipe is waited for, with this as data.
        private: returns the descriptors that the process must not have.
    """

    def __init__(self, selector: selectors.BaseSelector, private: Callable[[], Iterable[int]]) -> None:
        self._selector = selector
        self._private = private
        self._watch: Watch | None = None
        self._pid: int | None = None
        self._pipe: socket.socket | None = None

    def follow(self, watch: Watch | None) -> None:
        """Watch this from now on."""
        if watch == self._watch:
            return
        self.end()
        self._watch = watch
        if watch is None:
            return
        try:
            child = spawn(partial(_live, watch), self._private(), orphaned=signal.SIGKILL)
        except OSError as exc:
            log.LOGGER.error("--reload: nothing is watched, for the process could not be forked: %s", exc.strerror)
            return
        self._pid, self._pipe = child.pid, child.channel
        self._selector.register(child.channel, selectors.EVENT_READ, self)

    def descriptors(self) -> list[int]:
        """Return those that none but the master may have."""
        return [] if self._pipe is None else [self._pipe.fileno()]

    def changed(self) -> str | None:
        """Return what the last file is called that was saved, if one was."""
        if self._pipe is None:
            return None
        try:
            data = self._pipe.recv(LONGEST_NAME)
        except (BlockingIOError, InterruptedError):
            return None
        except ConnectionError:
            data = b""
        if not data:
            self._hang_up()
            return None
        return os.fsdecode(data.rstrip(b"\n").rpartition(b"\n")[2])

    def reaped(self, pid: int) -> bool:
        """Take note of a process that has ended; tells whether it was the watcher, which nobody has told to."""
        if pid != self._pid:
            return False
        self._pid = None
        self._hang_up()
        log.LOGGER.warning("--reload: the watching process has ended: saved files are not noticed any more")
        return True

    def end(self) -> None:
        """Watch nothing any more."""
        pid, self._pid, self._watch = self._pid, None, None
        self._hang_up()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _hang_up(self) -> None:
        if self._pipe is not None:
            self._selector.unregister(self._pipe)
            self._pipe.close()
            self._pipe = None


# The watcher's own half


def _live(watch: Watch, pipe: socket.socket) -> int:
    from watchfiles import watch as changes_of  # here: it is the watcher's alone

    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_IGN)  # it goes with its master
    log.configure("watcher", level=watch.level, form=watch.form)
    setproctitle.setproctitle(watch.title)
    pipe.setblocking(True)
    found = changes_of(
        *watch.folders,
        *(str(Path(file).parent) for file in watch.files),
        watch_filter=lambda _, path: watch.wants(path),
        debounce=LONGEST_STEP,
        step=STEP,
        rust_timeout=LOOK_EVERY,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )
    is_watching = False
    for changes in found:
        if not is_watching:  # the first time says that what is saved from now on is seen
            is_watching = True
            log.LOGGER.info("--reload: watching %s", ", ".join(watch.folders))
        if not _tell(pipe, [path for _, path in changes]):
            break
    return 0


def _tell(pipe: socket.socket, paths: list[str]) -> bool:
    """Tell the master of the saved files; returns whether it is still there."""
    poll = select.poll()
    poll.register(pipe, 0)
    if poll.poll(0):
        return False
    if paths:
        pipe.sendall(os.fsencode(min(paths))[: LONGEST_NAME - 1] + b"\n")
    return True
