"""The response to a request: framing, filters, and a head that tells the truth."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, NoReturn

from preforkd.workers.http import compiled
from preforkd.workers.http.done import DONE
from preforkd.workers.http.errors import ClientDisconnectedError, ResponseError
from preforkd.workers.http.fields import BODILESS, field_line
from preforkd.workers.http.filters import Compressor, Rechunker
from preforkd.workers.http.head import ResponseHead, length_line
from preforkd.workers.http.message import HttpVersion11
from preforkd.workers.http.states import ConnectionState

if TYPE_CHECKING:
    from preforkd.workers.http.exchange import Exchange
    from preforkd.workers.http.message import RequestMessage


_ACTIVE = ConnectionState.ACTIVE
_CLOSING = ConnectionState.CLOSING
_JOIN_CHUNK_BELOW = 16384  # a copy up to here costs less than two more parts


@compiled.in_both_forms
class Response(ResponseHead):
    """One response to the current request of a connection (the seed's contract).

    The head is written together with the first bytes of the body, at the latest when the handler waits for something.

    It can be sent during the request in which it was made, and at no other time. A task that outlives its request must
    not make another one: in a later request of the connection it would be taken for that one's.

    Args:
        writer: the handler's `self.writer`.
        status: the status code, 100 to 999.
        http_version: `message.version`; the status line says HTTP/1.1 always (RFC 9110 section 2.5).
        close: the connection ends after this response.
        reason: the phrase behind the status; None: the standard one.

    Attributes:
        status: the status code; may be changed until `send_headers()`, which checks it again.
        sent_status: the one that was sent, whatever becomes of `status` later.
        headers_sent: `send_headers()` was called.
        head_is_due: the head has been fixed, but not been written yet.
        keeps: the head has told the client that the connection stays open.
        ended: `write_eof()` was called.
        cut: the connection has ended, or will, before the client had all of it.
    """

    def enable_chunked_encoding(self) -> None:
        """Send the body in the chunked transfer coding (HTTP/1.1; towards 1.0 the end of the connection ends it)."""
        if self.headers_sent:
            raise ResponseError("the headers have been sent already")
        self._chunk()

    def add_compression_filter(self, encoding: str = "deflate") -> None:
        """Compress the body; says so in `Content-Encoding` if the handler does not.

        Raises:
            ValueError: `encoding` is neither 'deflate' nor 'gzip', or there is a compression filter already.
        """
        if any(isinstance(one, Compressor) for one in self._filters or ()):
            raise ValueError("the body is compressed already")
        self._add_filter(Compressor(encoding))

    def add_chunking_filter(self, size: int = 16384) -> None:
        """Write the body in parts of `size` bytes, whatever the sizes of the writes are."""
        self._add_filter(Rechunker(size))

    def _add_filter(self, body_filter: Compressor | Rechunker) -> None:
        if self.headers_sent:
            raise ResponseError("the headers have been sent already")
        if self._filters is None:
            self._filters = []
            self._plain = False
        self._filters.append(body_filter)

    def send_whole(self, body: bytes) -> bool:
        """Send head and body of the most usual response; false: it is another one, and nothing has been done.

        The usual case, flat: the rules are in `send_headers()`, `write()` and `write_eof()`.
        """
        writer, exchange, size = self._writer, self.exchange, self.content_length
        if (
            body.__class__ is not bytes
            or (size is not None and size != len(body))
            or exchange is not writer.exchange
            or exchange is None
            or exchange.request.method == "HEAD"
            or self.status in BODILESS
            or not writer.corked
            or writer.paused
            or writer.due
            or writer.response is not None
        ):
            return False
        if size is None:
            self.set_length(len(body))
        self._left = 0
        self.lines.append(self.length_line)
        self._takes_fields = False
        self.headers_sent = self.head_is_due = self.ended = writer.due = True
        writer.response = self
        if body:
            writer.parts.append(body)
        return True

    def send_headers(self) -> None:
        """Fix the headers and the framing of the body.

        Raises:
            ValueError: the status is not 100 to 999, or not an `int`.
            ResponseError: called twice, another response to this request was sent already, or the request for which
                this response was made is over.
            ClientDisconnectedError: the client is gone, or the connection was closed.
        """
        writer = self._writer
        if self.headers_sent or writer.response is not None:
            raise ResponseError("there is one response to a request, and its headers have been sent")
        exchange = self.exchange
        if exchange is None or exchange is not writer.exchange or exchange.carrier.state is not _ACTIVE:
            self._refuse_to_send(exchange)
        request = exchange.request
        if writer.due:
            writer.flush()  # an interim response, which comes before this head
        if self.status is not self.sent_status:
            self._take_status()
        if self._plain and self.content_length is not None and request is not None and request.method != "HEAD":
            # The usual case, flat; the rules are in _choose_framing().
            self._left = self.content_length
            self.lines.append(self.length_line)
        else:
            self._prepare_unusual(request)
        self.headers_sent = True
        self._takes_fields = False
        if self.ended:  # an interim response
            return
        self.head_is_due = writer.due = True
        writer.response = self
        if not writer.corked:
            writer.flush_soon()

    def _refuse_to_send(self, exchange: Exchange | None) -> NoReturn:
        if self._writer.is_lost:
            raise ClientDisconnectedError("the client is gone")
        if exchange is not None and exchange is self._writer.exchange and exchange.carrier.state is _CLOSING:
            raise ClientDisconnectedError("the connection is closed")
        raise ResponseError("a response is sent during the request that it was made for, and at no other time")

    def _prepare_unusual(self, request: RequestMessage | None) -> None:
        if self._own_headers is not None:
            self._take_own_headers()
        if self._filters is not None:
            self._announce_filters()
        self._choose_framing(request)

    def _announce_filters(self) -> None:
        for body_filter in self._filters or ():
            if isinstance(body_filter, Compressor):
                self.content_length = None  # of the handler's bytes, not of what is sent
                if not any(line[:17].lower() == b"content-encoding:" for line in self.lines):
                    self.lines.append(field_line("Content-Encoding", body_filter.encoding))

    def _choose_framing(self, request: RequestMessage | None) -> None:
        """Decide how the client finds the end of the body (RFC 9112 section 6.3)."""
        status = self.sent_status
        if status < 200 or status == 204:
            self._have_no_body()
            self.content_length = None
            self._chunked = False
            if status < 200 and status != 101:
                self.ended = True
                if request is None or request.version >= HttpVersion11:  # 1.0 knows none (RFC 9110 section 15.2)
                    self._writer.write(b"".join([self._first_line, *self.lines, b"\r\n"]))
            return
        if status in BODILESS or (request is not None and request.method == "HEAD"):
            self._have_no_body()
        if status == 205:  # the one that has no body and says so (RFC 9110 section 15.3.6)
            self._chunked = False
            self.content_length, self.length_line = 0, length_line(0)
        if self._version < HttpVersion11 or (request is not None and request.version < HttpVersion11):
            self._chunked = False
            if self.content_length is None and not self._no_body:
                self._close = True
        elif self.content_length is None and status != 304 and self._writer.chunks:
            self._chunk()
        if self._chunked and status != 304:
            self.content_length = None
            self.lines.append(b"Transfer-Encoding: chunked\r\n")
        elif self.content_length is not None:
            self.lines.append(self.length_line)
            self._left = self.content_length

    def _have_no_body(self) -> None:
        self._no_body = True
        self._plain = False

    def write(self, chunk: bytes) -> None:
        """Write a part of the body.

        Raises:
            ResponseError: before `send_headers()`, after `write_eof()`, or more than Content-Length.
            ClientDisconnectedError: the client is gone.
        """
        if chunk.__class__ is not bytes:
            chunk = _as_bytes(chunk)
        if not self.headers_sent or self.ended:
            raise ResponseError("write() is for after send_headers() and before write_eof()")
        left = self._left
        if left is not None and self._plain:
            # The usual case, flat; the rules are in _emit().
            left -= len(chunk)
            if left >= 0:
                self._left = left
                writer = self._writer
                if writer.corked:
                    writer.parts.append(chunk)
                    writer.due = True
                else:
                    writer.write(chunk)
                return
        if self._filters is not None:
            for part in self._filtered(lambda body_filter, data: body_filter.feed(data), chunk):
                self._emit(part)
        else:
            self._emit(chunk)

    def _filtered(
        self, step: Callable[[Compressor | Rechunker, bytes], Iterator[bytes]], chunk: bytes, start: int = 0
    ) -> Iterator[bytes]:
        """Send a part through the filters from number `start` on."""
        parts = [chunk]
        for body_filter in (self._filters or ())[start:]:
            parts = [out for part in parts for out in step(body_filter, part)]
        return iter(parts)

    def _emit(self, data: bytes) -> None:
        """Frame a part of the body and hand it on."""
        if not data or self._no_body:
            return
        size = len(data)
        left = self._left
        if left is not None:
            if size > left:
                self._writer.write(data[:left])
                self._left = 0
                self.fail()
                raise ResponseError(f"more than the {self.content_length} bytes of Content-Length were written")
            self._left = left - size
        self._unframed += size
        if not self._chunked:
            self._writer.write(data)
        elif size < _JOIN_CHUNK_BELOW:
            self._writer.write(b"%x\r\n%b\r\n" % (size, data))
        else:
            self._writer.write(b"%x\r\n" % size)
            self._writer.write(data)
            self._writer.write(b"\r\n")

    def drain(self) -> Awaitable[None]:
        """Wait while the client has too much to read.

        Raises:
            ClientDisconnectedError: the client is gone.
        """
        return self._writer.drain()

    def write_eof(self) -> Awaitable[None]:
        """End the response; the returned awaitable waits like `drain()`.

        Raises:
            ResponseError: before `send_headers()`, or less than Content-Length was written.
        """
        writer = self._writer
        if self._left == 0 and self._plain:
            self.ended = True
        elif not self.ended:
            self._finish()
        exchange = self.exchange
        if exchange is not None and not writer.paused and (writer.corked or exchange.keep_alive is None):
            return DONE  # kept back for this turn: the handler has a say in the head until it returns or waits
        return writer.drain()

    def end(self, trailers: bytes = b"") -> None:
        """End the response, without waiting for the client.

        Args:
            trailers: lines of fields behind the body; without chunks there is no place for them.

        Raises:
            ResponseError: before `send_headers()`, or less than Content-Length was written.
        """
        if not self.ended:
            self._finish(trailers)

    def _finish(self, trailers: bytes = b"") -> None:
        if not self.headers_sent:
            raise ResponseError("write_eof() is for after send_headers()")
        for number, body_filter in enumerate(self._filters or ()):
            for part in body_filter.finish():
                for out in self._filtered(lambda later, data: later.feed(data), part, number + 1):
                    self._emit(out)
        if self._left and not self._no_body:
            self.fail()
            raise ResponseError(f"{self._left} of the {self.content_length} bytes of Content-Length were not written")
        self.ended = True
        if self._chunked and not self._no_body:
            self._writer.write(b"0\r\n" + trailers + b"\r\n")

    def body_left(self) -> int | None:
        """Bytes of Content-Length that have not been written; None: there is no Content-Length."""
        return self._left

    def takes_body(self) -> bool:
        """Whether body bytes are sent at all: not after HEAD, with 204, 205 or 304; known once the headers are sent."""
        return not self._no_body

    def count_sent(self, size: int) -> None:
        """Account for bytes of a body with Content-Length that went to the socket without `write()`."""
        if self._left is not None:
            self._left -= size
        self._unframed += size

    @property
    def output_length(self) -> int:
        """Bytes of the body written, behind a compression filter, without the framing of chunks."""
        if self._left is not None and self.content_length is not None:
            return self.content_length - self._left if not self._no_body else 0
        return self._unframed

    @property
    def is_complete(self) -> bool:
        """Whether the client can tell that it has all of the response."""
        return self.ended or (self.headers_sent and (self._no_body or self._left == 0))

    @property
    def ends_with_connection(self) -> bool:
        """Whether the end of the connection is what ends the body (HTTP/1.0 without a length)."""
        return self.headers_sent and not self._no_body and not self._chunked and self._left is None

    def cut_short(self, unsent: int) -> None:
        """The connection is gone before the client had all of it.

        Args:
            unsent: bytes that had been written and have not gone out.
        """
        self.cut = True
        if self._left is not None and self.content_length is not None:
            self._left = min(self._left + unsent, self.content_length)
        else:
            self._unframed = max(self._unframed - unsent, 0)

    def fail(self) -> None:
        """The response will not be complete: the connection ends without a last chunk, so that the client sees it."""
        self._close = True
        self.keeps = False
        if self.exchange is not None:
            self.exchange.keep_alive = False


def _as_bytes(chunk: object) -> bytes:
    if isinstance(chunk, bytes | bytearray | memoryview):
        return bytes(chunk)  # a copy: what is kept back must not change when the handler uses its buffer again
    raise TypeError(f"a part of a body must be bytes, not {type(chunk).__name__}")
