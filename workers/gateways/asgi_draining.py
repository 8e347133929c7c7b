"""How an ASGI app learns that its worker leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from preforkd.workers.gateways.asgi import AsgiGateway


class DrainingEvent(asyncio.Event):
    """The value of `scope["extensions"]["preforkd.draining"]`: `await event`, `await event.wait()`, `event.is_set()`.

    It is set when the worker begins to leave, for a stop, a reload or a recycling. What the app streams may then end in
    order; at the end of `--graceful-timeout` it is cut.
    """

    def __await__(self) -> Generator[object, None, Literal[True]]:
        return self.wait().__await__()


def disconnect_streams(gateway: AsgiGateway, delay: float) -> None:
    """Have the apps that stream receive `http.disconnect`; what they still send goes out.

    Args:
        gateway: theirs.
        delay: seconds until then.
    """
    loop = asyncio.get_running_loop()

    def tell() -> None:
        if gateway.drained_by is None:
            return  # the worker serves on after all
        for exchange in gateway.exchanges():
            if exchange.response is not None:
                exchange.disconnect()

    if delay > 0:
        loop.call_later(delay, tell)
    else:
        tell()
