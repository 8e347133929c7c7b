"""Requests from bytes: llhttp through httptools, fed in portions that end where a message can end.

llhttp has no pause: one call delivers every request in its input, and an error does not say where it is. So it never
gets bytes of two messages in one call. The end of a head, and of a chunked body, is always CR LF CR LF: the input is
cut behind each of these; a body of known length is cut at its length. So a head is measured to the byte, nothing of a
second request is parsed before the first has been answered (a pipeline is bounded by the read buffer), bytes behind a
request that closes are never looked at, and a refused request is known by its own bytes.

No socket, clock or loop: bytes in, messages and body parts out.
"""

from __future__ import annotations

from types import SimpleNamespace

from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser

from preforkd.workers.http import rules
from preforkd.workers.http.errors import BadRequestError
from preforkd.workers.http.limits import Limits
from preforkd.workers.http.message import HttpVersion11, RequestMessage
from preforkd.workers.http.remembered import HEAD_SIZE_MAX, Head, head_of, known_head, remember_block

_END = b"\r\n\r\n"
CHUNK_OVERHEAD_MAX = 16384  # bytes of chunk framing that any body may have; more only in proportion to its size
_READ_MAX = 262144  # what a transport delivers at once (uvloop's buffer)
_METHODS: dict[bytes, str] = {}

# The fields that have a meaning here, by the spellings that clients use; other spellings go through lower().
# One lookup per field: 0.03 us instead of 0.07.
_MEANT = frozenset(
    b"host connection proxy-connection content-length transfer-encoding expect upgrade content-encoding"
    b" sec-websocket-key sec-websocket-version".split()
)
_SPELLED: dict[bytes, bytes | None] = {}
_SPELLED_MAX = 1024
_HTTP_1_1 = b" HTTP/1.1\r\n"
# The usual values of Connection, and whether they end it (in HTTP/1.1).
_PLAIN_CONNECTIONS = {None: False, b"keep-alive": False, b"Keep-Alive": False, b"close": True, b"Close": True}
_GOOD_HOSTS: set[bytes] = set()  # values that were checked
_GOOD_HOSTS_MAX = 512
_MISSES_MAX = 8  # after so many heads in a row that were not remembered only each eighth is looked for (1 us each)


