"""How an ASGI app learns that its worker leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Literal, Self


class DrainingEvent(asyncio.Event):
    """The value of `scope["preforkd.draining"]`: `await event`, `await event.wait()`, `event.is_set()`.

    It is set when the worker begins to leave, for a stop, a reload or a recycling. What the app streams may then end in
    order; at the end of `--graceful-timeout` it is cut.

    Attributes:
        is_used: the app has asked for it: it ends its streams itself, and gets the time for their last words.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_used = False

    def is_set(self) -> bool:
        """Whether the worker leaves."""
        self.is_used = True
        return super().is_set()

    def wait(self) -> Any:
        """Wait until the worker leaves."""
        self.is_used = True
        return super().wait()

    def __await__(self) -> Generator[object, None, Literal[True]]:
        return self.wait().__await__()  # type: ignore[no-any-return]  # of asyncio.Event

    def __deepcopy__(self, memo: object) -> Self:
        """A copy of a scope says the same: there is one drain."""
        return self
