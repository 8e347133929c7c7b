"""One request and its response: what a `Service`, a handler or a gateway, works with.

An `Exchange` knows no bytes of a connection. It has a `Wire`, by which its response goes out, and a `Carrier`, by which
it came. A connection of HTTP/1.1 is the carrier of all of its exchanges and has one wire for them, which come one after
the other. A connection of HTTP/2 would have both for each of its streams, so that there are many at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from preforkd.workers.http import compiled
from preforkd.workers.http.states import ConnectionState

if TYPE_CHECKING:
    import asyncio
    import logging
    from collections.abc import Awaitable, Generator
    from contextvars import Context
    from types import FrameType

    from preforkd.workers.http.limits import Limits
    from preforkd.workers.http.message import RequestMessage
    from preforkd.workers.http.payload import PayloadStream
    from preforkd.workers.proxy_protocol import ProxyHeader


class Service(Protocol):
    """What serves exchanges: an app, by its gateway, or the handler of `ServerHttpProtocol`.

    Attributes:
        decodes_bodies: whether a body with `Content-Encoding: gzip` or `deflate` is given to it decoded.
        outlives_cancellation: whether a cancellation that hits the task of a connection between two requests ends no
            more than this task, and the next request gets another; else it ends the connection.
        context: what the contexts of its exchanges are copies of; None: that in which the connection was made.
    """

    decodes_bodies: bool
    outlives_cancellation: bool
    context: Context | None

    def serve(self, exchange: Exchange) -> Awaitable[None]:
        """Answer a request: a coroutine, a `Deferred`, another awaitable, or `DONE` when that has been done already.

        Args:
            exchange: to be answered.

        Raises:
            HttpProcessingError: answered with its status, as is what the awaitable raises; other exceptions by 500.
        """


class Pending(Protocol):
    """What a handler has returned whose work callbacks do, see `Deferred`."""

    def __await__(self) -> Generator[object, None, None]:
        """Wait for it, to be cancelled."""

    def abandon(self) -> None:
        """Nobody waits for this any more: the client is gone, or the request took too long."""

    def frames(self) -> list[FrameType]:
        """Return where the handler is, the outermost call first; none when it is nowhere in Python."""


class Observer:
    """Is told what becomes of an exchange. What is here suits a handler that wants to know nothing of it."""

    __slots__ = ()

    def handler_waits(self) -> None:
        """The handler has made a step, and waits for something now."""

    def can_write(self) -> None:
        """The client has read what was too much for it."""

    def client_has_finished(self) -> bool:
        """The client sends nothing behind what it has sent; whether it can still be answered."""
        return True

    def client_is_gone(self) -> bool:
        """Nobody will read the response; false: the handler is to be cancelled."""
        return False


class _Answered(Observer):
    """What has answered is done, and needs no cancellation."""

    __slots__ = ()

    def client_is_gone(self) -> bool:
        """What is left is to send the response."""
        return True


UNOBSERVED = Observer()
ANSWERED = _Answered()


class Wire(Protocol):
    """The way out of exchanges.

    Attributes:
        exchange: the one whose response goes out; None between two.
        response: the response to it, from `send_headers()` on. Whoever flushes asks it for its head.
        corked: who called into the handler flushes when it returns; else the loop's next turn has to.
        parts, due: what is kept back, and whether anything is (the head of the response is not in `parts`).
        prepared: what the service has made for all exchanges of this wire with its first; None: nothing.
    """

    exchange: Exchange | None
    response: Any
    corked: bool
    parts: list[bytes]
    due: bool
    prepared: Any

    @property
    def paused(self) -> bool:
        """The client has to read before more should be written."""

    @property
    def is_lost(self) -> bool:
        """The client is gone, and whatever came by it is over."""

    @property
    def chunks(self) -> bool:
        """A body of unknown length is sent in chunks (RFC 9112 section 7.1); else the wire itself marks its end."""

    def may_stay_open(self, exchange: Exchange) -> bool:
        """Whether more exchanges may come behind this one, as far as is known, its handler's own word aside."""

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

    def takes_files(self) -> bool:
        """Whether `send_file()` may be called: the kernel can write to this client."""

    def send_file(self, response: Any, descriptor: int, offset: int) -> Awaitable[None]:
        """Have the kernel send what the response's Content-Length still wants of a file; see `sendfile.py`."""


