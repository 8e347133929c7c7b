"""The head of a response: fields, status line, and the decision whether the connection stays open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multidict import CIMultiDict

from preforkd.workers.http import compiled
from preforkd.workers.http.clock import clock
from preforkd.workers.http.errors import ResponseError
from preforkd.workers.http.fields import (
    PLAIN_LINES,
    REQUEST_ID,
    check_value,
    checked_status,
    field_line,
    known_field,
    meaning_of,
    plain_text,
    remember,
    status_line,
)
from preforkd.workers.http.message import HttpVersion, HttpVersion11

if TYPE_CHECKING:
    from collections.abc import Iterable

    from preforkd.workers.http.exchange import Exchange, Wire
    from preforkd.workers.http.filters import Compressor, Rechunker


@compiled.in_both_forms
class ResponseHead:
    """What `Response` has for its head; see there.

    Attributes:
        lines: the fields set so far as they are sent, each checked, with its CR LF; without Content-Length.
        content_length: its number; None: there is none.
        length_line: its line.
        exchange: that this answers; None: there was none when it was made.

    What every response reads is set in `__init__`, and one attribute says that the rest is as the class has it: reading
    an attribute of the class through an instance costs 16 ns, of the instance 5, and there were 20 a response.
    """

    __slots__ = (
        "__dict__", "__weakref__", "_close", "_first_line", "_left", "_plain", "_takes_fields", "_version", "_writer",
        "content_length", "ended", "exchange", "head_is_due", "headers_sent", "keeps", "length_line", "lines",
        "sent_status", "status",
    )  # fmt: skip

    cut = False

    # To be looked at only where `_plain` is false.
    _reason: str | None = None
    _own_headers: CIMultiDict[str] | None = None
    _chunked = False
    _has_date = False
    _has_server = False
    _has_id = False
    _filters: list[Compressor | Rechunker] | None = None
    _no_body = False
    _unframed = 0

    def __init__(
        self,
        writer: Wire,
        status: int,
        http_version: HttpVersion = HttpVersion11,
        close: bool = False,
        reason: str | None = None,
    ) -> None:
        self._writer = writer
        self.exchange: Exchange | None = writer.exchange
        self.status = self.sent_status = status
        self._first_line = PLAIN_LINES.get(status, b"")
        self._version = http_version
        self._close = close
        self.lines: list[bytes] = []
        self.content_length: int | None = None
        self.length_line = b""
        self._left: int | None = None
        self._plain = self._takes_fields = True
        self.headers_sent = self.ended = self.head_is_due = self.keeps = False
        if not self._first_line or reason is not None or type(status) is not int:
            if reason is not None:
                self._reason = plain_text(reason, "a reason")
                check_value(self._reason)
            self._take_status()

    def _take_status(self) -> None:
        """Check the status and make the status line; other than with the usual ones."""
        before = self.sent_status
        self.status = self.sent_status = code = checked_status(self.status)
        self._first_line = status_line(code, self._reason)
        if code not in PLAIN_LINES:
            self._plain = False
        if before == 101 != code:  # it was changed, and what was taken from `Connection` is for 101 alone
            self.lines = [line for line in self.lines if line[:11].lower() != b"connection:"]

    def add_header(self, name: str, value: str) -> None:
        """Add a field.

        `Content-Length` and `Transfer-Encoding: chunked` choose the framing, `Connection: close` ends the connection.

        Raises:
            ValueError: CR, LF, NUL or another control character in it, or an invalid name or length.
            ResponseError: the headers have been sent.
        """
        if self._takes_fields:
            field = known_field((name, value))
            if field is not None:
                line, length = field
                if length is None:
                    self.lines.append(line)
                    return
                if self.content_length is None:
                    self.content_length = length
                    self.length_line = line
                    return
        self._add_new_header(name, value)

    def _add_new_header(self, name: str, value: str) -> None:
        if self.headers_sent:
            raise ResponseError("the headers have been sent already")
        if type(name) is not str or type(value) is not str:
            name = plain_text(name, "a header name")
            value = plain_text(value, "a header value")
        meaning = meaning_of(name)
        if not value.isascii() or not value.isprintable():
            check_value(value)
        if self._own_headers is not None:
            self._own_headers.add(name, value)
        elif not meaning or self._interpret(name, meaning, value):
            line = field_line(name, value)
            self.lines.append(line)
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
            if self.content_length is not None and self.content_length != length:
                raise ValueError("Content-Length was set to another value already")
            self.content_length = length
            self.length_line = length_line(length)
            remember(name, value, self.length_line, length)
            return False  # written by send_headers(), which knows whether it applies
        if meaning == "transfer-encoding":
            if value.strip().lower() != "chunked":
                raise ValueError("the only transfer coding is chunked")
            self._chunk()
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
            self._plain = False
        elif meaning == "server":
            self._has_server = True
            self._plain = False
        elif meaning == REQUEST_ID:
            self._has_id = True
            self._plain = False
        return True

    def replace_reason(self, reason: str) -> None:
        """Have another phrase behind the status, which was checked."""
        self._reason = reason
        self._first_line = status_line(self.sent_status, reason)

    def has_own(self, *, date: bool = False, server: bool = False, request_id: bool = False) -> None:
        """Some of `lines` are fields that are added to every other head."""
        self._plain = False
        self._has_date |= date
        self._has_server |= server
        self._has_id |= request_id

    def set_length(self, length: int) -> None:
        """Say how long the body is, when it is known before the head goes out; for a head that does not say it."""
        self.content_length = length
        self.length_line = length_line(length)

    def _chunk(self) -> None:
        self._chunked = True
        self._plain = False

    @property
    def headers(self) -> CIMultiDict[str]:
        """The fields set so far, without the default ones; may be changed until they are sent."""
        if self._own_headers is None:
            headers = self._copy_headers()
            if self.headers_sent:
                return headers
            self._own_headers = headers
            self._plain = self._takes_fields = False
        return self._own_headers

    def _copy_headers(self) -> CIMultiDict[str]:
        pairs = [line[:-2].decode("utf-8", "surrogateescape").split(": ", 1) for line in self.lines]
        headers = CIMultiDict((name, value) for name, value in pairs)
        if self.content_length is not None:
            headers["Content-Length"] = str(self.content_length)
        if self._chunked:
            headers["Transfer-Encoding"] = "chunked"
        return headers

    def _take_own_headers(self) -> None:
        """The multidict was handed out and may have been changed: read it back, with the same checks."""
        headers, self._own_headers = self._own_headers, None
        self._takes_fields = True
        self.lines.clear()
        self.content_length = None
        self._chunked = self._has_date = self._has_server = self._has_id = False
        for name, value in (headers or {}).items():
            self.add_header(name, value)

    def force_close(self) -> None:
        """End the connection after this response."""
        self._close = True

    def keep_alive(self) -> bool:
        """Whether the connection may stay open after this response; `self.keep_alive(True)` makes it so."""
        if self.headers_sent and not self.head_is_due:
            return self.keeps
        exchange, writer = self.exchange, self._writer
        if self._close or exchange is None or exchange is not writer.exchange:
            return False
        return writer.may_stay_open(exchange)

    def render(self, body: Iterable[bytes]) -> bytes:
        """Make the bytes of the head and what comes behind it; here it is decided whether the connection stays open."""
        self.head_is_due = False
        exchange = self.exchange
        if exchange is None:
            keeps = self.keeps = False
            id_line = b""
        else:
            keeps = self.keeps = bool(exchange.keep_alive and not self._close and self._writer.may_stay_open(exchange))
            request = exchange.request
            id_line = request.id_line if request is not None else b""
        fields = clock.keep_alive_fields if keeps else clock.close_fields
        if not self._plain:
            if self._has_date or self._has_server or self.sent_status == 101:
                fields = self._unusual_fields(keeps)
            if self._has_id:
                id_line = b""
        return b"".join([self._first_line, *self.lines, id_line, fields, *body])

    def _unusual_fields(self, keeps: bool) -> bytes:
        """The default fields of a head that has some of them already, and the empty line."""
        date = "" if self._has_date else f"Date: {clock.date}\r\n"
        server = "" if self._has_server else clock.server_line
        if self.sent_status == 101:
            self.keeps = False  # the connection does not come back to HTTP
            return f"{date}{server}\r\n".encode()
        return f"{date}{server}Connection: {'keep-alive' if keeps else 'close'}\r\n\r\n".encode()


def length_line(length: int) -> bytes:
    """Return `Content-Length` as a line of a head."""
    return b"Content-Length: %d\r\n" % length
