"""The body of a request as a stream, flow controlled: a handler that does not read stops the client."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HIGH_WATER = 65536  # bytes buffered before the socket is paused
LOW_WATER = 16384  # and before it is read again


class BodySource(Protocol):
    """Where a stream's bytes come from: the connection."""

    def pause_body(self) -> None:
        """Stop reading the socket: the stream holds enough."""

    def resume_body(self) -> None:
        """Read the socket again."""

    def body_wanted(self) -> None:
        """The handler waits for the first bytes: an `Expect: 100-continue` is answered now."""


class PayloadStream:
    """A request body that is read while it arrives.

    Every way to read raises `ClientDisconnectedError` when the connection ended before the body did, and
    `HttpProcessingError` when the body is invalid or too large: a cut body never looks whole.
    """

    __slots__ = ("_buffer", "_eof", "_exception", "_loop", "_paused", "_size", "_source", "_waiter", "total")

    def __init__(self, source: BodySource | None, loop: asyncio.AbstractEventLoop) -> None:
        self._source = source
        self._loop = loop
        self._buffer: deque[bytes] = deque()
        self._size = 0
        self._eof = False
        self._exception: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self.total = 0

    # The connection's side.

    @classmethod
    def whole(cls, body: bytes, loop: asyncio.AbstractEventLoop) -> PayloadStream:
        """Return a stream of a body all of which is there."""
        stream = cls(None, loop)
        stream._buffer.append(body)
        stream._size = stream.total = len(body)
        stream._eof = True
        return stream

    def feed(self, chunk: bytes, is_last: bool = False) -> None:
        """Append bytes that have arrived.

        Args:
            chunk: the bytes.
            is_last: the body ends with them: then there is nothing more to hold back.
        """
        if not chunk or self._exception is not None:
            return
        self._buffer.append(chunk)
        self._size += len(chunk)
        self.total += len(chunk)
        if self._size > HIGH_WATER and not is_last and not self._paused and self._source is not None:
            self._paused = True
            self._source.pause_body()
        self._wake()

    def feed_eof(self) -> None:
        """The body is complete."""
        self._eof = True
        self._source = None
        self._wake()

    def set_exception(self, exc: BaseException) -> None:
        """The body will not be complete: what is buffered is forgotten, every read raises `exc`."""
        if self._eof:
            return
        self._exception = exc
        self._source = None
        self._buffer.clear()
        self._size = 0
        self._wake()

    def exception(self) -> BaseException | None:
        """Return what every read raises, None when nothing is wrong."""
        return self._exception

    @property
    def is_complete(self) -> bool:
        """Whether all of the body has arrived, read or not."""
        return self._eof

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    # The handler's side.

    def at_eof(self) -> bool:
        """Whether the body has been read to its end."""
        return self._eof and not self._buffer

    async def _wait(self) -> None:
        """Wait for more bytes, the end, or an exception."""
        if self._waiter is not None and not self._waiter.cancelled():  # who was cancelled may not know it yet
            raise RuntimeError("the payload is being read by another task already")
        if self._source is not None:
            self._source.body_wanted()
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            if self._waiter is waiter:
                self._waiter = None

    async def _filled(self) -> bool:
        """Wait until there is something in the buffer (true) or the body has ended (false)."""
        while not self._buffer:
            if self._exception is not None:
                raise self._exception
            if self._eof:
                return False
            await self._wait()
        return True

    def _taken(self, size: int) -> None:
        self._size -= size
        if self._paused and self._size <= LOW_WATER:
            self._paused = False
            if self._source is not None:
                self._source.resume_body()

    def _take(self, limit: int) -> bytes:
        """Take at most `limit` bytes off the front of the buffer's first part."""
        first = self._buffer.popleft()
        if len(first) > limit:
            self._buffer.appendleft(first[limit:])
            first = first[:limit]
        self._taken(len(first))
        return first

    def _take_all(self) -> bytes:
        parts = self._buffer
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._taken(len(data))
        return data

    async def read(self, n: int = -1) -> bytes:
        """Read at most `n` bytes; all of the body without `n`; b"" at its end."""
        if n == 0:
            return b""
        if n > 0:
            return self._take(n) if await self._filled() else b""
        parts: list[bytes] = []
        while await self._filled():
            parts.append(self._take_all())
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def readany(self) -> bytes:
        """Read what has arrived, waiting for at least one byte; b"" at the end."""
        return self._take_all() if self._buffer or await self._filled() else b""

    def take_arrived(self) -> bytes:
        """Take what has arrived and was not read, if anything; of a body that is decoded, what has been decoded."""
        return self._take_all() if self._buffer else b""

    async def readline(self, limit: int = HIGH_WATER) -> bytes:
        """Read up to and with the next line feed, or to the end.

        Raises:
            ValueError: the line is longer than `limit` bytes.
        """
        line = bytearray()
        while await self._filled():
            index = self._buffer[0].find(b"\n")
            line += self._take(index + 1 if index >= 0 else len(self._buffer[0]))
            if len(line) > limit:
                raise ValueError("line is too long")
            if index >= 0:
                break
        return bytes(line)

    async def readexactly(self, n: int) -> bytes:
        """Read exactly `n` bytes.

        Raises:
            asyncio.IncompleteReadError: the body ends before.
        """
        parts: list[bytes] = []
        missing = n
        while missing > 0:
            if not await self._filled():
                raise asyncio.IncompleteReadError(b"".join(parts), n)
            part = self._take(missing)
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self.readany()
        if not data:
            raise StopAsyncIteration
        return data


class EmptyPayload(PayloadStream):
    """The body of a request that has none; one object serves all of them."""

    __slots__ = ()

    def __init__(self) -> None:
        self._buffer = deque()
        self._size = self.total = 0
        self._eof = True
        self._exception = self._waiter = self._source = None
        self._paused = False


EMPTY_PAYLOAD = EmptyPayload()
