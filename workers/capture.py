"""`--capture-output`: what the app prints becomes records of the log, a line each.

`sys.stdout` and `sys.stderr` are replaced, in the workers alone, before the app is imported. What is written to the
descriptors below them, by native code and by programs that the app starts, is not seen here.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
from typing import Final

from preforkd.workers import log
from preforkd.workers.output import Output

LONGEST: Final = 64 << 10
"""Bytes after which a line that does not end is written all the same."""


class _Thread(threading.local):
    """What a thread has printed of a line that has not ended, and whether it is just being logged."""

    def __init__(self) -> None:
        self.begun = b""
        self.logging = False


class Lines(io.RawIOBase):
    """A binary file whose lines are records. Each thread writes lines of its own.

    Args:
        name: `stdout` or `stderr`.
        descriptor: that stands below the real one.
        beyond: gets what a handler of the log itself prints, as an error of its own: it must not be logged again.
    """

    def __init__(self, name: str, descriptor: int, beyond: Output) -> None:
        super().__init__()
        self._name = name
        self._descriptor = descriptor
        self._beyond = beyond
        self._thread = _Thread()

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of the real one, which is what it was: not captured."""
        return self._descriptor

    def write(self, data: object, /) -> int:
        """Log the lines that end in `data`."""
        text = bytes(data)  # type: ignore[call-overload]  # a buffer
        thread = self._thread
        if thread.logging:
            self._beyond.write(text)
            return len(text)
        *lines, thread.begun = (thread.begun + text).split(b"\n")
        if len(thread.begun) > LONGEST:
            lines.append(thread.begun)
            thread.begun = b""
        thread.logging = True
        try:
            for line in lines:
                self._log(line)
        finally:
            thread.logging = False
        return len(text)

    def _log(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace").rstrip("\r")
        extra = {"event": "output", "fields": {"stream": self._name}}
        record = log.LOGGER.makeRecord(log.LOGGER.name, logging.INFO, "", 0, "%s", (text,), None, None, extra)
        log.LOGGER.handle(record)  # whatever --log-level says: it was asked for

    def finish(self) -> None:
        """Log what this thread has printed without the end of its line."""
        if self._thread.begun:
            self.write(b"\n")


_installed: Final[list[Lines]] = []


def install() -> None:
    """Capture what this process prints from now on."""
    _installed.clear()
    for name, descriptor in (("stdout", log.STDOUT), ("stderr", log.STDERR)):
        lines = Lines(name, descriptor, log.standard_error())
        _installed.append(lines)
        text = io.TextIOWrapper(lines, encoding="utf-8", errors="backslashreplace", write_through=True)  # type: ignore[type-var]
        setattr(sys, name, text)


def finish() -> None:
    """Log what has been printed without the end of its line, at the end of the process."""
    for lines in _installed:
        lines.finish()