class Carrier(Protocol):
    """What an exchange came by.

    Attributes:
        state: ACTIVE while an exchange may go on.
        transport: of the connection; None when it is gone.
        loop: the event loop.
        limits: what the client may cost.
        logger: where trouble is reported.
        client_finished: the client has closed its side.
        proxy_header: what a PROXY header has said of the connection; None: there was none.
    """

    state: ConnectionState
    transport: asyncio.Transport | None
    loop: asyncio.AbstractEventLoop
    limits: Limits
    logger: logging.Logger
    client_finished: bool
    proxy_header: ProxyHeader | None

    @property
    def peer_address(self) -> tuple[str, int] | None:
        """Address and port of whoever has opened the connection; None: it has none."""

    @property
    def handler_task(self) -> asyncio.Task[None] | None:
        """The task in whose name the handler runs; None when there is none now."""

    def may_have_left(self) -> bool:
        """Whether the client has closed its side, be it in what was read or behind it."""

    def abandon(self, exchange: Exchange) -> None:
        """Nobody waits for the rest of an exchange: whatever its handler does, it is over for the access log."""

    def detach(self, exchange: Exchange) -> bool:
        """End an exchange whose response is complete: its handler goes on in its task without it.

        Returns:
            False: it cannot be ended yet, for the task has not taken over what the handler waits for.
        """

    def end_deferred(self, exchange: Exchange, error: BaseException | None) -> None:
        """What was returned instead of a coroutine has come to its end, or has raised an error."""

    def expire(self, exchange: Exchange) -> None:
        """An exchange takes too long: cancel its handler, and answer 503."""

    def tunnel(self, exchange: Exchange) -> Tunnel:
        """Return the way past HTTP, for an exchange that asks for an upgrade; closed until it is opened."""

    def report_error(self, *args: object, exc: BaseException | None = None) -> None:
        """Log an error, whatever becomes of the log; arguments as for `logging.Logger.error`."""


class Tunnel(Protocol):
    """The bytes of a connection that has left HTTP (RFC 9110 section 7.8), or will: WebSocket.

    Attributes:
        was_opened: somebody has taken it over, whatever has become of it.
    """

    was_opened: bool

    @property
    def reading_paused(self) -> bool:
        """Whether nothing is read for now."""

    @property
    def is_open(self) -> bool:
        """Whether the bytes belong to who has opened this, and it has not been closed."""

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone."""

    @property
    def is_closing(self) -> bool:
        """Whether it is gone, or nothing that is written reaches the client any more."""

    @property
    def paused(self) -> bool:
        """The client has to read before more should be written."""

    def open(self, receiver: asyncio.Protocol) -> bytes:
        """Take the connection over, after the 101 response; return what has come behind the request already.

        Args:
            receiver: gets `data_received`, `eof_received`, `pause_writing`, `resume_writing`, `connection_lost`.
                From now on, the exchange is no request that is being handled: it may stay for days.

        Raises:
            ResponseError: there is no request, its body has not been read, or no 101 was sent.
        """

    def finish(self) -> None:
        """The handler that has opened this has ended: it does not count as one that is at work any more."""

    def write(self, data: bytes) -> None:
        """Write bytes; to a client that is gone, nothing."""

    def drain(self) -> Awaitable[None]:
        """Wait until the client has read enough."""

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading()`."""

    def resume_reading(self) -> None:
        """Read again."""

    def untaken(self) -> int:
        """Bytes written that the client's system has not acknowledged."""

    def close(self, *, linger: bool) -> None:
        """Close behind what was written; see `ServerHttpProtocol.close()`."""

    def cut(self) -> None:
        """End now, and leave nothing in the kernel for a client that does not read."""


@compiled.in_both_forms
class Exchange:
    """A request with its body coming in, and its response going out.

    Args:
        request, body, wire, carrier: as below.

    Attributes:
        request: the head. None only while bytes that are no head are refused, which no service sees.
        body: the body, as it arrives.
        wire: the way out.
        carrier: what it came by.
        observer: is told what becomes of it.
        keep_alive: what the handler has said of the connection: it stays open behind the response, or not; None:
            nothing. Means nothing where many exchanges share a connection.
        began: when it did, seconds of the monotonic clock; 0.0 when nobody wants to know.
        deferred: what the handler has returned instead of a coroutine; callbacks end it.
        is_logged: it needs no line of the access log any more.
        has_expired: it takes longer than `request_timeout`.
        has_waited: its handler was not done in its first step: the rest of it is awaited by a task.
        keeps_task: once its handler has waited, that task serves no other exchange.
        needs_no_answer: its handler was told that nobody waits for the response: it need not give one, or finish it.
    """

    __slots__ = (
        "began", "body", "carrier", "deferred", "has_expired", "has_waited", "is_logged", "keep_alive", "keeps_task",
        "needs_no_answer", "observer", "request", "wire",
    )  # fmt: skip

    def __init__(self, request: RequestMessage, body: PayloadStream, wire: Wire, carrier: Carrier) -> None:
        self.request = request
        self.body = body
        self.wire = wire
        self.carrier = carrier
        self.observer: Observer = UNOBSERVED
        self.keep_alive: bool | None = None
        self.began = 0.0
        self.deferred: Pending | None = None
        self.is_logged = self.has_expired = self.has_waited = self.keeps_task = self.needs_no_answer = False

    @property
    def is_open(self) -> bool:
        """Whether its response can go on: the client is there, and it is not over."""
        carrier = self.carrier
        return self.wire.exchange is self and carrier.state is ConnectionState.ACTIVE and carrier.transport is not None
