"""How a record of the log becomes lines: for people, for machines, for a terminal, for the journal. Pure."""

from __future__ import annotations

import enum
import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Final

_PLAIN: Final = "\x1b[0m"
_COLOURS: Final = {"DEBUG": "\x1b[2m", "INFO": "\x1b[32m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m"}
_LOUDEST: Final = "\x1b[1;31m"
_STATUS_COLOURS: Final = {2: "\x1b[32m", 3: "\x1b[36m", 4: "\x1b[33m", 5: "\x1b[31m"}
_PRIORITIES: Final = ((50, 2), (40, 3), (30, 4), (20, 6), (0, 7))
"""From a level of `logging` on: the priority of syslog (sd-daemon(3))."""


class Style(enum.Enum):
    """What reads standard error."""

    PLAIN = "plain"
    TERMINAL = "terminal"
    JOURNAL = "journal"


def style_of(descriptor: int, environ: Mapping[str, str]) -> Style:
    """Return what reads a descriptor.

    Args:
        descriptor: open.
        environ: `JOURNAL_STREAM` has device and inode of the journal's stream (systemd.exec(5)); a descriptor that has
            been redirected since has others. `NO_COLOR` (https://no-color.org) and `TERM=dumb` want no colours.

    Raises:
        OSError: the descriptor is not open.
    """
    status = os.fstat(descriptor)
    if environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}":
        return Style.JOURNAL
    has_colours = os.isatty(descriptor) and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return Style.TERMINAL if has_colours else Style.PLAIN


def timestamp(seconds: float) -> str:
    """Return a time of the clock in ISO 8601, UTC, to the millisecond."""
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1000):03d}Z"


def priority(level: int) -> int:
    """Return the priority of syslog for a level of `logging`."""
    return next(number for least, number in _PRIORITIES if level >= least)


class TextFormatter(logging.Formatter):
    """`2026-11-23T02:11:00.123Z INFO master[7] text`.

    Args:
        role: who speaks.
        colours: for a terminal.
    """

    def __init__(self, role: str, *, colours: bool = False) -> None:
        super().__init__()
        self.role = role
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; a traceback follows on lines of its own."""
        level = record.levelname
        if self._colours:
            level = f"{_COLOURS.get(level, _LOUDEST)}{level}{_PLAIN}"
        line = f"{timestamp(record.created)} {level} {self.role}[{os.getpid()}] {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, role, pid, message; with an exception, traceback; of an event, its fields.

    Args:
        role: who speaks.
    """

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        entry: dict[str, object] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "role": self.role,
            "pid": os.getpid(),
            "message": record.getMessage(),
        }
        if event := getattr(record, "event", ""):
            entry["event"] = event
            entry.update(getattr(record, "fields", {}))
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


class JournalFormatter(logging.Formatter):
    """What another formatter makes, each line with the priority that the journal takes off again (`<3>`).

    Args:
        inner: makes the lines.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self.inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        prefix = f"<{priority(record.levelno)}>"
        return "\n".join(prefix + line for line in self.inner.format(record).split("\n"))


def formatter(form: str, role: str, style: Style) -> logging.Formatter:
    """Return what makes the lines of a process.

    Args:
        form: `text` or `json`.
        role: who speaks.
        style: what reads them.
    """
    made: logging.Formatter
    made = JsonFormatter(role) if form == "json" else TextFormatter(role, colours=style is Style.TERMINAL)
    return JournalFormatter(made) if style is Style.JOURNAL else made


def coloured(line: str, status: int) -> str:
    """Return a line of the access log in the colour of its status."""
    return f"{_STATUS_COLOURS.get(status // 100, _PLAIN)}{line}{_PLAIN}"
