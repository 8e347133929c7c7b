"""The way in of a connection: whose the bytes are that arrive, and what becomes of them."""

from __future__ import annotations

import enum
from time import monotonic
from typing import TYPE_CHECKING

from preforkd.workers.http import compiled
from preforkd.workers.http.decoding import DecodedPayload
from preforkd.workers.http.errors import BadRequestError, ClientDisconnectedError
from preforkd.workers.http.parser import RequestParser
from preforkd.workers.http.payload import EMPTY_PAYLOAD, PayloadStream
from preforkd.workers.http.rules import refused_request

if TYPE_CHECKING:
    from preforkd.workers.edge import Edge
    from preforkd.workers.http.deadlines import Times
    from preforkd.workers.http.host import Host
    from preforkd.workers.http.limits import Limits
    from preforkd.workers.http.message import RequestMessage

UNREAD_BODY_MAX = 65536  # bytes of a body nobody read that are worth keeping the connection for
LINGER_BYTES = 16 * 1024 * 1024  # bytes discarded in a lingering close


class Phase(enum.IntEnum):
    """What is done with bytes that arrive, a detail within a state of the connection."""

    HEAD = 0  # they belong to a request's head
    BODY = 1  # to its body
    KEEP = 2  # the request is complete and is being handled: they are a later one's, and are kept unparsed
    SKIP = 3  # to the rest of a body that the handler did not read
    DISCARD = 4  # nothing will be answered any more
    FOREIGN = 5  # to another protocol


# As plain names: an attribute of an enum costs 30 ns, and every request asks for several.
HEAD, BODY, KEEP, SKIP, DISCARD, FOREIGN = Phase


