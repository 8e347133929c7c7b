"""Requests from bytes: where a head ends and where its body ends, and whatever else arrives with them.

A head is collected until CR LF CR LF and then judged as a whole (`parsing.py`), so how it was divided into reads
changes nothing; what cannot become a valid head any more is refused before it is complete. A body of known length is
counted, a chunked one decoded (`chunked.py`). Nothing of a second request is looked at before the first has been
answered: a pipeline is bounded by the read buffer, and bytes behind a request that closes are never parsed.

No socket, clock or loop: bytes in, messages and body parts out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from preforkd.workers.http import compiled
from preforkd.workers.http.chunked import COMPLETE, ChunkedBody
from preforkd.workers.http.errors import BadRequestError
from preforkd.workers.http.parsing import check_start, parse_head

if TYPE_CHECKING:
    from preforkd.workers.http.limits import Limits
    from preforkd.workers.http.message import RequestMessage

_END = b"\r\n\r\n"
_NO_PARTS: list[bytes] = []  # of connections that have had no body: nothing is added to it


@compiled.in_both_forms
class RequestParser:
    """The requests of one connection, one after the other.

    Use: `feed_head()` until it returns a message; while `in_body`, `feed_body()`; then `feed_head()` again. Both say in
    `consumed` how much of their input they took. After an error nothing more may be fed.

    Attributes:
        consumed: bytes of the last input that were taken; the rest belongs to what follows.
        in_body: the message's body has not ended.
        body: parts of the body that have come and were not taken away yet.
        body_received: bytes of the current body so far.
        partial: the current head as far as it has come, when it did not come in one piece.
    """

    __slots__ = (
        "_blank_lines",
        "_checked",
        "_chunked",
        "_left",
        "_limit_body",
        "_limit_headers",
        "_limits",
        "_short",
        "_usual_head",
        "body",
        "body_received",
        "consumed",
        "in_body",
        "partial",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._limit_headers = limits.limit_headers
        self._limit_body = limits.limit_body
        self._usual_head = compiled.usual_head
        self._short = limits.short_head
        self.body = _NO_PARTS
        self.partial: bytearray | None = None
        self.consumed = 0
        self.in_body = False
        self.body_received = 0
        self._blank_lines = self._checked = self._left = 0
        self._chunked: ChunkedBody | None = None

    def feed_head(self, data: bytes) -> RequestMessage | None:
        """Take bytes of a head; return the message when it is complete.

        Raises:
            BadRequestError: with the status to answer.
        """
        # Flat: every request passes here.
        if self.partial is not None:
            return self._feed_partial(data)
        message = None
        if self._usual_head is not None:
            message = self._usual_head(data, self._limit_headers, self._limit_body, self._short)
        if message is None:
            end = data.find(_END) + 4
            if end == 3 or data[0] <= 13:
                return self._feed_partial(data)
            if end > self._short:
                self._check_size(data[:end])
            message = parse_head(data[:end], self._limits)
        self.consumed = message.head_size
        if message.chunked or message.content_length:
            self._begin_body(message)
        return message

    def _feed_partial(self, data: bytes) -> RequestMessage | None:
        """The head does not come in one piece, or empty lines are before it."""
        head = self.partial
        if head is None:
            head = self.partial = bytearray()
            self._blank_lines = self._checked = 0
        skipped = self._skip_blank_line(data) if not head else 0
        before = len(head)
        head += data[skipped:] if skipped else data
        end = head.find(_END, max(0, before - 3)) + 4
        if end == 3:
            self.consumed = len(data)
            self._check_size(head)
            if len(head) > before:
                self._checked = check_start(head, before, self._checked)
            return None
        del head[end:]
        self.consumed = skipped + end - before
        if end > self._short:
            self._check_size(head)
        whole = bytes(head)
        message = None
        if self._usual_head is not None:
            message = self._usual_head(whole, self._limit_headers, self._limit_body, self._short)
        if message is None:
            message = parse_head(whole, self._limits)
        self.partial = None
        if message.chunked or message.content_length:
            self._begin_body(message)
        return message

    def _skip_blank_line(self, data: bytes) -> int:
        """RFC 9112 section 2.2: a server should ignore at least one empty line before a request line."""
        skipped = 0
        while skipped < len(data) and data[skipped] in b"\r\n":
            self._blank_lines += 1
            if self._blank_lines > 2 or data[skipped] != b"\r\n"[self._blank_lines - 1]:
                raise BadRequestError("Invalid bytes before the request line")
            skipped += 1
        if skipped < len(data) and self._blank_lines == 1:
            raise BadRequestError("Invalid bytes before the request line")
        return skipped

    def _check_size(self, head: bytes | bytearray) -> None:
        limits = self._limits
        line = head.find(b"\r\n", 0, limits.limit_request_line + 2)
        size = line if line >= 0 else len(head) - 1  # its CR may be there without the LF
        if 0 < limits.limit_request_line < size:
            raise BadRequestError("Request line too long", code=414)
        if 0 < limits.limit_header_size < len(head):
            raise BadRequestError("Request header fields too large", code=431)

    def _begin_body(self, message: RequestMessage) -> None:
        self.in_body = True
        self.body_received = 0
        self._chunked = ChunkedBody(self._limits) if message.chunked else None
        self._left = message.content_length or 0

    def body_left(self) -> int | None:
        """Bytes of the current body that have not come yet; None: only its end will tell."""
        return self._left if self._chunked is None else None

    def whole_body(self, data: bytes) -> bytes | None:
        """Take the body out of the input of its head, if its length is known and all of it is there."""
        start = self.consumed
        end = start + self._left
        if self._chunked is not None or end > len(data):
            return None
        self.in_body = False
        self.consumed = end
        self.body_received = self._left
        self._left = 0
        return data[start:end]

    def feed_body(self, data: bytes) -> None:
        """Take bytes of a body: parts go to `body`, `in_body` becomes false at its end.

        Raises:
            BadRequestError: 400 for invalid chunks, 413 past the limit, 431 for trailers.
        """
        if self.body is _NO_PARTS:
            self.body = []
        chunked = self._chunked
        if chunked is not None:
            self.consumed = chunked.feed(data, self.body)
            self.body_received = chunked.received
            if chunked.state == COMPLETE:
                self.in_body = False
                self._chunked = None
            return
        if len(data) > self._left:
            data = data[: self._left]
        self.consumed = len(data)
        self.body_received += len(data)
        self._left -= len(data)
        self.body.append(data)
        self.in_body = self._left > 0
