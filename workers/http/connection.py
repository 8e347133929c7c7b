"""One connection: bytes in, state, close. What is done with a request is `protocol.py`.

The state is `states.py`'s. How the bytes that arrive are taken is the *intake*, a detail within a state:
HEAD (a request's head), BODY (its body), HOLD (the request is complete and is being handled; what comes is kept unread),
DRAIN (the rest of a body that the handler did not read), DISCARD (nothing will be answered any more), RAW (upgraded).
"""

from __future__ import annotations

import asyncio
import select
from time import monotonic
from typing import TYPE_CHECKING, cast

from preforkd.workers.http.connections import connections_of
from preforkd.workers.http.deadlines import Allowance, Deadline, Marks, Sight, expired
from preforkd.workers.http.errors import BadRequestError, ClientDisconnectedError
from preforkd.workers.http.limits import Limits
from preforkd.workers.http.parser import RequestParser
from preforkd.workers.http.payload import EMPTY_PAYLOAD, PayloadStream
from preforkd.workers.http.states import ConnectionEvent, ConnectionState, following
from preforkd.workers.http.waiter import Wakeup
from preforkd.workers.http.writer import ResponseWriter

if TYPE_CHECKING:
    from preforkd.workers.http.connections import Connections
    from preforkd.workers.http.message import RequestMessage

HEAD, BODY, HOLD, DRAIN, DISCARD, RAW = range(6)

UNREAD_BODY_MAX = 65536  # bytes of a body nobody read that are worth keeping the connection for
LINGER_BYTES = 16 * 1024 * 1024  # bytes discarded in a lingering close


