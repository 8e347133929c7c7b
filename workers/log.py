"""The log of the daemon: one line, one write, on standard error, and never a wait for those who read it.

The application's own logging is left as the application wants it, and ours is out of its reach: see `ServerLogger`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from preforkd.workers import signal_stack
from preforkd.workers.log_lines import JsonFormatter, Style, formatter, style_of
from preforkd.workers.output import FINISH, Losses, Output
from preforkd.workers.ways import Way, way_to, way_to_nowhere

STDOUT: Final = 1
STDERR: Final = 2
FLUSH_AGAIN: Final = 0.25
"""Seconds after which what could not be written is to be tried again (`flush()`)."""
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
"""The levels by the names that options and the policy have for them."""


class ServerLogger(logging.Logger):
    """A logger that `logging` has no list of, so that no configuration of an app reaches it.

    `dictConfig()` and `fileConfig()` disable every logger that they find, by default; `logging.disable()` silences all
    and `setLogRecordFactory()` makes their records. None of it is meant for the server.

    Args:
        name: in the records.
        parent: whose handlers get the records too, as long as `propagate` is true.
    """

    def __init__(self, name: str, parent: logging.Logger | None = None) -> None:
        super().__init__(name)
        self.parent = parent or logging.getLogger()

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 -- logging's name
        """Whether a record of this level is logged."""
        return level >= self.getEffectiveLevel()

    def makeRecord(  # noqa: N802 -- logging's name
        self,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        extra: Any = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        """Make a record, always of logging's own class."""
        record = logging.LogRecord(name, level, fn, lno, msg, args, exc_info, func, sinfo)
        record.__dict__.update(extra or {})
        return record


LOGGER: Final = ServerLogger("preforkd")


class LineHandler(logging.Handler):
    """Writes a record with one system call, so that lines of several processes never mix.

    Args:
        output: where to.
    """

    def __init__(self, output: Output) -> None:
        super().__init__()
        self.output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or keep it; a log that cannot be written never stops the daemon."""
        try:
            self.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - a log call with wrong arguments is our bug: logging reports it, once
            self.handleError(record)

    def write(self, text: str) -> None:
        """Write lines that are no record's."""
        with self._locked():
            self.output.write(text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Write what was kept. When it flows again, say how many lines were lost."""
        with self._locked():
            if self.output.error is not None and self.output.flush():
                news = self.output.news()
                if news is not None:
                    LOGGER.warning("%s", news)

    def finish(self, seconds: float) -> None:
        """Write what was kept, at the end of the process.

        Args:
            seconds: to wait at most.
        """
        with self._locked():
            self.output.finish(seconds)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()


_ways: dict[int, Way] = {}
_errors: Final[list[Output]] = []  # the one of standard error, once it has been opened
_styles: Final = {STDOUT: Style.PLAIN, STDERR: Style.PLAIN}


def open_standard(environ: Mapping[str, str] | None = None) -> None:
    """Take standard output and standard error as they are now, whatever becomes of these descriptors later.

    Called by `configure()` in the master; its children inherit both, so that an app that closes or redirects them, or
    a change of the user, does not matter.

    Args:
        environ: what it says of the two, see `style_of()`.
    """
    for descriptor in (STDOUT, STDERR):
        try:
            _ways[descriptor] = way_to(descriptor)
            _styles[descriptor] = style_of(descriptor, environ or {})
        except OSError:  # closed, by whoever has started this
            _ways[descriptor] = way_to_nowhere()
    _errors[:] = [Output(_ways[STDERR], Losses("this log", "standard error"))]


def standard_output() -> Way:
    """Return the way to what standard output was when this daemon was started; for the access log."""
    if not _ways:
        open_standard()
    return _ways[STDOUT]


def output_has_colours() -> bool:
    """Whether standard output was a terminal when this daemon was started, and one that wants colours."""
    return _styles[STDOUT] is Style.TERMINAL


def standard_error() -> Output:
    """Return what the log is written to."""
    if not _errors:
        open_standard()
    return _errors[0]


def configure(role: str, *, level: str = "info", form: str = "text") -> None:
    """Set up the log of this process.

    Args:
        role: who speaks: `master`, `worker 0`.
        level: `debug`, `info`, `warning`, `error` or `critical`.
        form: `text` or `json`.
    """
    handler = LineHandler(standard_error())
    handler.setFormatter(formatter(form, role, _styles[STDERR]))
    LOGGER.handlers[:] = [handler]
    _overridden.clear()
    set_level(level)
    LOGGER.propagate = False
    # What the program has buffered belongs before the line that is about to be written.
    with contextlib.suppress(Exception):  # it may be anything that an app has put there
        sys.stderr.flush()


def set_level(level: str) -> None:
    """Have this process log from another level on.

    Args:
        level: `debug`, `info`, `warning`, `error` or `critical`.
    """
    LOGGER.setLevel(level.upper())


_overridden: Final[list[int]] = []  # the configured level, while another one counts


def override_level(level: str) -> int:
    """Have this process log from another level on for the time being, whoever has configured the present one.

    Args:
        level: as for `set_level()`; empty: the configured one again.

    Returns:
        The level that counts now, as `logging` numbers it.
    """
    configured = _overridden.pop() if _overridden else LOGGER.level
    if level:
        _overridden.append(configured)
    LOGGER.setLevel(level.upper() or configured)
    return LOGGER.level


def event(level: str, name: str, text: str, fields: Mapping[str, object]) -> None:
    """Log something that happens in the life of the daemon.

    Args:
        level: by its name.
        name: stable, for machines.
        text: for people.
        fields: what JSON lines, and handlers of `--log-config` (`record.fields`), say of it.
    """
    LOGGER.log(LEVELS[level], "%s", text, extra={"event": name, "fields": fields})


def is_structured() -> bool:
    """Whether text that is no record's, as a stack, would be nothing that the readers of the log can take."""
    return any(
        not isinstance(handler, LineHandler)
        or isinstance(getattr(handler.formatter, "inner", handler.formatter), JsonFormatter)
        for handler in LOGGER.handlers
    )


def show_fatal_signals() -> None:
    """Have the threads' stacks written on a signal that ends this process.

    Not to `sys.stderr`, which may be anything that an app has put there, and not to descriptor 2 itself, which it may
    have closed, or opened on something else.
    """
    faulthandler.enable(standard_error().fileno())
    with contextlib.suppress(OSError):  # without it, some signals fewer at a time are survived
        signal_stack.enlarge()


def flush() -> None:
    """Write what could not be written before; to be called again and again while `waits()`."""
    for handler in LOGGER.handlers:
        handler.flush()


def write(text: str) -> None:
    """Write lines that are no record's, as stacks."""
    for handler in LOGGER.handlers:
        if isinstance(handler, LineHandler):
            handler.write(text)


def waits() -> bool:
    """Whether lines of the log have still to be written."""
    return bool(_errors) and _errors[0].waits


def lost() -> int:
    """Return how many lines of this process's log were lost."""
    return _errors[0].lost if _errors else 0


def finish() -> None:
    """Write what is left, at the end of the process; that takes a second at most."""
    for handler in LOGGER.handlers:
        if isinstance(handler, LineHandler):
            handler.finish(FINISH)
