"""`--log-config`: a `logging.config.dictConfig` in TOML or JSON, for the app's loggers and for those of its worker.

It is carried out in the workers alone, before the app is imported: what it names may be the app's own code, and may
wait, neither of which the master may do.
"""

from __future__ import annotations

import json
import logging
import logging.config
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from preforkd.workers import log
from preforkd.workers.blame import AppError, blame
from preforkd.workers.log import ServerLogger

SERVER: Final = "preforkd"
ACCESS: Final = "preforkd.access"


def read(path: str) -> dict[str, object]:
    """Read such a file.

    Raises:
        ValueError: it cannot be read, or is none; the message is one line and says why.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as exc:
        raise ValueError(f"{path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ValueError(f"{path} is not UTF-8 (byte {exc.start})") from exc
    found = _parsed(path, text)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no table, as logging.config.dictConfig takes")  # noqa: TRY004 - one error for all
    return {"version": 1, "disable_existing_loggers": False, **found}


def _parsed(path: str, text: str) -> object:
    kind = Path(path).suffix.lower()
    if kind in (".ini", ".conf", ".cfg", ".yaml", ".yml"):
        raise ValueError(
            f"{path}: write it as TOML or JSON, in the form of logging.config.dictConfig; {kind} is not read"
        )
    try:
        return json.loads(text) if kind == ".json" else tomllib.loads(text)
    except ValueError as exc:
        raise ValueError(f"{path} is not {'JSON' if kind == '.json' else 'TOML'}: {exc}") from exc


def apply(path: str, level: str) -> None:
    """Carry it out in this process. Its logger `preforkd` becomes the one of this server, if it names handlers.

    Args:
        path: of the file.
        level: of the server's log, where the file does not say one.

    Raises:
        AppError: that is not possible; the message is one line and says why.
    """
    try:
        config = read(path)
        logging.config.dictConfig(config)
    except ValueError as exc:
        raise AppError(f"--log-config: {_innermost(exc)}") from exc
    except Exception as exc:
        raise blame(f"--log-config: {path} cannot be carried out", exc) from exc
    configured = _configured(SERVER)
    if configured is not None:
        _take_over(log.LOGGER, configured, level, propagates=_propagates(config, SERVER))


def _innermost(exc: BaseException) -> str:
    """`dictConfig` says where ("Unable to configure handler 'x'"), and its cause says why."""
    return (
        f"{exc}: {exc.__cause__}" if exc.__cause__ is not None and not isinstance(exc.__cause__, OSError) else str(exc)
    )


def _configured(name: str) -> logging.Logger | None:
    """Return the logger of that name when it has been given handlers or a level."""
    found = logging.root.manager.loggerDict.get(name)
    return found if isinstance(found, logging.Logger) and (found.handlers or found.level) else None


def _propagates(config: Mapping[str, object], name: str) -> bool:
    """Whether the file itself wants the handlers of the root logger, which the app may configure, to get the lines."""
    loggers = config.get("loggers")
    one = loggers.get(name) if isinstance(loggers, Mapping) else None
    return isinstance(one, Mapping) and one.get("propagate") is True


def _take_over(ours: logging.Logger, theirs: logging.Logger, level: str, *, propagates: bool) -> None:
    if theirs.handlers:
        ours.handlers[:] = theirs.handlers
        ours.propagate = propagates
    ours.setLevel(theirs.level or level.upper())


class LoggerWay:
    """The way of the access log to a logger: each line is a record. What waits in its handlers is waited for.

    Args:
        logger: gets the lines.

    Attributes:
        whole: see `ways.Way`; nothing is torn here.
    """

    whole = 65536

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def write(self, data: bytes) -> int:
        """Log the lines."""
        for line in data.decode("utf-8", "backslashreplace").split("\n")[:-1]:
            self._logger.info("%s", line)
        return len(data)

    def has_room(self, size: int) -> bool:  # noqa: ARG002 -- the ways' common signature
        """There is room for a line of any length."""
        return True

    def fileno(self) -> int:
        """There is no descriptor."""
        return -1

    def close(self) -> None:
        """The handlers are closed by `logging` at the end of the process."""


def access_logger() -> logging.Logger | None:
    """Return the logger that takes the lines of the access log, None when the file names none.

    It is out of reach for what the app configures later, as the server's own is.
    """
    configured = _configured(ACCESS)
    if configured is None or not configured.handlers:
        return None
    logger = ServerLogger(ACCESS)
    _take_over(logger, configured, "info", propagates=False)
    return logger
