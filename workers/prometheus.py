"""For apps that use prometheus-client in its multiprocess mode: files by row of the scoreboard, not by pid.

By pid every worker that there has ever been leaves files behind, for good, and each scrape reads them all. A row
belongs to one living worker and then to another, which goes on with its counters; what gauges said of a dead one is
removed. The mode is the library's own: it is on when `PROMETHEUS_MULTIPROC_DIR` is set, which the app reads, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
_OF_PROCESS: Final = ("liveall", "livesum", "livemin", "livemax", "livemostrecent", "all", "sum", "min", "max")
"""Gauges that say how a process is; one of the kind `mostrecent` says what was set last, by whomever.

Those that are not `live` go, too: the next worker of the row would take over what the dead one has left in them.
"""

_identity = f"mold{os.getpid()}"


def prepare() -> None:
    """Have the library ask this module how its files are called; to be called before the app is imported.

    Where the mode is off, or the library is not installed, nothing is done.
    """
    if VARIABLE not in os.environ:
        return
    with suppress(ImportError):
        from prometheus_client import values

        values.ValueClass = values.MultiProcessValue(lambda: _identity)  # type: ignore[no-untyped-call]  # the library has no types there


def begin(row: int, dead: Iterable[int]) -> None:
    """Be the worker of a row from now on, and remove what gauges say of workers that are gone.

    Args:
        row: of the scoreboard, this worker's own.
        dead: rows that no living worker has.
    """
    global _identity
    before, _identity = _identity, f"w{row}"
    folder = os.environ.get(VARIABLE)
    if folder is None:
        return
    for one in (row, *dead):
        _remove_gauges(folder, f"w{one}")
    if before.startswith("mold"):  # it has imported the app, and counts nothing
        for path in Path(folder).glob(f"*_{before}.db"):
            path.unlink(missing_ok=True)


def end() -> None:
    """This worker is done: nobody has to be told of it any more."""
    folder = os.environ.get(VARIABLE)
    if folder is not None:
        _remove_gauges(folder, _identity)


def _remove_gauges(folder: str, identity: str) -> None:
    for mode in _OF_PROCESS:
        with suppress(OSError):  # it is not there, or not ours
            Path(folder, f"gauge_{mode}_{identity}.db").unlink()
