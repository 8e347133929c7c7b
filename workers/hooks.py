"""Functions of the user's own at the turns of a worker's life: `boot`, `ready`, `drain`, `exit`.

They run in the worker, never in the master. `boot` runs after the fork and before the app is imported; the worker does
not boot if it fails. The others are told of what happens anyway: what they raise is logged.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from preforkd.workers import log, offspring
from preforkd.workers.blame import AppError, blame
from preforkd.workers.interface import is_coroutine_function
from preforkd.workers.loader import load_object

NAMES: Final = ("boot", "ready", "drain", "exit")
Hook = Callable[[int, int, str], object]
"""Called with slot, generation and reason."""


def identify(slot: int, generation: int) -> None:
    """Have the environment say which worker this process is; what it starts inherits that."""
    os.environ["PREFORKD_SLOT"] = str(slot)
    os.environ["PREFORKD_GENERATION"] = str(generation)


class Hooks:
    """The hooks of one worker.

    Args:
        slot: of the worker.
        generation: of the worker.
    """

    def __init__(self, slot: int, generation: int) -> None:
        self._slot = slot
        self._generation = generation
        self._name = ""
        self._found: dict[str, Hook] = {}

    def boot(self, name: str, app_dir: str, reason: str) -> None:
        """Import the hooks and run the first.

        Args:
            name: `module:object`, `path/file.py:object`, or without an object; empty: there are none.
            app_dir: the folder that modules are imported from.
            reason: why the worker was forked.

        Raises:
            AppError: they cannot be imported, are none, or `boot` has failed.
        """
        if not name:
            return
        self._name = name
        try:
            self._found = _hooks_of(load_object(name, app_dir), name)
        except AppError as exc:
            raise AppError(f"--hooks: {exc}", exc.details) from exc
        hook = self._found.get("boot")
        if hook is None:
            return
        try:
            hook(self._slot, self._generation, reason)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            raise blame(f"--hooks: boot() of {name} failed", exc) from exc
        offspring.end_if_strayed()

    def run(self, which: str, reason: str) -> None:
        """Run `ready`, `drain` or `exit`, if there is one."""
        hook = self._found.get(which)
        if hook is None:
            return
        try:
            hook(self._slot, self._generation, reason)
        except BaseException as exc:  # noqa: BLE001 - sys.exit() is no reason to end a worker, either
            offspring.end_if_strayed(exc)
            log.LOGGER.error("--hooks: %s() of %s failed: the worker goes on", which, self._name, exc_info=exc)
        offspring.end_if_strayed()


def _hooks_of(found: object, name: str) -> dict[str, Hook]:
    if isinstance(found, type):
        try:
            found = found()
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            raise blame(f"{name} cannot be made", exc) from exc
    hooks = {one: hook for one in NAMES if (hook := getattr(found, one, None)) is not None}
    if not hooks:
        raise AppError(f"{name} has none of {', '.join(NAMES)}: functions of slot, generation and reason")
    for one, hook in hooks.items():
        if not callable(hook) or is_coroutine_function(hook):
            kind = "a coroutine function" if callable(hook) else f"a {type(hook).__name__}"
            raise AppError(f"{one} of {name} is {kind}, not a plain function of slot, generation and reason")
    return hooks
