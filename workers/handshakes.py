"""The TLS handshakes of a worker: whose turn it is to cost something, which one gives way, and which is too slow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import takewhile
from typing import TYPE_CHECKING, Final, cast

from preforkd.workers.tls_connection import TlsConnection

if TYPE_CHECKING:
    import ssl

    from preforkd.workers.http.protocol import ServerHttpProtocol

HANDSHAKES: Final = 1024
"""TLS handshakes that have begun to cost something, 45 kB each: at most so many, and the oldest gives way to the next.
A worker does some 2,000 a second, so each has half a second at least, which is more than a round trip."""
TURNS: Final = 64
"""TLS handshakes that wait for their turn to begin, from which on a worker leaves the next connections to others, or to
the kernel."""
TICK: Final = 0.001
"""Seconds that a timer of the loop may be early."""


class Handshakes:
    """The connections whose protocol has not got them yet.

    Args:
        loop: the running loop.
        timeout: seconds for a handshake; 0: for ever.
        begun: is called with each that begins.
        failed: is called with the protocol of each that has come to no good end.
        complains: tells whether it is time again for a line in the log about too many of something.
        logger: where trouble is reported.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeout: float,
        *,
        begun: Callable[[asyncio.BaseProtocol], object],
        failed: Callable[[ServerHttpProtocol], object],
        complains: Callable[[], bool],
        logger: logging.Logger,
    ) -> None:
        self._loop = loop
        self._timeout = timeout
        self._tell_begun, self._tell_failed, self._complains = begun, failed, complains
        self._logger = logger
        self._deadlines: dict[TlsConnection, float] = {}
        """Of all, the oldest first: seconds of the loop's clock."""
        self._timer: asyncio.TimerHandle | None = None
        """For the oldest, once there has been one: a timer each would cost every handshake 3 us."""
        self._costly: dict[TlsConnection, None] = {}
        """Those that have begun to cost something, the oldest first."""
        self._turns: dict[TlsConnection, None] = {}
        """Those that wait for their turn to do so."""
        self._turn_is_due = False
        self._all_over: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._deadlines)

    def secure(self, context: ssl.SSLContext, http: ServerHttpProtocol) -> TlsConnection:
        """Put TLS between a connection and its protocol."""
        return TlsConnection(context, http, self._loop, self)

    # The calls of a connection

    def begun(self, tls: TlsConnection) -> None:
        """A handshake begins: from here on the connection is counted among those."""
        self._tell_begun(tls)
        self._deadlines[tls] = self._loop.time() + self._timeout
        if self._timer is None and self._timeout:
            self._timer = self._loop.call_later(self._timeout, self._end_slow)

    def costs(self, tls: TlsConnection) -> None:
        """A handshake is about to take memory and time: the oldest of too many gives way, and one is begun each turn.

        A key exchange and a signature take half a millisecond. With all of a bomb's in one turn of the loop requests on
        other connections would wait for them.
        """
        self._turns[tls] = None
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._begin_next)

    def over(self, tls: TlsConnection, exc: Exception | None) -> None:
        """A handshake is over; when it was good the protocol gets the connection next."""
        self._deadlines.pop(tls, None)
        self._costly.pop(tls, None)
        if exc is not None:
            self._turns.pop(tls, None)
            http = cast("ServerHttpProtocol", tls.get_protocol())
            if isinstance(exc, OSError):  # as errors of TLS are
                self._logger.debug("a TLS handshake with %s has failed: %s", http.peer_address, exc)
            else:
                self._logger.error("the protocol of a connection could not be made", exc_info=exc)
            self._tell_failed(http)
        if self._all_over is not None and not self._deadlines:
            waiter, self._all_over = self._all_over, None
            if not waiter.done():
                waiter.set_result(None)

    def _begin_next(self) -> None:
        self._turn_is_due = False
        turns = self._turns
        if not turns:
            return  # given up meanwhile
        tls = next(iter(turns))
        del turns[tls]
        self._costly[tls] = None
        tls.begin()
        if len(self._costly) > HANDSHAKES:
            next(iter(self._costly)).abort()
            if self._complains():
                text = "%d TLS handshakes have begun and are not done: giving up the oldest for each new one"
                self._logger.warning(text, HANDSHAKES)
        if turns:
            self._turn_is_due = True
            self._loop.call_soon(self._begin_next)

    def _end_slow(self) -> None:
        """End those whose time is over, and wait for the next one's."""
        now = self._loop.time() + TICK
        for tls, _ in list(takewhile(lambda item: item[1] <= now, self._deadlines.items())):
            tls.give_up(TimeoutError("the handshake has taken too long"))
        oldest = next(iter(self._deadlines.values()), None)
        self._timer = None if oldest is None else self._loop.call_later(max(oldest - now, TICK), self._end_slow)

    # What the worker asks for

    def is_busy(self) -> bool:
        """Whether so many wait for their turn that others had better wait in the kernel."""
        return len(self._turns) > TURNS

    def give_up(self, *, only_silent: bool = False) -> None:
        """End all of them, or those whose client has not said anything."""
        for tls in list(self._deadlines):
            if not (only_silent and tls.heard):
                tls.abort()

    async def wait_over(self) -> None:
        """Return when there is none."""
        if self._deadlines:
            self._all_over = self._loop.create_future()
            await self._all_over
