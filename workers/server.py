"""What a worker serves with: its listeners, the connections that it has accepted, and how both are left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from preforkd.workers.accept import Acceptor

if TYPE_CHECKING:
    from preforkd.workers.http.connections import Connections


class Server:
    """Accepts on inherited listening sockets and drains what it has accepted.

    Args:
        loop: the running event loop.
        listeners: bound sockets that do not block; each process owns its copy of the descriptor.
        protocol_factory: makes the protocol of a connection.
        connections: the live connections of this loop.
        least: tells how many connections the least loaded other worker holds, or None when there is no other.
        changed: is told the number of connections after each change.
        limit: connections at which nothing more is accepted.
        logger: where trouble is reported.
        ssl_context: with one, connections are TLS.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: Sequence[socket.socket],
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        connections: Connections,
        *,
        least: Callable[[], int | None],
        changed: Callable[[int], None],
        limit: int,
        logger: logging.Logger,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._loop = loop
        self._listeners = list(listeners)
        self._factory = protocol_factory
        self._connections = connections
        self._changed = changed
        self._logger = logger
        self._ssl = ssl_context
        self._opening: set[asyncio.Task[None]] = set()
        self._acceptor = Acceptor(
            loop, listeners, take=self._take, held=self.held, least=least, limit=limit, logger=logger
        )
        connections.changed = self._connections_changed

    def held(self) -> int:
        """Return how many connections this worker has accepted and not closed."""
        return len(self._connections) + len(self._opening)

    def listen(self, backlog: int) -> None:
        """Have the kernel queue connections; where another worker listens already that only sets the backlog.

        Raises:
            OSError: the address was taken between bind and listen.
        """
        for listener in self._listeners:
            if listener.family != socket.AF_UNIX:
                # The master binds without it, so that the address is its alone while the app boots. From here on it is
                # inherited by the connections, which then do not keep a next daemon from the port in TIME_WAIT.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.listen(backlog)

    def accept(self) -> None:
        """Begin to accept, or begin again."""
        self._acceptor.accept()

    def stop_accepting(self) -> None:
        """Leave the listeners alone; `accept` begins again."""
        self._acceptor.stop()

    def close_listeners(self, *, take_queued: bool) -> None:
        """Stop accepting for good.

        Args:
            take_queued: accept first what the kernel has queued: no other process will.
        """
        self._acceptor.close(take_queued=take_queued)

    async def drained(self, idle_grace: float, deadline: float) -> None:
        """Wait until every connection is closed; nothing is accepted any more.

        Idle connections stay open for `idle_grace` seconds, so that a request that is on its way is answered; the rest
        have until `deadline`, seconds of the loop's clock.
        """
        while self._opening:
            await asyncio.wait(self._opening)
        now = self._loop.time()
        await self._closed_by(min(now + idle_grace, deadline))
        self._connections.closing(max(deadline - self._loop.time(), 0.0))
        await self._closed_by(deadline)

    async def _closed_by(self, deadline: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._connections.wait_closed()

    def _take(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opened)
        self._changed(self.held())

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, connection, ssl=self._ssl)
        except (OSError, ssl.SSLError) as exc:
            # The client has gone, or does not speak TLS: its business, and no reason for a traceback.
            self._logger.debug("a connection was lost before it was open: %s", exc)
            connection.close()

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        self._connections_changed()
        if not task.cancelled() and task.exception() is not None:
            self._logger.error("the protocol of a connection could not be made", exc_info=task.exception())

    def _connections_changed(self) -> None:
        self._changed(self.held())
        self._acceptor.connection_ended()