class HttpConnection(asyncio.Protocol):
    """The transport's side of `ServerHttpProtocol`.

    Attributes:
        state: where the connection is in its life.
        transport: None when it is gone.
        reader: the parser of requests.
        writer: the way out.
        connections: the table of the loop's connections that this one is in.
        request: the head of the request that is being handled; None between two.
        requests: how many there were, with that one.
        keep_alive_wish: what the handler has said by `keep_alive()` for the current request, None: nothing.
        persistent: whether the connection may stay open after this request at all; not any more when it drains.
        limits: what the client may cost.
    """

    # Slots: more than 30 attributes in an instance's dictionary make every one of them slower. Subclasses of
    # ServerHttpProtocol get a dictionary as usual.
    __slots__ = (
        "__weakref__", "_allowed", "_bad", "_client_finished", "_continue_is_due", "_discarded", "_given_loop", "_intake",
        "_loop", "_marks", "_message", "_payload", "_reading_paused", "_remote", "_tail", "_task", "_wakeup", "connections",
        "keep_alive_wish", "limits", "persistent", "reader", "request", "requests", "state", "transport", "writer",
    )  # fmt: skip

    reader: RequestParser
    writer: ResponseWriter
    connections: Connections
    _loop: asyncio.AbstractEventLoop
    _wakeup: Wakeup

    def __init__(self, loop: asyncio.AbstractEventLoop | None, limits: Limits, allowed: Allowance) -> None:
        self._given_loop = loop
        self._allowed = allowed
        self.limits = limits
        self.state = ConnectionState.NEW
        self.transport: asyncio.Transport | None = None
        self.request: RequestMessage | None = None
        self.requests = 0
        self.keep_alive_wish: bool | None = None
        self.persistent = True
        self._intake = HEAD
        self._tail: list[bytes] = []
        self._message: RequestMessage | None = None
        self._bad: BadRequestError | None = None
        self._payload: PayloadStream = EMPTY_PAYLOAD
        self._task: asyncio.Task[None] | None = None
        self._reading_paused = self._client_finished = self._continue_is_due = False
        self._discarded = 0
        self._remote: str | None = None
        self._marks = Marks()

    # What `protocol.py` adds.

    async def start(self) -> None:
        """Process the requests."""
        raise NotImplementedError

    def expire_request(self) -> None:
        """The request takes longer than `request_timeout`."""
        raise NotImplementedError

    # The transport's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport (asyncio's call)."""
        self.transport = cast("asyncio.Transport", transport)
        self._loop = loop = self._given_loop or asyncio.get_running_loop()
        self.reader = RequestParser(self.limits)
        self.writer = ResponseWriter(self, self.transport, loop)
        self._wakeup = Wakeup(loop)
        self._marks.head = monotonic()
        self.connections = connections_of(loop)
        self.connections.add(self, loop, self._allowed.sweep_interval())

    def data_received(self, data: bytes) -> None:
        """Take bytes (asyncio's call)."""
        intake = self._intake
        if intake == HEAD:
            # Flat: every request passes here.
            parser = self.reader
            try:
                message = parser.feed_head(data)
            except BadRequestError as exc:
                self._refuse(exc)
                return
            if message is None:
                if not self._marks.head:
                    self._marks.head = monotonic()
                return
            self._message = message
            self._intake = HOLD
            if parser.in_body:
                self._expect_body(message)
            if parser.consumed != len(data):
                self.data_received(data[parser.consumed :])
            self._resume_task()
        elif intake == BODY:
            self._receive_body(data)
        elif intake == HOLD:
            self._keep(data)
        elif intake == DRAIN:
            self._receive_unread(data)
        elif intake == DISCARD:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.abort()

    def _expect_body(self, message: RequestMessage) -> None:
        self._intake = BODY
        self._payload = PayloadStream(self, self._loop)
        self._continue_is_due = message.expect_continue
        self._marks.body = 0.0

    def _receive_body(self, data: bytes) -> None:
        parser = self.reader
        payload = self._payload
        self._continue_is_due = False
        try:
            parser.feed_body(data)
        except BadRequestError as exc:
            payload.set_exception(exc)
            self._intake = DISCARD
            return
        for part in parser.body:
            payload.feed(part)
        parser.body.clear()
        if not parser.in_body:
            self._intake = HOLD
            payload.feed_eof()
            if parser.consumed != len(data):
                self._keep(data[parser.consumed :])

    def _drain_body(self) -> None:
        """The handler is done and has not read all of the body."""
        self._intake = DRAIN
        self._discarded = 0
        left = self.reader.body_left()
        if left is not None and left > UNREAD_BODY_MAX:
            self.close()
        else:
            self._resume_reading()

    def _receive_unread(self, data: bytes) -> None:
        """The rest of a body that the handler did not read: thrown away, within bounds."""
        parser = self.reader
        try:
            parser.feed_body(data)
        except BadRequestError:
            self.close()
            return
        parser.body.clear()
        self._discarded += parser.consumed
        if self._discarded > UNREAD_BODY_MAX:
            self.close()
        elif not parser.in_body:
            self._intake = HEAD
            if parser.consumed != len(data):
                self.data_received(data[parser.consumed :])

    def _keep(self, data: bytes) -> None:
        """Bytes of a later request: kept unparsed, and no more of them are read until it is their turn."""
        self._tail.append(data)
        self._pause_reading()

    def take_tail(self) -> None:
        """It is the turn of what was kept."""
        tail = b"".join(self._tail)
        self._tail.clear()
        self._resume_reading()
        self.data_received(tail)

    def _pause_reading(self) -> None:
        if not self._reading_paused and self.transport is not None and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            if self.transport is not None and not self.transport.is_closing():
                self.transport.resume_reading()

    def _refuse(self, exc: BadRequestError) -> None:
        """A head is no valid request: answer that, and parse nothing more."""
        self._bad = exc
        self._intake = DISCARD
        self._resume_task()

    def _resume_task(self) -> None:
        """There is something to do for `start()`."""
        wakeup = self._wakeup
        if self._task is None:
            # Made with the first request: a connection that stays silent costs no task.
            self._task = self._loop.create_task(self.start())
        elif wakeup.callback is not None:
            writer = self.writer
            writer.flushed_by_caller = True
            try:
                wakeup.wake()
            finally:
                writer.flushed_by_caller = False
                if writer.due:
                    writer.flush()

    def eof_received(self) -> bool:
        """The client will send no more (asyncio's call); what it has asked for is still answered."""
        self._client_finished = True
        intake = self._intake
        if intake == BODY:
            self._payload.set_exception(ClientDisconnectedError("the request body was cut"))
            self._intake = DISCARD
        if intake in (BODY, HOLD) or (self.state is not ConnectionState.CLOSING and self._bad is not None):
            # A half-close; asyncio's TLS transports cannot keep one open and warn when they are asked to.
            return self.transport is not None and self.transport.can_write_eof()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        """The transport is gone (asyncio's call): the one teardown, from every exit."""
        if self.state is ConnectionState.CLOSED:
            return
        was = self.state
        self.state = following(was, ConnectionEvent.LOST)
        self._intake = DISCARD
        self.transport = None
        self._message = self._bad = None
        self._tail.clear()
        self.connections.discard(self)
        self._payload.set_exception(ClientDisconnectedError("the client is gone"))
        self._payload = EMPTY_PAYLOAD
        self.writer.lose()
        if self._wakeup.callback is not None:
            self._wakeup.wake()
        elif self._task is not None and not self._task.done():
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client reads slower than we write (asyncio's call)."""
        self.writer.pause()

    def resume_writing(self) -> None:
        """The client has read (asyncio's call)."""
        self.writer.resume()

    # The payload's calls.

    def pause_body(self) -> None:
        """The handler reads slower than the client sends."""
        self._pause_reading()

    def resume_body(self) -> None:
        """The handler has read."""
        if self._intake == BODY:
            self._resume_reading()

    def body_wanted(self) -> None:
        """The handler waits for the body: now the client may send it (RFC 9110 section 10.1.1)."""
        if self._continue_is_due:
            self._continue_is_due = False
            if self.writer.response is None:
                self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    @property
    def remote(self) -> str:
        """The client's address for the logs; `-` when it has none (a unix socket)."""
        if self._remote is None:
            peer = self.transport.get_extra_info("peername") if self.transport is not None else None
            self._remote = str(peer[0]) if isinstance(peer, tuple | list) and peer else "-"
        return self._remote

    # The response's questions.

    def may_keep_alive(self) -> bool:
        """Whether the connection may stay open after the current request, as far as is known now."""
        request = self.request
        return self.persistent and request is not None and not request.should_close and not self._continue_is_due

    # The end.

    def close(self, linger: bool = True) -> None:
        """Close after what was written has gone out.

        Args:
            linger: half-close first and discard what comes for a while, so that the response is not destroyed by a
                reset (RFC 9112 section 9.6).
        """
        if self.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            return
        self.writer.flush()
        self.state = following(self.state, ConnectionEvent.CLOSE)
        self._intake = DISCARD
        self._discarded = 0
        self._tail.clear()
        transport = self.transport
        if transport is None:
            return
        if not linger or self._client_finished or transport.is_closing() or not transport.can_write_eof():
            transport.close()
        else:
            self._marks.linger = monotonic()
            transport.write_eof()
            self._resume_reading()

    def abort(self) -> None:
        """Close at once, whatever was written."""
        self.state = following(self.state, ConnectionEvent.CLOSE)
        self._intake = DISCARD
        if self.transport is not None:
            self.transport.abort()

    def closing(self, timeout: float = 15.0) -> None:
        """The worker is about to exit (the seed's contract).

        An idle connection closes now, unless bytes of a request have arrived; one in a request finishes it, and is cut by
        `cancel_slow_request()` after `timeout`.

        Args:
            timeout: seconds.
        """
        self.persistent = False
        if self.state in (ConnectionState.NEW, ConnectionState.IDLE) and not self._has_unread():
            self.close(linger=False)
        elif self.state is not ConnectionState.CLOSED:
            self._marks.cut = monotonic() + timeout
            if timeout <= 0:
                self.cancel_slow_request()

    def _has_unread(self) -> bool:
        """Whether bytes of a request have come, in the parser or still in the socket."""
        if self._message is not None or self._bad is not None or self.reader.partial or self._tail:
            return True
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sock is None or sock.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def cancel_slow_request(self) -> None:
        """Cancel the handler and close the transport (the seed's contract)."""
        if self._task is not None and self._wakeup.callback is None:
            self._task.cancel()
        self.abort()

    def check_deadlines(self, now: float) -> None:
        """Act on what has run out; called by the sweep."""
        unsent = self.writer.unsent()
        waits_for_body = self._intake in (BODY, DRAIN) and not self._reading_paused
        received = self.reader.body_received if waits_for_body else None
        sight = Sight(self.state, self.requests, received, self.writer.sent - unsent, unsent)
        deadline = expired(sight, self._marks, self._allowed, now)
        if deadline is not None:
            self._act_on(deadline)

    def _act_on(self, deadline: Deadline) -> None:
        if deadline is Deadline.HEAD and self.reader.partial:
            self._marks.head = 0.0
            self._refuse(BadRequestError("Request timeout", code=408))
        elif deadline in (Deadline.HEAD, Deadline.KEEP_ALIVE):
            self.close(linger=False)
        elif deadline is Deadline.BODY:
            self._payload.set_exception(BadRequestError("Request timeout", code=408))
            self._intake = DISCARD
        elif deadline is Deadline.REST:
            self.close()
        elif deadline is Deadline.REQUEST:
            self.expire_request()
        elif deadline is Deadline.CUT:
            self.cancel_slow_request()
        else:
            self.abort()
