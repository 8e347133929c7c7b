"""What a worker asks of a gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from preforkd.workers.http.protocol import ServerHttpProtocol


class StartupError(Exception):
    """The app could not start; the worker does not become ready.

    Args:
        text: why, in one line.
        details: the app's own words, often a traceback; may be empty.
    """

    def __init__(self, text: str, details: str = "") -> None:
        super().__init__(text)
        self.details = details


class Gateway(Protocol):
    """What a worker asks of a gateway, in the order in which it asks."""

    @property
    def handler(self) -> Callable[..., ServerHttpProtocol]:
        """Makes a connection whose requests the app answers; takes the arguments of `ServerHttpProtocol`."""

    async def startup(self) -> None:
        """Start the app; called before anything is accepted.

        Raises:
            StartupError: it cannot be served.
        """

    def drain(self, deadline: float) -> None:
        """The worker leaves, or makes room for a successor that is on trial: tell the app. May be called again.

        Args:
            deadline: when the last connection is cut, in seconds of the loop's clock.
        """

    def resume(self) -> None:
        """The successor was not good: the worker serves on."""

    async def finish(self, deadline: float) -> None:
        """No connection is left: wait for what the app still does, and cancel it at the deadline.

        Args:
            deadline: in seconds of the loop's clock.
        """

    async def shutdown(self, seconds: float) -> None:
        """Have the app shut down.

        Args:
            seconds: that it gets.
        """