def _spelling(name: bytes) -> bytes | None:
    """Look at a name in a spelling not seen before: its lower case if it means something here, else None."""
    lower = name.lower()
    meant = lower if lower in _MEANT else None
    if len(_SPELLED) < _SPELLED_MAX:  # a client chooses the names: never grow without a bound
        _SPELLED[name] = meant
    return meant


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
        last_data, last_head: the last input that was a remembered head, and what it says (`remembered.py`). While no
            other head has begun, the same input says the same.
    """

    __slots__ = (
        "_blank_lines", "_headers", "_http", "_incomplete", "_is_counted", "_judging", "_last", "_left", "_limits",
        "_memo_max", "_misses", "_overhead", "_plain_fields_max", "_target", "_trailing", "body", "body_received",
        "consumed", "in_body", "last_data", "last_head", "partial",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # A remembered block was within the limits of the connection that it came by; these are ours.
        self._plain_fields_max = limits.limit_headers or 1 << 30
        sizes = (size for size in (limits.limit_header_size, limits.limit_request_line, HEAD_SIZE_MAX) if size)
        self._memo_max = min(sizes)
        self._target: list[bytes] = []
        self._headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self._incomplete = [True]
        self.partial: bytearray | None = None
        self.last_data = b""
        self.last_head: Head
        self._misses = 0
        self.consumed = 0
        self.in_body = self._is_counted = False
        self._judging = False
        self._blank_lines = 0
        self._http = self._new_parser()
        self._left = self.body_received = self._overhead = self._trailing = 0
        self._last = b""

    def _new_parser(self) -> HttpRequestParser:
        # Methods of C objects where they do the work: a call without a Python frame costs a third. The list
        # `_incomplete` is a flag that way: on_message_complete empties it. on_headers_complete is not needed: the input
        # ends there.
        append = self._headers.append
        return HttpRequestParser(
            SimpleNamespace(
                on_url=self._target.append,
                on_header=lambda name, value: append((name, value)),
                on_body=self.body.append,
                on_message_complete=self._incomplete.clear,
            )
        )

    def feed_head(self, data: bytes) -> RequestMessage | None:
        """Take bytes of a head; return the message when it is complete.

        Raises:
            BadRequestError: with the status to answer.
        """
        # Flat, down to the message: every request passes here.
        if self.partial is not None:
            return self._feed_partial(data)
        size = len(data)
        misses = self._misses
        looks = misses < _MISSES_MAX or not misses % _MISSES_MAX
        known = head_of(data) if looks and size <= self._memo_max else None
        if known is None:
            end = data.find(_END) + 4
            if end == 3 or data[0] <= 13:
                self._misses = misses + 1
                return self._feed_partial(data)
            head = data if end == size else data[:end]
            if looks and end <= self._memo_max:
                known = (head_of(head) if end != size else None) or known_head(head, self._limits)
            if known is None:
                self._misses = misses + 1
                self.consumed = end
                return self._complete(head, head)
            size = end
        method, target, fields, should_close, length, memo = known
        if len(fields) > self._plain_fields_max or (length and 0 < self._limits.limit_body < length):
            self.consumed = size
            return self._complete(data[:size], data[:size])
        self._misses = 0
        self.consumed = size
        message = RequestMessage(method, target, HttpVersion11, fields, should_close, memo)
        if length is None:
            if size == len(data):
                self.last_data = data
                self.last_head = known
        else:
            message.content_length = length
            if length:
                self._begin_body(message)
                self._is_counted = True
        return message

    def _feed_partial(self, data: bytes) -> RequestMessage | None:
        """The head does not come in one piece, or empty lines are before it."""
        head = self.partial
        if head is None:
            head = self.partial = bytearray()
            self.last_data = b""
        skipped = 0
        if not head:
            # RFC 9112 section 2.2: a server should ignore at least one empty line before a request line.
            while skipped < len(data) and data[skipped] in b"\r\n":
                self._blank_lines += 1
                if self._blank_lines > 2 or data[skipped] != b"\r\n"[self._blank_lines - 1]:
                    raise BadRequestError("Invalid bytes before the request line")
                skipped += 1
            if skipped < len(data) and self._blank_lines == 1:
                raise BadRequestError("Invalid bytes before the request line")
        before = len(head)
        head += data[skipped:] if skipped else data
        end = head.find(_END, max(0, before - 3)) + 4
        limits = self._limits
        if end == 3:
            self.consumed = len(data)
            self._check_partial(head)
            if len(head) > before:
                self._feed(bytes(head[before:]))
            return None
        del head[end:]
        self.consumed = skipped + end - before
        if self._judging or limits.limit_request_line < end or limits.limit_header_size < end:
            self._check_partial(head)
        message = self._complete(bytes(head[before:]), bytes(head))
        self.partial = None
        return message

    def _check_partial(self, head: bytearray) -> None:
        limits = self._limits
        if self._judging:
            self._judge_method(bytes(head))
        line = head.find(b"\r\n", 0, limits.limit_request_line + 2)
        size = line if line >= 0 else len(head) - 1  # its CR may be there without the LF
        if 0 < limits.limit_request_line < size:
            raise BadRequestError("Request line too long", code=414)
        if 0 < limits.limit_header_size < len(head):
            raise BadRequestError("Request header fields too large", code=431)

    def _feed(self, data: bytes) -> None:
        """Give bytes of a head to the parser; its complaints become ours."""
        if self._judging:
            return
        try:
            self._http.feed_data(data)
        except HttpParserUpgrade:
            pass
        except HttpParserInvalidMethodError:
            self._judging = True
            self._judge_method(bytes(self.partial or data))
        except HttpParserError:
            raise rules.fault_of_head(bytes(self.partial or data), self._headers) from None

    def _judge_method(self, head: bytes) -> None:
        """Refuse an unknown method as soon as there is enough of it to say how."""
        fault = rules.fault_of_method(head)
        if fault is not None:
            raise fault

    def _complete(self, data: bytes, head: bytes) -> RequestMessage:  # noqa: C901 -- flat, see below
        """Feed the last portion of a head and make the message. Flat: every request passes here (0.3 us in calls)."""
        limits = self._limits
        upgrade = False
        size = len(head)
        if size > limits.limit_request_line > 0 or size > limits.limit_header_size > 0:
            self._check_partial(bytearray(head))
        try:
            self._http.feed_data(data)
        except HttpParserUpgrade:
            upgrade = True
        except HttpParserInvalidMethodError:
            raise rules.fault_of_method(head) or BadRequestError("Invalid method") from None
        except HttpParserError:
            raise rules.fault_of_head(head, self._headers) from None
        self._blank_lines = 0

        target = self._target[0] if len(self._target) == 1 else b"".join(self._target)
        self._target.clear()
        method = self._http.get_method()
        path = target.decode("latin-1")
        # The line as it must be, to the letter; everything else takes the slow way and is mostly refused there.
        if head.startswith(_HTTP_1_1, len(method) + len(target) + 1):
            version = HttpVersion11
            should_close = False
        else:
            version = rules.check_request_line(head, method, target)
            should_close = version < HttpVersion11

        raw_headers = tuple(self._headers)
        self._headers.clear()
        if len(raw_headers) > limits.limit_headers > 0:
            raise BadRequestError("Too many header fields", code=431)
        host = connection = length = None
        is_plain = not upgrade
        spelled = _SPELLED.get
        for name, value in raw_headers:
            lower = spelled(name, b"")
            if lower is None:  # most
                continue
            if lower or (lower := _spelling(name)):
                if lower == b"host" and host is None:
                    host = value.strip(b" \t")
                elif lower == b"connection" and connection is None:
                    connection = value.strip(b" \t")
                elif lower == b"content-length" and length is None:
                    length = value.strip(b" \t")
                else:
                    is_plain = False
        message = RequestMessage(
            _METHODS.get(method) or _METHODS.setdefault(method, method.decode("ascii")), path, version, raw_headers,
            should_close,
        )  # fmt: skip
        try:
            if (
                is_plain
                and host in _GOOD_HOSTS
                and connection in _PLAIN_CONNECTIONS
                and version is HttpVersion11
                and path[:1] == "/"
                and path.isascii()
                and path.isprintable()
                and "#" not in path
            ):
                # What _interpret() would find, in a third of the time.
                should_close = message.should_close = _PLAIN_CONNECTIONS[connection]
                if length is not None:
                    self._announce_length(message, [length])
                if self._misses < _MISSES_MAX or self._misses % _MISSES_MAX == 1:
                    remember_block(head, raw_headers, should_close, message.content_length)
                if not self._incomplete and not message.content_length:
                    self._incomplete.append(True)
                    return message
            else:
                self._interpret(message, method, target, upgrade)
        except BadRequestError as exc:
            exc.request = message
            raise
        if self._incomplete:
            self._begin_body(message)
        else:
            self._incomplete.append(True)
            if message.content_length or message.chunked:
                self._skipped_body(message)
        return message

    def _begin_body(self, message: RequestMessage) -> None:
        if message.content_length is None and not message.chunked:
            raise BadRequestError("Invalid request")  # impossible: the parser saw a body where we saw none
        self.in_body = True
        self._is_counted = False
        self.body_received = self._overhead = self._trailing = 0
        self._last = b""
        self._left = -1 if message.chunked else message.content_length or 0

    def _interpret(self, message: RequestMessage, method: bytes, target: bytes, upgrade: bool) -> None:
        """Keep the rules for the target, and for the fields that have a meaning."""
        fields: dict[bytes, list[bytes]] = {}
        for name, value in message.raw_headers:
            lower = name.lower()
            if lower in _MEANT:
                fields.setdefault(lower, []).append(value.strip(b" \t"))
        self._check_target(message, method, target, fields)
        version = message.version
        connections = fields.get(b"connection")
        if connections is not None:
            tokens = [token for value in connections for token in rules.tokens(value)]
            if b"close" in tokens:
                message.should_close = True
            elif message.should_close and b"keep-alive" in tokens:
                message.should_close = False
        lengths = fields.get(b"content-length")
        codings = fields.get(b"transfer-encoding")
        if codings:
            rules.check_transfer_encoding(codings, version, lengths is not None)
            message.chunked = True
            # RFC 9112 section 6.1: an intermediary that saw another length has its say ended here.
        if lengths:
            self._announce_length(message, lengths)
        self._describe_body(message, fields)
        if upgrade:
            message.upgrade = rules.is_websocket_handshake(method, version, fields)
        if b"proxy-connection" in fields:
            # No field of HTTP, but llhttp takes it for `Connection`, and with `close` refuses what follows.
            self._renew(message)

    def _announce_length(self, message: RequestMessage, lengths: list[bytes]) -> None:
        message.content_length = rules.content_length(lengths)
        if 0 < self._limits.limit_body < message.content_length:
            raise BadRequestError("Request body too large", code=413)

    def _check_target(
        self, message: RequestMessage, method: bytes, target: bytes, fields: dict[bytes, list[bytes]]
    ) -> None:
        """Keep the rules for the target and for Host."""
        authority = rules.authority_of(target, method) if method != b"CONNECT" else None
        hosts = fields.get(b"host", [])
        rules.check_host(hosts, message.version)
        if method == b"CONNECT":
            raise BadRequestError("CONNECT is not implemented", code=501)
        if authority is not None:
            others = [(name, value) for name, value in message.raw_headers if name.lower() != b"host"]
            message.raw_headers = ((b"Host", authority), *others)
        if hosts:
            if len(_GOOD_HOSTS) >= _GOOD_HOSTS_MAX:
                _GOOD_HOSTS.clear()
            _GOOD_HOSTS.add(hosts[0])

    def _describe_body(self, message: RequestMessage, fields: dict[bytes, list[bytes]]) -> None:
        body = message.chunked or bool(message.content_length)
        for value in fields.get(b"expect", ()):
            if not value:
                continue  # as if it were not there: an empty list of expectations (RFC 9110 section 10.1.1)
            if value.lower() != b"100-continue":
                raise BadRequestError("Unknown expectation", code=417)
            message.expect_continue = body and message.version >= HttpVersion11
        coding = fields.get(b"content-encoding")
        if coding and len(coding) == 1 and body:  # several: applied one after the other, and left to the handler
            message.compression = {b"gzip": "gzip", b"x-gzip": "gzip", b"deflate": "deflate"}.get(coding[0].lower())

    def _skipped_body(self, message: RequestMessage) -> None:
        """With `Connection: upgrade` the parser skips the body: what follows would be parsed as the next request."""
        self._renew(message)
        self._begin_body(message)

    def _renew(self, message: RequestMessage) -> None:
        """Go on with a fresh parser; for a body it is primed with a head that says nothing but the length."""
        self._http = self._new_parser()
        if not (message.chunked or message.content_length):
            return
        length = (
            b"Transfer-Encoding: chunked" if message.chunked else b"Content-Length: %d" % (message.content_length or 0)
        )
        self._http.feed_data(b"POST / HTTP/1.1\r\n" + length + _END)
        self._target.clear()
        self._headers.clear()

    def body_left(self) -> int | None:
        """Bytes of the current body that have not come yet; None: only its end will tell."""
        return self._left if self._left >= 0 else None

    def whole_body(self, data: bytes) -> bytes | None:
        """Take the body of a remembered head out of the input of that head, if all of it is there."""
        start = self.consumed
        end = start + self._left
        if not self._is_counted or end > len(data):
            return None
        self.in_body = False
        self.consumed = end
        self.body_received = self._left
        self._left = 0
        return data[start:end]

    def feed_body(self, data: bytes) -> None:
        """Take bytes of a body: parts go to `body`, `in_body` becomes false at its end.

        Raises:
            BadRequestError: 400 for invalid chunks, 413 past the limit.
        """
        left = self._left
        if left < 0:
            self._feed_chunked(data)
            return
        if len(data) > left:
            data = data[:left]
        size = self.consumed = len(data)
        self.body_received += size
        self._left = left = left - size
        if self._is_counted:
            self.body.append(data)
            self.in_body = left > 0
            return
        self._http.feed_data(data)
        if not self._incomplete:
            self._incomplete.append(True)
            self.in_body = False

    def _feed_chunked(self, data: bytes) -> None:
        position = 0
        size = len(data)
        body = self.body
        while position < size and self.in_body:
            end = self._chunked_portion(data, position)
            part = data[position:end]
            parts = len(body)
            try:
                self._http.feed_data(part)
            except HttpParserError:
                raise BadRequestError("Invalid chunked body") from None
            position = end
            self._last = part[-3:] if len(part) >= 3 else (self._last + part)[-3:]
            received = sum(map(len, body[parts:]))
            self.body_received += received
            self._overhead += len(part) - received
            self._trailing = len(part) if received else self._trailing + len(part)
            if not self._incomplete:
                self._incomplete.append(True)
                self.in_body = False
            self._check_chunked()
        self.consumed = position

    def _chunked_portion(self, data: bytes, position: int) -> int:
        """Return where the next portion ends: behind CR LF CR LF, also when that is divided between two reads.

        No portion is longer than what a transport delivers at once: bytes that were kept, or come through TLS, may be.
        """
        if position == 0 and self._last:
            divided = (self._last + data[:3]).find(_END)
            if divided >= 0:
                return divided + 4 - len(self._last)
        most = min(position + _READ_MAX, len(data))
        end = data.find(_END, max(position - 3, 0), most)  # the last portion may have ended within
        return end + 4 if end >= 0 else most

    def _check_chunked(self) -> None:
        """Bound what a chunked body costs besides its bytes: extensions and trailers have no limit in the parser."""
        limits = self._limits
        if 0 < limits.limit_body < self.body_received:
            raise BadRequestError("Request body too large", code=413)
        # A chunk of one byte has 5 bytes of framing; an honest sender stays far below 16.
        if self._overhead > CHUNK_OVERHEAD_MAX + 16 * self.body_received:
            raise BadRequestError("Too much chunk overhead")
        # Trailers: counted, never shown to the app (RFC 9110 section 6.5.1).
        if self._trailing > CHUNK_OVERHEAD_MAX + _READ_MAX or (self._headers and self._has_large_trailers()):
            raise BadRequestError("Trailers too large", code=431)
        if not self.in_body:
            # llhttp takes `Connection: close` in trailers to heart: the next request gets a parser that has not seen
            # it.
            self._headers.clear()
            self._http = self._new_parser()

    def _has_large_trailers(self) -> bool:
        limits = self._limits
        size = sum(len(name) + len(value) + 4 for name, value in self._headers)
        return len(self._headers) > limits.limit_headers > 0 or size > limits.limit_header_size > 0
