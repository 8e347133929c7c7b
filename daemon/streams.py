"""Standard input, output and error: descriptors 0 to 2 mean these, whatever the daemon was started with."""

import os
import sys
from typing import TextIO, cast

NUMBER = 3


def open_missing() -> None:
    """Open those that are closed on /dev/null; to be called before anything else is opened.

    Some supervisors start their programs without them. The next socket would then get such a number, and be written to
    by whoever means standard error: the log, the interpreter, and every program that the app starts.
    """
    for number in range(NUMBER):
        if _is_closed(number):
            # The lowest number that is free, which is this one; also for the programs that are started from here.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # The interpreter has none for a descriptor that was closed when it began: writing to one would be an error.
    sys.stdin = sys.stdin or sys.__stdin__ or _stream(0, "r")
    sys.stdout = sys.stdout or sys.__stdout__ or _stream(1, "w")
    sys.stderr = sys.stderr or sys.__stderr__ or _stream(2, "w")


def _is_closed(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False


def _stream(number: int, mode: str) -> TextIO:
    """As the interpreter makes them: line by line, and nothing that can be written is an error."""
    return cast(TextIO, open(number, mode, buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False))
