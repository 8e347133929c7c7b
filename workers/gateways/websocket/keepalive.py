"""Keep-alive of a WebSocket: a Ping now and then, and the end of a client that does not answer (RFC 6455 section 5.5).

Proxies do not close what is not idle, and a client that has vanished without a word is noticed.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preforkd.workers.gateways.websocket.closing import ClosingHandshake
    from preforkd.workers.gateways.websocket.outbound import Outbound


class KeepAlive:
    """The Pings of one WebSocket while it is open.

    Args:
        outbound: its way out.
        closing: ends it.
        interval: seconds from a Pong to the next Ping; 0: there are no Pings.
        timeout: seconds that the client gets for a Pong; 0: for ever.
    """

    __slots__ = ("_awaited", "_closing", "_interval", "_loop", "_outbound", "_timeout", "_timer")

    def __init__(self, outbound: Outbound, closing: ClosingHandshake, interval: float, timeout: float) -> None:
        self._outbound = outbound
        self._closing = closing
        self._interval = interval
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._awaited: bytes | None = None

    def start(self) -> None:
        """The WebSocket is open."""
        if self._interval:
            self._timer = self._loop.call_later(self._interval, self._send_ping)

    def stop(self) -> None:
        """It is not open any more."""
        self._awaited = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take_pong(self, data: bytes) -> None:
        """Take a Pong; one that answers no Ping of ours, or an earlier one, means nothing (RFC 6455 section 5.5.3)."""
        if data == self._awaited:
            self.stop()
            self.start()

    def _send_ping(self) -> None:
        self._awaited = os.urandom(4)
        self._outbound.server.send_ping(self._awaited)
        self._outbound.flush()
        if self._timeout:
            self._wait_for_pong()
        else:
            self.start()

    def _wait_for_pong(self) -> None:
        self._timer = self._loop.call_later(self._timeout, self._miss_pong)

    def _miss_pong(self) -> None:
        if self._outbound.tunnel.reading_paused:
            self._wait_for_pong()  # it is we who do not read: the Pong may have come
        else:
            self._closing.fail(1011, "keepalive ping timeout", linger=False)
