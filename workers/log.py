"""The log of the daemon: one line, one write, on standard error.

Only the logger `preforkd` is set up; the application's own logging is left as the application wants it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Final

LOGGER: Final = logging.getLogger("preforkd")
STDERR: Final = 2
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
"""The levels by the names that options and the policy have for them."""


class TextFormatter(logging.Formatter):
    """`2026-11-23T02:11:00.123Z INFO master[7] text`."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; a traceback follows on lines of its own."""
        line = f"{timestamp(record.created)} {record.levelname} {self.role}[{os.getpid()}] {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, role, pid, message and, with an exception, traceback."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        entry = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "role": self.role,
            "pid": os.getpid(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class LineHandler(logging.Handler):
    """Writes a record with one system call, so that lines of several processes never mix."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; a log that cannot be written never stops the daemon."""
        try:
            os.write(STDERR, (self.format(record) + "\n").encode("utf-8", "backslashreplace"))
        except OSError:
            pass
        except Exception:  # noqa: BLE001 - a log call with wrong arguments is our bug: logging reports it, once
            self.handleError(record)


def timestamp(seconds: float) -> str:
    """Return a time of the clock in ISO 8601, UTC, to the millisecond."""
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1000):03d}Z"


def configure(role: str, *, level: str = "info", form: str = "text") -> None:
    """Set up the logger `preforkd` of this process.

    Args:
        role: who speaks: `master`, `worker 0`.
        level: `debug`, `info`, `warning`, `error` or `critical`.
        form: `text` or `json`.
    """
    handler = LineHandler()
    handler.setFormatter(JsonFormatter(role) if form == "json" else TextFormatter(role))
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(level.upper())
    LOGGER.propagate = False
    # What the program has buffered belongs before the line that is about to be written.
    if sys.stderr is not None:
        sys.stderr.flush()
