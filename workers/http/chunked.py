"""The chunked transfer coding (RFC 9112 section 7.1), decoded without I/O: bytes in, parts of the body out.

Strict: a line ends with CR LF, a size is hexadecimal digits, an extension is what the grammar says, with the white
space that it has recipients take ("BWS"). What a chunked body costs besides its bytes is bounded; trailers are checked,
counted and dropped (RFC 9110 section 6.5.1).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from preforkd.workers.http.errors import BadRequestError
from preforkd.workers.http.rules import TOKEN

if TYPE_CHECKING:
    from preforkd.workers.http.limits import Limits

CHUNK_OVERHEAD_MAX = 16384  # bytes of chunk framing that any body may have; more only in proportion to its size
TRAILERS_MAX = 262144  # bytes of trailers where there is no limit for the size of a head
# A chunk of one byte has 5 bytes of framing; an honest sender stays far below this.
_OVERHEAD_PER_BYTE = 16

_TOKEN = TOKEN.pattern
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'  # RFC 9110 section 5.6.4
# No possessive quantifiers: CPython before 3.11.5 matches wrongly with them. No backtracking here is more than linear.
_SIZE_LINE = re.compile(
    rb"0*([0-9A-Fa-f]{1,16})"
    rb"(?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*"
).fullmatch
_FIELD_LINE = re.compile(_TOKEN + rb":[\t \x21-\x7e\x80-\xff]*").fullmatch
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
# They would change where the message ends, or say that it has another end than it had.
_NO_TRAILERS = (b"content-length", b"transfer-encoding")

SIZE, DATA, DATA_END, TRAILERS, COMPLETE = range(5)


class ChunkedBody:
    """The decoder of one body.

    Args:
        limits: `limit_body` for the bytes of the body, `limit_headers` and `limit_header_size` for its trailers.

    Attributes:
        state: what the next byte belongs to: SIZE, DATA, DATA_END (the CR LF behind a chunk), TRAILERS; COMPLETE: to
            what follows the body.
        received: bytes of the body so far.
    """

    __slots__ = ("_left", "_limits", "_line", "_overhead", "_trailers", "_trailing", "received", "state")

    def __init__(self, limits: Limits) -> None:
        self.state = SIZE
        self.received = 0
        self._limits = limits
        self._left = 0
        self._line = b""  # the beginning of a line whose end has not come
        self._overhead = self._trailing = self._trailers = 0

    def feed(self, data: bytes, body: list[bytes]) -> int:
        """Take bytes; parts of the body are appended to `body`.

        Returns:
            How many were taken: all, unless the body ends before.

        Raises:
            BadRequestError: 400 for what is no chunk, 413 for a body that is too large, 431 for such trailers.
        """
        position = 0
        size = len(data)
        while position < size and self.state != COMPLETE:
            if self.state == DATA:
                part = data[position : position + self._left]
                body.append(part)
                position += len(part)
                self.received += len(part)
                self._left -= len(part)
                if not self._left:
                    self.state = DATA_END
                continue
            end = data.find(b"\n", position) + 1
            line = self._line + data[position : end or size]
            self._count(self.state, (end or size) - position)
            position = end or size
            if end:
                self._line = b""
                self._take_line(line)
            else:
                self._check_start(line)
                self._line = line
        return position

    def _count(self, state: int, size: int) -> None:
        """Bound what comes besides the body, also while its line has no end."""
        limits = self._limits
        if state == TRAILERS:
            self._trailing += size
            if self._trailing > (limits.limit_header_size or TRAILERS_MAX):
                raise BadRequestError("Trailers too large", code=431)
            return
        self._overhead += size
        if self._overhead > CHUNK_OVERHEAD_MAX + _OVERHEAD_PER_BYTE * self.received:
            raise BadRequestError("Too much chunk overhead")

    def _check_start(self, line: bytes) -> None:
        """Refuse the beginning of a line that cannot become a valid one, before more of it comes."""
        text = line.removesuffix(b"\r")
        if (
            _CONTROL(text)
            or (self.state == SIZE and not text[:1].isalnum())
            or (self.state == DATA_END and text)
            or (self.state == TRAILERS and text[:1] in (b" ", b"\t"))
        ):
            raise BadRequestError("Invalid chunked body")

    def _take_line(self, line: bytes) -> None:
        if line[-2:] != b"\r\n":
            raise BadRequestError("Invalid chunked body")
        state = self.state
        if state == SIZE:
            match = _SIZE_LINE(line, 0, len(line) - 2)
            if match is None:
                raise BadRequestError("Invalid chunk size")
            self._begin_chunk(int(match[1], 16))
        elif state == DATA_END:
            if len(line) != 2:
                raise BadRequestError("Invalid end of a chunk")
            self.state = SIZE
        elif len(line) == 2:
            self.state = COMPLETE
        else:
            self._take_trailer(line)

    def _begin_chunk(self, size: int) -> None:
        self._left = size
        self.state = DATA if size else TRAILERS
        if self.received + size > self._limits.limit_body > 0:
            raise BadRequestError("Request body too large", code=413)

    def _take_trailer(self, line: bytes) -> None:
        if _FIELD_LINE(line, 0, len(line) - 2) is None or line.partition(b":")[0].lower() in _NO_TRAILERS:
            raise BadRequestError("Invalid trailer")
        self._trailers += 1
        if self._trailers > self._limits.limit_headers > 0:
            raise BadRequestError("Trailers too large", code=431)
