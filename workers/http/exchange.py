"""One request and its response: what handlers and gateways work with.

An `Exchange` knows no bytes of a connection. It has a `Wire`, by which its response goes out. A connection of HTTP/1.1
has one wire for all of its exchanges, which come one after the other. A connection of HTTP/2 would have one for each of
its streams, so that there are many at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from preforkd.workers.http.states import ConnectionState

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from preforkd.workers.http.message import RequestMessage
    from preforkd.workers.http.payload import PayloadStream
    from preforkd.workers.http.waiter import Deferred


class Wire(Protocol):
    """The way out of exchanges.

    Attributes:
        exchange: the one whose response goes out; None between two.
        response: the response to it, from `send_headers()` on. Whoever flushes asks it for its head.
        corked: who called into the handler flushes when it returns; else the loop's next turn has to.
        parts, due: what is kept back, and whether anything is (the head of the response is not in `parts`).
    """

    exchange: Exchange | None
    response: Any
    corked: bool
    parts: list[bytes]
    due: bool

    @property
    def connection(self) -> Any:
        """What the exchanges come by; None when it is gone for good. Its `state` is ACTIVE while one may go on."""

    @property
    def paused(self) -> bool:
        """The client has to read before more should be written."""

    @property
    def chunks(self) -> bool:
        """A body of unknown length is sent in chunks (RFC 9112 section 7.1); else the wire itself marks its end."""

    def write(self, data: bytes) -> None:
        """Write bytes of the body, or an interim response, behind what has been written.

        Raises:
            ClientDisconnectedError: the client is gone.
        """

    def flush(self) -> None:
        """Give everything to the transport now."""

    def flush_soon(self) -> None:
        """Have what is kept back written before the loop's next turn."""

    def drain(self) -> Awaitable[None]:
        """Wait until the client has read enough."""


class Exchange:
    """A request with its body coming in, and its response going out.

    Whoever makes one sets the first three; to pass them to a method of Python would cost each request as much again.

    Attributes:
        request: the head. None only while bytes that are no head are refused, which no gateway sees.
        body: the body, as it arrives.
        wire: the way out.
        keep_alive: what the handler has said of the connection: it stays open behind the response, or not; None:
            nothing. Means nothing where many exchanges share a connection.
        began: when it did, seconds of the monotonic clock; 0.0 when nobody wants to know.
        deferred: what the handler has returned instead of a coroutine; callbacks end it.
        is_logged: it needs no line of the access log any more.
        has_expired: it takes longer than `request_timeout`.
        needs_no_answer: its handler was told that nobody waits for the response: it need not give one, or finish it.
    """

    request: RequestMessage
    body: PayloadStream
    wire: Wire

    # Attributes of the class until an exchange needs another value: making one costs less.
    keep_alive: bool | None = None
    began = 0.0
    deferred: Deferred | None = None
    is_logged = False
    has_expired = False
    needs_no_answer = False

    @property
    def is_open(self) -> bool:
        """Whether its response can go on: the client is there, and it is not over."""
        carrier = self.wire.connection
        return (
            carrier is not None
            and self.wire.exchange is self
            and carrier.state is ConnectionState.ACTIVE
            and carrier.transport is not None
        )
