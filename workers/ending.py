"""The end of a worker's process: what a Python program does at its end, for no longer than `--shutdown-timeout` allows.

The interpreter would wait for threads, and the exit functions of the app for its processes, as multiprocessing's does:
for ever, when one of them does not end. Whoever is waited for is named, and then left behind.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from typing import Final, NoReturn

from preforkd.workers import log

NOTICE: Final = 1.0
"""Seconds after which it is said who is waited for, or half of what there is."""
LAST_WORDS: Final = 0.25
"""Seconds that there are in any case; less than what the master gives a worker behind its last deadline."""


def limit(seconds: float) -> None:
    """Have this process end within this time, whatever is waited for; nobody's request is left."""
    # A thread, for what is waited for blocks the main one.
    threading.Thread(target=_watch, args=(max(seconds, LAST_WORDS),), name="ending", daemon=True).start()


def run_exit_functions() -> None:
    """Wait for threads and run what is registered for the end, as the interpreter does; os._exit() would skip both."""
    threading._shutdown()  # type: ignore[attr-defined]  # ends process pools, too
    atexit._run_exitfuncs()


def _watch(seconds: float) -> NoReturn:
    notice = min(NOTICE, seconds / 2)
    time.sleep(notice)
    log.LOGGER.warning(
        "the end of this worker waits for %s: %.1f s more at most (--shutdown-timeout)", waited_for(), seconds - notice
    )
    time.sleep(seconds - notice)
    try:
        log.LOGGER.warning("this worker ends without waiting longer for %s", waited_for())
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:
        os._exit(0)


def waited_for() -> str:
    """Say which processes and threads of the app have not ended, in words for the log."""
    multiprocessing = sys.modules.get("multiprocessing")  # which takes long to import
    children = [] if multiprocessing is None else multiprocessing.active_children()
    who = [f"process {one.pid} ({one.name})" for one in children]
    who += [
        f"thread {one.name}"
        for one in threading.enumerate()
        if not one.daemon and one is not threading.main_thread() and one is not threading.current_thread()
    ]
    return ", ".join(who) or "exit functions of the app"
