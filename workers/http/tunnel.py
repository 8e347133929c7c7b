"""The way past HTTP/1.1: the bytes of a connection that a handler has taken over, or is about to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from preforkd.workers.http.states import ConnectionState

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable

    from preforkd.workers.http.connections import Connections
    from preforkd.workers.http.writer import ResponseWriter


class Tunnelled(Protocol):
    """A connection as it matters to the way past HTTP, see `HttpConnection`."""

    @property
    def state(self) -> ConnectionState:
        """Where it is in its life."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """None when it is gone."""

    @property
    def connections(self) -> Connections:
        """The table of the loop's connections that it is in."""

    @property
    def writer(self) -> ResponseWriter:
        """The way out."""

    def take_over(self, receiver: asyncio.Protocol) -> bytes:
        """Hand the connection over to another protocol; return what has come for it already."""

    @property
    def reading_paused(self) -> bool:
        """Whether the socket is not read for now."""

    def pause_reading(self) -> None:
        """Read nothing of the socket until `resume_reading()`."""

    def resume_reading(self) -> None:
        """Read the socket again, if it was paused."""

    def untaken(self) -> int:
        """Bytes written that the client's system has not acknowledged."""

    def close(self, linger: bool) -> None:
        """Close behind what was written."""

    def cut(self) -> None:
        """End for a deadline."""


class ConnectionTunnel:
    """The `Tunnel` of HTTP/1.1.

    Args:
        connection: whose bytes these are.

    Attributes:
        was_opened: somebody has taken it over, whatever has become of it.
    """

    __slots__ = ("_connection", "_is_counted_out", "was_opened")

    def __init__(self, connection: Tunnelled) -> None:
        self._connection = connection
        self.was_opened = self._is_counted_out = False

    @property
    def reading_paused(self) -> bool:
        """Whether nothing is read for now."""
        return self._connection.reading_paused

    @property
    def is_open(self) -> bool:
        """Whether the bytes belong to who has opened this, and it has not been closed."""
        return self._connection.state is ConnectionState.UPGRADED

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone."""
        return self._connection.transport is None

    @property
    def is_closing(self) -> bool:
        """Whether it is gone, or nothing that is written reaches the client any more."""
        transport = self._connection.transport
        return transport is None or transport.is_closing()

    @property
    def paused(self) -> bool:
        """The client has to read before more should be written."""
        return self._connection.writer.paused

    def open(self, receiver: asyncio.Protocol) -> bytes:
        """Take the connection over; see `ServerHttpProtocol.take_over()`."""
        connection = self._connection
        early = connection.take_over(receiver)
        connection.writer.corked = False  # what is written here passes it by, and is not kept back
        connection.connections.active -= 1
        self.was_opened = self._is_counted_out = True
        return early

    def finish(self) -> None:
        """The handler that has opened this has ended; whoever awaits it counts it down."""
        if self._is_counted_out:
            self._is_counted_out = False
            self._connection.connections.active += 1

    def write(self, data: bytes) -> None:
        """Write bytes; to a client that is gone, nothing."""
        # Flat: every message of a WebSocket passes here.
        connection = self._connection
        transport = connection.transport
        if data and transport is not None and not transport.is_closing():
            connection.writer.sent += len(data)
            transport.write(data)

    def drain(self) -> Awaitable[None]:
        """Wait until the client has read enough."""
        return self._connection.writer.drain()

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading()`."""
        self._connection.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._connection.resume_reading()

    def untaken(self) -> int:
        """Bytes written that the client's system has not acknowledged."""
        return self._connection.untaken()

    def close(self, *, linger: bool) -> None:
        """Close behind what was written; see `ServerHttpProtocol.close()`."""
        self._connection.close(linger=linger)

    def cut(self) -> None:
        """End now, and leave nothing in the kernel for a client that does not read."""
        self._connection.cut()