@compiled.in_both_forms
class Intake:
    """Makes requests of what arrives, and reads no more than is wanted.

    Args:
        connection: whose bytes these are.
        limits: what the client may cost.
        times: those that its deadlines count from.
        edge: what is done with each head before the app sees it; None: nothing.

    Attributes:
        phase: what is done with bytes that arrive.
        parser: of the requests.
        message: the request that has come and has not been begun.
        bad: what is wrong with the one that has come.
        payload: the body of the current request.
        tail: bytes of later requests, which came while another is being handled.
        paused: the socket is not read for now.
        continue_is_due: the client waits for `100 Continue` before it sends the body of the current request.
        rest_may_be_long: more of the current body is still to come than would be skipped if the handler does not read
            it, or nobody knows how much.
        discarded: bytes that were, in the end of the connection.
        waited_for_others: the request that has come has waited for others of its client's, in a pipeline.
    """

    __slots__ = (
        "_connection", "_edge", "_limit_body", "_times", "bad", "continue_is_due", "discarded", "message", "parser",
        "paused", "payload", "phase", "rest_may_be_long", "tail", "waited_for_others",
    )  # fmt: skip

    def __init__(self, connection: Host, limits: Limits, times: Times, edge: Edge | None) -> None:
        self._connection = connection
        self._times = times
        self.parser = RequestParser(limits)
        self._limit_body = limits.limit_body
        self._edge = edge
        self.phase = HEAD
        self.message: RequestMessage | None = None
        self.bad: BadRequestError | None = None
        self.payload: PayloadStream = EMPTY_PAYLOAD
        self.tail = b""
        self.discarded = 0
        self.paused = self.continue_is_due = self.rest_may_be_long = self.waited_for_others = False

    def take(self, data: bytes) -> bool:
        """Take bytes, in any phase but FOREIGN; tells whether there is something to be processed now."""
        phase = self.phase
        if phase is HEAD:
            return self.take_head(data)
        if phase is BODY:
            self._take_body(data)
        elif phase is KEEP:
            self._keep(data)
        elif phase is SKIP:
            return self._skip(data)
        elif phase is DISCARD:
            self.discarded += len(data)
            if self.discarded > LINGER_BYTES:
                self._connection.abort()
        return False

    def take_head(self, data: bytes) -> bool:
        """Take bytes in the phase HEAD; see `take()`."""
        # Flat: every request passes here.
        try:
            message = self.parser.feed_head(data)
        except BadRequestError as exc:
            self.refuse(exc, data)
            return True
        if message is None:
            times = self._times
            if not times.head:
                times.head = monotonic()
            return False
        self._take_request(message, data)
        return True

    def _take_request(self, message: RequestMessage, data: bytes) -> None:
        """Take a head that the parser has found at the beginning of `data`, and what comes behind it there."""
        parser = self.parser
        if self._edge is not None:
            self._edge.take(self._connection, message)
        self._times.head = 0.0
        self.message = message
        self.phase = KEEP
        if parser.in_body:
            connection = self._connection
            decodes = message.compression is not None and connection.served_by().decodes_bodies
            body = None if decodes else parser.whole_body(data)
            if body is not None:
                self.payload = PayloadStream.whole(body, connection.loop)
            else:
                self._expect_body(message, decodes=decodes)
        if parser.consumed != len(data):
            self.take(data[parser.consumed :])

    def refuse(self, exc: BadRequestError, data: bytes = b"") -> None:
        """A head is no valid request: have that processed, and parse nothing more.

        Args:
            exc: what is wrong.
            data: of the head, where the parser has not kept it.
        """
        self._times.head = 0.0
        if exc.request is None:
            exc.request = refused_request(bytes(self.parser.partial or data), exc.code == 414)
        if exc.request is not None and self._edge is not None:
            self._edge.take(self._connection, exc.request)
        self.bad = exc.with_traceback(None)  # its frames would keep the connection alive
        self.phase = DISCARD
        self._connection.persistent = False

    def _expect_body(self, message: RequestMessage, *, decodes: bool) -> None:
        loop = self._connection.loop
        self.phase = BODY
        if decodes:
            self.payload = DecodedPayload(self, loop, message.compression or "", self._limit_body)
        else:
            self.payload = PayloadStream(self, loop)
        self.continue_is_due = message.expect_continue
        self.rest_may_be_long = message.content_length is None or message.content_length > UNREAD_BODY_MAX
        self._times.body = 0.0

    def _take_body(self, data: bytes) -> None:
        parser = self.parser
        payload = self.payload
        self.continue_is_due = False
        try:
            parser.feed_body(data)
        except BadRequestError as exc:
            self.fail_body(exc)
            return
        for part in parser.body:
            payload.feed(part, not parser.in_body)
        parser.body.clear()
        if self.rest_may_be_long:
            left = parser.body_left()
            self.rest_may_be_long = parser.in_body and (left is None or left > UNREAD_BODY_MAX)
        if not parser.in_body:
            self.phase = KEEP
            payload.feed_eof()
            if parser.consumed != len(data):
                self._keep(data[parser.consumed :])

    def fail_body(self, exc: BadRequestError) -> None:
        """The body is invalid, or does not come: the handler is told, and nothing more is read."""
        self.payload.set_exception(exc.with_traceback(None))
        self.phase = DISCARD
        self._connection.persistent = False

    def next_request(self) -> bool:
        """The last response is complete, and the connection stays open: what comes now is the next request.

        Returns:
            Whether it has come already, and is to be processed now.
        """
        self.payload = EMPTY_PAYLOAD
        if self.phase is BODY:
            # The handler has not read all of it; the head has said keep-alive, so the rest is short.
            self.phase = SKIP
            self.resume_reading()
            return False
        self.phase = HEAD
        return bool(self.tail) and self.take_tail()

    def _skip(self, data: bytes) -> bool:
        """The rest of a body that the handler did not read, `UNREAD_BODY_MAX` at most: thrown away."""
        parser = self.parser
        parser.feed_body(data)
        parser.body.clear()
        if not parser.in_body:
            self.phase = HEAD
            if parser.consumed != len(data):
                return self.take(data[parser.consumed :])
        return False

    def _keep(self, data: bytes) -> None:
        """Bytes of a later request: kept unparsed, and no more of them are read until it is their turn."""
        self.tail = self.tail + data if self.tail else data
        self.pause_reading()

    def take_tail(self) -> bool:
        """It is the turn of what was kept; tells what `take()` does."""
        tail, self.tail = self.tail, b""
        self.waited_for_others = True
        self.resume_reading()
        has_come = self.take(tail)
        if self._connection.client_finished and not self.tail:
            self._connection.persistent = False
        return has_come

    def finish(self) -> None:
        """The client sends no more: what has come whole is still answered."""
        if self.phase is BODY:
            self.payload.set_exception(ClientDisconnectedError("the request body was cut"))
            self.phase = DISCARD
        if not self.tail:
            self._connection.persistent = False

    def stop(self) -> None:
        """Nothing that has come, or comes, will be answered any more."""
        self.phase = DISCARD
        self.tail = b""
        self.message = self.bad = None

    def lose(self) -> None:
        """The connection is gone."""
        self.stop()
        self.payload.set_exception(ClientDisconnectedError("the client is gone"))
        self.payload = EMPTY_PAYLOAD

    @property
    def has_request(self) -> bool:
        """Whether a request has come, or what is wrong with one, and has not been begun."""
        return self.message is not None or self.bad is not None

    @property
    def waits_for_body(self) -> bool:
        """Whether it is the client's turn to send more of a body."""
        return self.phase in (BODY, SKIP) and not self.paused and not self.continue_is_due

    # Flow control.

    def pause_reading(self) -> None:
        """Read nothing of the socket until `resume_reading()`."""
        transport = self._connection.transport
        if not self.paused and transport is not None and not transport.is_closing():
            self.paused = True
            transport.pause_reading()

    def resume_reading(self) -> None:
        """Read the socket again, if it was paused."""
        if self.paused:
            self.paused = False
            transport = self._connection.transport
            if transport is not None and not transport.is_closing():
                transport.resume_reading()

    # The payload's calls.

    def pause_body(self) -> None:
        """The handler reads slower than the client sends."""
        self.pause_reading()

    def resume_body(self) -> None:
        """The handler has read."""
        if self.phase is BODY:
            self.resume_reading()

    def body_wanted(self) -> None:
        """The handler waits for the body: now the client may send it (RFC 9110 section 10.1.1)."""
        if self.continue_is_due:
            self.continue_is_due = False
            self._connection.send_continue()
