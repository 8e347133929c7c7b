"""`wsgi.input`: the request's body as a stream, whose end is the body's end (`wsgi.input_terminated`)."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

READ_FIRST = 65536
"""Bytes of a body that are awaited before an app is called, so that a slow client does not hold a thread."""

READ_AT_ONCE = 4 * READ_FIRST
"""And that are taken with them when they have come already: handing them to the thread in parts costs twice as much."""


class InputError(OSError):
    """The body of the request has been cut, does not come, or is invalid: what was read is not the whole.

    Its cause is the server's own error; an app that does not catch it has the request answered with that.
    """


class BodySource(io.RawIOBase):
    """A body that is still coming, for one of the app's threads: each read waits for the next part.

    Args:
        first: what has come already.
        receive: waits for more and returns it; b"" at the end; raises `InputError`.
    """

    def __init__(self, first: bytes, receive: Callable[[], bytes]) -> None:
        super().__init__()
        self._left = memoryview(first)
        self._receive = receive

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def readall(self) -> bytes:
        """Read to the end of the body; that of `io.RawIOBase` would take 8 kB at a time."""
        body = io.BytesIO()
        body.write(self._left)
        while part := self._receive():
            body.write(part)
        self._left = memoryview(b"")
        return body.getvalue()

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill a part of `buffer`; 0 at the end of the body."""
        if not self._left:
            self._left = memoryview(self._receive())
        target = memoryview(buffer).cast("B")
        size = min(len(target), len(self._left))
        target[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def streamed_input(first: bytes, receive: Callable[[], bytes]) -> io.BufferedReader:
    """Return the `wsgi.input` of a body that is still coming; arguments as for `BodySource`."""
    return io.BufferedReader(BodySource(first, receive), READ_FIRST)
