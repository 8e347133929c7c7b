"""Why an application could not be loaded, in one line: the file, the line and the cause."""

from __future__ import annotations

import functools
import importlib
import os
import site
import traceback
from pathlib import Path
from types import TracebackType

from preforkd.workers import offspring

_OURS = f"{Path(__file__).parent}/"
_LONGEST = 500
"""Characters of an exception's text that one line of a log should hold."""


class AppError(Exception):
    """The application cannot be served.

    Attributes:
        details: the traceback of the application's own code, empty when none of it has run.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


def blame(doing: str, exc: BaseException) -> AppError:
    """Say what the application's code did wrong.

    Args:
        doing: what was tried, as in `cannot import "hello.py"`.
        exc: what its code raised.
    """
    offspring.end_if_strayed(exc)
    frames = _frames(exc.__traceback__)
    return AppError(f"{doing}: {_place(exc, frames)}{cause(exc)}{_origin(exc, frames)}", _details(exc, frames))


def short(path: str | Path) -> str:
    """A path as a person in the working directory would write it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or the working directory is gone
        return str(path)


def ran(exc: BaseException) -> bool:
    """Whether any code but the import system's and ours was running when it was raised."""
    return bool(_frames(exc.__traceback__))


def _frames(trace: TracebackType | None) -> traceback.StackSummary:
    return traceback.StackSummary.from_list(
        frame
        for frame in traceback.extract_tb(trace)
        if not frame.filename.startswith(("<frozen ", _OURS)) and frame.filename != importlib.__file__
    )


def _place(exc: BaseException, frames: traceback.StackSummary) -> str:
    """File and line in the user's own code: where the syntax is wrong, or the last line of theirs that ran."""
    if isinstance(exc, SyntaxError) and exc.filename and not exc.filename.startswith("<"):  # not of an eval()
        return f"{short(exc.filename)}:{exc.lineno or 1}: "
    own = [frame for frame in frames if not installed(frame.filename)] or frames
    return f"{short(own[-1].filename)}:{own[-1].lineno}: " if own else ""


def _origin(exc: BaseException, frames: traceback.StackSummary) -> str:
    """Where it was raised, when that is in a library and not at the place that is named first."""
    if isinstance(exc, SyntaxError) or not frames or not installed(frames[-1].filename):
        return ""
    if all(installed(frame.filename) for frame in frames):
        return ""
    return f" (raised in {frames[-1].filename}:{frames[-1].lineno})"


def installed(filename: str) -> bool:
    """Whether a file or folder is of the standard library or an installed package, and so not the user's own.

    By the folders that packages are installed in, not by the prefix: Debian's is `/usr`, and an image may have its app
    in `/usr/src/app`.
    """
    return filename.startswith("<") or any(f"{filename}/".startswith(f"{folder}/") for folder in _installation())


@functools.cache
def _installation() -> frozenset[str]:
    # Not sysconfig, which would know it all: it imports, and this is asked in the middle of an import.
    return frozenset([str(Path(os.__file__).parent), *site.getsitepackages(), site.getusersitepackages()])


def cause(exc: BaseException) -> str:
    """What was raised, in one line; of a group with one exception in it, that one."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    if isinstance(exc, SystemExit):
        if isinstance(exc.code, str) and exc.code.strip():
            return _text(exc)  # what Python itself would print at the end of the process
        return f"it calls sys.exit({'' if exc.code is None else repr(exc.code)[:40]})"
    text = _text(exc)
    if isinstance(exc, ImportError) and "attempted relative import" in text:
        text += "; name the app as a module of its package, as in package.module:app"
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _text(exc: BaseException) -> str:
    """The exception's text on one line, whatever its `__str__` does."""
    if isinstance(exc, SyntaxError) and exc.msg:
        return str(exc.msg)
    try:
        words = " ".join(str(exc).split())
    except Exception:  # noqa: BLE001 - the app's own code again; its first error is the one that matters
        return "(its text cannot be had: __str__ raises)"
    return words if len(words) <= _LONGEST else words[: _LONGEST - 3] + "..."


def _details(exc: BaseException, frames: traceback.StackSummary) -> str:
    """The traceback as Python prints it, without the frames of the import system and ours."""
    whole = traceback.TracebackException.from_exception(exc)
    whole.stack = frames
    return "".join(whole.format())
