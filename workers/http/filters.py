"""Filters between a handler's writes and the body of a response."""

from __future__ import annotations

import zlib
from collections.abc import Iterator


class Compressor:
    """Content coding `gzip` or `deflate` (the zlib format, RFC 9110 section 8.4.1.2)."""

    __slots__ = ("_compress", "encoding")

    def __init__(self, encoding: str) -> None:
        if encoding not in ("gzip", "deflate"):
            raise ValueError(f"unknown compression: {encoding!r}; known are 'deflate' and 'gzip'")
        self.encoding = "gzip" if encoding == "gzip" else "deflate"  # of the same letters, and nothing but a str
        self._compress = zlib.compressobj(wbits=16 + zlib.MAX_WBITS if encoding == "gzip" else zlib.MAX_WBITS)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` makes ready."""
        out = self._compress.compress(data)
        if out:
            yield out

    def finish(self) -> Iterator[bytes]:
        """Yield the rest."""
        yield self._compress.flush()


class Rechunker:
    """Parts of one size."""

    __slots__ = ("_buffer", "_size")

    def __init__(self, size: int) -> None:
        if not isinstance(size, int) or size <= 0:
            raise ValueError(f"the size of chunks must be positive: {size!r}")
        self._size = size
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the parts that are full."""
        buffer = self._buffer
        buffer += data
        size = self._size
        full = len(buffer) - len(buffer) % size
        for start in range(0, full, size):
            yield bytes(buffer[start : start + size])
        del buffer[:full]

    def finish(self) -> Iterator[bytes]:
        """Yield the last part."""
        if self._buffer:
            yield bytes(self._buffer)
            self._buffer.clear()
