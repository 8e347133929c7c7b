"""The response to a request: framing, filters, and a head that tells the truth."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from multidict import CIMultiDict

from preforkd.workers.http.clock import clock
from preforkd.workers.http.errors import ResponseError
from preforkd.workers.http.fields import (
    PHRASES,
    STATUS_LINES,
    check_status,
    check_value,
    known_field,
    meaning_of,
    remember,
)
from preforkd.workers.http.filters import Compressor, Rechunker
from preforkd.workers.http.message import HttpVersion, HttpVersion11
from preforkd.workers.http.writer import DONE

if TYPE_CHECKING:
    from preforkd.workers.http.message import RequestMessage
    from preforkd.workers.http.writer import ResponseWriter


class Response:
    """One response to the current request of a connection (the seed's contract).

    The head is written together with the first bytes of the body, at the latest when the handler waits for something.

    Args:
        writer: the handler's `self.writer`.
        status: the status code, 100 to 999.
        http_version: `message.version`; the status line says HTTP/1.1 always (RFC 9110 section 2.5).
        close: the connection ends after this response.
        reason: the phrase behind the status; None: the standard one.

    Attributes:
        status: the status code.
        headers_sent: `send_headers()` was called.
        head_is_due: the head has been fixed, but not been written yet.
        keeps: the head has told the client that the connection stays open.
        ended: `write_eof()` was called.
    """

    # What most responses do not need are class attributes until they do: making one costs 0.3 us instead of 0.8.
    headers_sent = False
    head_is_due = False
    _unframed = 0
    _own_headers: CIMultiDict[str] | None = None
    _length: int | None = None
    _length_line = ""
    _left: int | None = None
    _chunked = False
    _has_date = False
    _has_server = False
    _filters: list[Compressor | Rechunker] | None = None
    _no_body = False
    ended = False
    keeps = False

    def __init__(
        self,
        writer: ResponseWriter,
        status: int,
        http_version: HttpVersion = HttpVersion11,
        close: bool = False,
        reason: str | None = None,
    ) -> None:
        if status not in STATUS_LINES or reason is not None:
            check_status(status, reason)
        self._writer = writer
        self.status = status
        self._version = http_version
        self._close = close
        self._reason = reason
        self._lines: list[str] = []

    # Headers.

    def add_header(self, name: str, value: str) -> None:
        """Add a field.

        `Content-Length` and `Transfer-Encoding: chunked` choose the framing, `Connection: close` ends the connection.

        Raises:
            ValueError: CR, LF, NUL or another control character in it, or an invalid name or length.
            ResponseError: the headers have been sent.
        """
        if self.headers_sent:
            raise ResponseError("the headers have been sent already")
        if self._own_headers is None:
            field = known_field((name, value))
            if field is not None:
                if field[1] is None:
                    self._lines.append(field[0])
                    return
                if self._length is None:
                    self._length = field[1]
                    self._length_line = field[0]
                    return
        self._add_new_header(name, value)

    def _add_new_header(self, name: str, value: str) -> None:
        meaning = meaning_of(name)
        if value.__class__ is not str or not value.isascii() or not value.isprintable():
            check_value(value)
        if self._own_headers is not None:
            self._own_headers.add(name, value)
        elif not meaning or self._interpret(name, meaning, value):
            line = f"{name}: {value}\r\n"
            self._lines.append(line)
            remember(name, value, line)

    def add_headers(self, *pairs: tuple[str, str]) -> None:
        """Add several fields, given as pairs of name and value."""
        for name, value in pairs:
            self.add_header(name, value)

    def _interpret(self, name: str, meaning: str, value: str) -> bool:
        """Act on a field that has a meaning here; true when its line is sent as it is."""
        if meaning == "content-length":
            if not (value.isascii() and value.isdigit()):
                raise ValueError(f"invalid Content-Length: {value!r}")
            length = int(value)
            if self._length is not None and self._length != length:
                raise ValueError("Content-Length was set to another value already")
            self._length = length
            self._length_line = f"Content-Length: {value}\r\n"
            remember(name, value, self._length_line, length)
            return False  # written by send_headers(), which knows whether it applies
        if meaning == "transfer-encoding":
            if value.strip().lower() != "chunked":
                raise ValueError("the only transfer coding is chunked")
            self._chunked = True
            return False
        if meaning == "connection":
            options = [option.strip().lower() for option in value.split(",")]
            if "close" in options:
                self._close = True
            return "upgrade" in options and self.status == 101
        if meaning == "keep-alive":
            return False
        if meaning == "date":
            self._has_date = True
        elif meaning == "server":
            self._has_server = True
        return True

    @property
    def headers(self) -> CIMultiDict[str]:
        """The fields set so far, without the default ones; may be changed until they are sent."""
        if self._own_headers is None:
            pairs = [line[:-2].split(": ", 1) for line in self._lines]
            headers = CIMultiDict((name, value) for name, value in pairs)
            if self._length is not None:
                headers["Content-Length"] = str(self._length)
            if self._chunked:
                headers["Transfer-Encoding"] = "chunked"
            if self.headers_sent:
                return headers
            self._own_headers = headers
        return self._own_headers

    def _take_own_headers(self) -> None:
        """The multidict was handed out and may have been changed: read it back, with the same checks."""
        headers, self._own_headers = self._own_headers, None
        self._lines.clear()
        self._length = None
        self._chunked = self._has_date = self._has_server = False
        for name, value in (headers or {}).items():
            self.add_header(name, value)

    def force_close(self) -> None:
        """End the connection after this response."""
        self._close = True

    def keep_alive(self) -> bool:
        """Whether the connection may stay open after this response; `self.keep_alive(True)` makes it so."""
        if self.headers_sent and not self.head_is_due:
            return self.keeps
        return not self._close and self._writer.connection.may_keep_alive()

    # Body.

    def enable_chunked_encoding(self) -> None:
        """Send the body in the chunked transfer coding (HTTP/1.1; towards 1.0 the end of the connection ends it)."""
        if self.headers_sent:
            raise ResponseError("the headers have been sent already")
        self._chunked = True

    def add_compression_filter(self, encoding: str = "deflate") -> None:
        """Compress the body; says so in `Content-Encoding` if the handler does not.

        Raises:
            ValueError: `encoding` is neither 'deflate' nor 'gzip'.
        """
        self._add_filter(Compressor(encoding))

    def add_chunking_filter(self, size: int = 16384) -> None:
        """Write the body in parts of `size` bytes, whatever the sizes of the writes are."""
        self._add_filter(Rechunker(size))

    def _add_filter(self, body_filter: Compressor | Rechunker) -> None:
        if self.headers_sent:
            raise ResponseError("the headers have been sent already")
        if self._filters is None:
            self._filters = []
        self._filters.append(body_filter)

    def send_headers(self) -> None:
        """Fix the headers and the framing of the body.

        Raises:
            ResponseError: called twice, or another response to this request was sent already.
            ClientDisconnectedError: the client is gone.
        """
        writer = self._writer
        if self.headers_sent or writer.response is not None:
            raise ResponseError("there is one response to a request, and its headers have been sent")
        if self._own_headers is not None:
            self._take_own_headers()
        if self._filters is not None:
            self._announce_filters()
        request = writer.connection.request
        length = self._length
        if (
            length is not None
            and not self._chunked
            and request is not None
            and request.method == "GET"
            and self.status >= 200
        ):
            # The usual case, flat; the rules are in _choose_framing().
            if self.status == 204 or self.status == 304:
                self._choose_framing(request)
            else:
                self._left = length
                self._lines.append(self._length_line)
        else:
            self._choose_framing(request)
        self.headers_sent = True
        if self.ended:  # an interim response
            return
        self.head_is_due = writer.due = True
        writer.response = self
        if not writer.flushed_by_caller:
            writer.flush_soon()

    def _announce_filters(self) -> None:
        for body_filter in self._filters or ():
            if isinstance(body_filter, Compressor):
                self._length = None  # of the handler's bytes, not of what is sent
                if not any(line[:17].lower() == "content-encoding:" for line in self._lines):
                    self._lines.append(f"Content-Encoding: {body_filter.encoding}\r\n")

    def _choose_framing(self, request: RequestMessage | None) -> None:
        """Decide how the client finds the end of the body (RFC 9112 section 6.3)."""
        status = self.status
        if status < 200 or status == 204:
            self._no_body = True
            self._length = None
            self._chunked = False
            if status < 200 and status != 101:
                self.ended = True
                self._writer.write(f"{self._head()}\r\n".encode())
            return
        if status == 304 or (request is not None and request.method == "HEAD"):
            self._no_body = True
        if self._version < HttpVersion11 or (request is not None and request.version < HttpVersion11):
            self._chunked = False
            if self._length is None and not self._no_body:
                self._close = True
        elif self._length is None and status != 304:
            self._chunked = True
        if self._chunked and status != 304:
            self._length = None
            self._lines.append("Transfer-Encoding: chunked\r\n")
        elif self._length is not None:
            self._lines.append(self._length_line)
            self._left = self._length

    def render_head(self) -> bytes:
        """Make the head's bytes; here it is decided whether the connection stays open."""
        self.head_is_due = False
        connection = self._writer.connection
        keeps = self.keeps = bool(connection.keep_alive_wish) and not self._close and connection.may_keep_alive()
        if self._reason is not None or self._has_date or self._has_server or self.status == 101:
            return self._render_unusual(keeps)
        fields = clock.keep_alive_fields if keeps else clock.close_fields
        return f"{STATUS_LINES.get(self.status) or self._status_line()}{''.join(self._lines)}{fields}".encode()

    def _status_line(self) -> str:
        reason = self._reason if self._reason is not None else PHRASES.get(self.status, "")
        return f"HTTP/1.1 {self.status} {reason}\r\n"

    def _head(self) -> str:
        """The status line and the fields, without the default ones and the empty line."""
        return self._status_line() + "".join(self._lines)

    def _render_unusual(self, keeps: bool) -> bytes:
        date = "" if self._has_date else f"Date: {clock.date}\r\n"
        server = "" if self._has_server else "Server: preforkd\r\n"
        if self.status == 101:
            self.keeps = False  # the connection does not come back to HTTP
            connection = ""
        else:
            connection = f"Connection: {'keep-alive' if keeps else 'close'}\r\n"
        return f"{self._head()}{date}{server}{connection}\r\n".encode()

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
        if left is not None and self._filters is None and not self._no_body:
            # The usual case, flat; the rules are in _emit().
            left -= len(chunk)
            if left >= 0:
                self._left = left
                writer = self._writer
                if writer.flushed_by_caller:
                    writer.parts.append(chunk)
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
                raise ResponseError(f"more than the {self._length} bytes of Content-Length were written")
            self._left = left - size
        self._unframed += size
        if self._chunked:
            self._writer.write(b"%x\r\n" % size)
            self._writer.write(data)
            self._writer.write(b"\r\n")
        else:
            self._writer.write(data)

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
        if self._left == 0 and self._filters is None and self.headers_sent:
            self.ended = True
        elif not self.ended:
            self._finish()
        if (writer.flushed_by_caller or writer.connection.keep_alive_wish is None) and not writer.paused:
            return DONE  # kept back for this turn: the handler has a say in the head until it returns or waits
        return writer.drain()

    def _finish(self) -> None:
        if not self.headers_sent:
            raise ResponseError("write_eof() is for after send_headers()")
        for number, body_filter in enumerate(self._filters or ()):
            for part in body_filter.finish():
                for out in self._filtered(lambda later, data: later.feed(data), part, number + 1):
                    self._emit(out)
        if self._left and not self._no_body:
            self.fail()
            raise ResponseError(f"{self._left} of the {self._length} bytes of Content-Length were not written")
        self.ended = True
        if self._chunked and not self._no_body:
            self._writer.write(b"0\r\n\r\n")

    @property
    def output_length(self) -> int:
        """Bytes of the body written, behind a compression filter, without the framing of chunks."""
        if self._left is not None and self._length is not None:
            return self._length - self._left if not self._no_body else 0
        return self._unframed

    @property
    def is_complete(self) -> bool:
        """Whether the client can tell that it has all of the response."""
        return self.ended or (self.headers_sent and (self._no_body or self._left == 0))

    def fail(self) -> None:
        """The response will not be complete: the connection ends without a last chunk, so that the client sees it."""
        self._close = True
        self.keeps = False
        self._writer.connection.keep_alive_wish = False


def _as_bytes(chunk: object) -> bytes:
    if isinstance(chunk, bytes | bytearray | memoryview):
        return bytes(chunk)  # a copy: what is kept back must not change when the handler uses its buffer again
    raise TypeError(f"a part of a body must be bytes, not {type(chunk).__name__}")
