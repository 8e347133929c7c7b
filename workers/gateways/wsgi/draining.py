"""How a WSGI app learns that its worker leaves."""

from __future__ import annotations

import threading


class DrainingFlag(threading.Event):
    """The value of `environ["preforkd.draining"]`: `flag.is_set()`, `flag.wait(seconds)`.

    It is set when the worker begins to leave, for a stop, a reload or a recycling.

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

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the worker leaves, or so many seconds; whether it leaves."""
        self.is_used = True
        return super().wait(timeout)
