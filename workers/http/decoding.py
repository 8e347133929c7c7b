"""Request bodies in a content coding, decoded while they are read.

Decoded bytes are made only when the handler asks for them, 64 kB at a time: what a few compressed bytes would unfold to
never is in memory at once, and the client is paused by the amount of *compressed* bytes that wait.
"""

from __future__ import annotations

import asyncio
import zlib

from preforkd.workers.http.errors import BadRequestError
from preforkd.workers.http.payload import BodySource, PayloadStream

MAX_RATIO = 100  # decoded to compressed bytes; text rarely exceeds 20, a bomb of zeros has 1000
FREE_BYTES = 1 << 20  # up to here any ratio is fine
_PIECE = 65536
# Each member of a gzip body costs a decompressor and a copy of what follows it: honest ones (bgzip: up to 64 kB each)
# are far longer than this on the average, empty ones have 20 bytes.
_MEMBERS_FREE = 64
_MEMBER_SIZE_MIN = 512


class Inflater:
    """Decodes `gzip` (several members too) or `deflate` (with and without the zlib header, RFC 9110 section 8.4.1.2).

    Args:
        encoding: 'gzip' or 'deflate'.
        limit: bytes that may come out; 0: only the ratio limits them.
    """

    __slots__ = ("_consumed", "_encoding", "_inflate", "_limit", "_members", "_pending", "_produced")

    def __init__(self, encoding: str, limit: int) -> None:
        self._encoding = encoding
        self._limit = limit
        self._inflate: zlib._Decompress | None = None
        self._pending = b""
        self._consumed = self._produced = self._members = 0

    @property
    def has_more(self) -> bool:
        """Whether there is input that was not decoded yet."""
        return bool(self._pending)

    def check_end(self) -> None:
        """Refuse a body that ended before the compressed data did.

        Raises:
            BadRequestError: it did.
        """
        if self._inflate is not None and not self._inflate.eof:
            raise BadRequestError("The compressed body is cut")

    def decode(self, data: bytes) -> bytes:
        """Take input and return a piece of the output, at most 64 kB; call it again while `has_more`.

        Raises:
            BadRequestError: 400 for invalid data, 413 past the limits.
        """
        self._consumed += len(data)
        data = self._pending + data if self._pending else data
        if not data:
            return b""
        inflate = self._inflate
        if inflate is None or inflate.eof:
            if inflate is not None and self._encoding == "deflate":
                raise BadRequestError("Bytes behind the compressed body")
            inflate = self._inflate = self._start(data[0])
        try:
            out = inflate.decompress(data, _PIECE)
        except zlib.error as exc:
            raise BadRequestError("Invalid compressed body") from exc
        if inflate.eof:
            self._pending = inflate.unused_data
        else:
            self._pending = inflate.unconsumed_tail
        self._produced += len(out)
        self._check()
        return out

    def _start(self, first: int) -> zlib._Decompress:
        self._members += 1
        if self._members > _MEMBERS_FREE + self._consumed // _MEMBER_SIZE_MIN:
            raise BadRequestError("Too many members in the compressed body")
        if self._encoding == "gzip":
            return zlib.decompressobj(16 + zlib.MAX_WBITS)
        # Many clients send raw deflate data; a zlib header has 8 in its lower four bits (RFC 1950 section 2.2).
        return zlib.decompressobj(zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS)

    def _check(self) -> None:
        produced = self._produced
        if 0 < self._limit < produced:
            raise BadRequestError("Decoded request body too large", code=413)
        if produced > FREE_BYTES and produced > MAX_RATIO * self._consumed:
            raise BadRequestError("Request body unfolds too much", code=413)


class DecodedPayload(PayloadStream):
    """A body that is decoded while it is read; fed with the bytes of the wire."""

    __slots__ = ("_inflater", "_raw")

    def __init__(self, source: BodySource, loop: asyncio.AbstractEventLoop, encoding: str, limit: int) -> None:
        super().__init__(source, loop)
        self._raw = PayloadStream(source, loop)
        self._inflater = Inflater(encoding, limit)

    def feed(self, chunk: bytes, is_last: bool = False) -> None:
        """Append bytes that have arrived."""
        self._raw.feed(chunk, is_last)

    def feed_eof(self) -> None:
        """The body is complete."""
        self._raw.feed_eof()

    def set_exception(self, exc: BaseException) -> None:
        """The body will not be complete."""
        self._raw.set_exception(exc)
        if not self._raw.is_complete:
            super().set_exception(exc)

    @property
    def is_complete(self) -> bool:
        """Whether all of the body has arrived, read or not."""
        return self._raw.is_complete

    async def _filled(self) -> bool:
        inflater = self._inflater
        while not self._buffer:
            if self._exception is not None:
                raise self._exception
            if self._eof:
                return False
            try:
                data = b"" if inflater.has_more else await self._raw.readany()
                if not data and not inflater.has_more:
                    inflater.check_end()
                    self._eof = True
                    return False
                out = inflater.decode(data)
            except BadRequestError as exc:
                super().set_exception(exc)
                raise
            if out:
                self._buffer.append(out)
                self._size += len(out)
                self.total += len(out)
        return True
