"""How an ASGI app learns that its worker leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Literal


class DrainingEvent(asyncio.Event):
    """The value of `scope["extensions"]["preforkd.draining"]`: `await event`, `await event.wait()`, `event.is_set()`.

    It is set when the worker begins to leave, for a stop, a reload or a recycling. What the app streams may then end in
    order; at the end of `--graceful-timeout` it is cut.
    """

    def __await__(self) -> Generator[object, None, Literal[True]]:
        return self.wait().__await__()
