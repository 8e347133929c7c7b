"""A part of a file as the body of a response: sent by the kernel, past the transport, or read in a thread."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import stat
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from preforkd.workers.http.errors import ClientDisconnectedError, ResponseError

if TYPE_CHECKING:
    from preforkd.workers.http.exchange import Wire

PIECE = 1 << 19  # bytes that one sendfile() may take: the loop turns in between, and the file may not be in memory
READ = 1 << 16  # bytes read at a time where there is no sendfile
# What sendfile() says of a file that its file system cannot give it.
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Socket(Protocol):
    """The way out of a connection of HTTP/1.1, for who writes past it.

    Attributes:
        sent: bytes given to the client's connection.
        paused: the client has to read before more should be written.
    """

    sent: int
    paused: bool

    def flush(self) -> None:
        """Give everything to the transport now."""

    def unsent(self) -> int:
        """Bytes that the transport could not hand to the kernel yet."""

    def pause(self) -> None:
        """No more should be written."""

    def resume(self) -> None:
        """More may be written."""

    def drain(self) -> Awaitable[None]:
        """Wait until more may be written."""


class FileResponse(Protocol):
    """A response whose head has been written, and whose body is a file."""

    def body_left(self) -> int | None:
        """Bytes of Content-Length that have not been sent; None: there is no Content-Length."""

    def count_sent(self, size: int) -> None:
        """So many bytes of the body went out past `write()`."""

    def write(self, chunk: bytes) -> None:
        """Write a part of the body."""

    def drain(self) -> Awaitable[None]:
        """Wait while the client has too much to read."""


def measured(status: os.stat_result) -> int | None:
    """Return the size of a file; None: only reading tells.

    Files that are made when they are read have no blocks on a disk, and a size of 0 (/proc, some FUSE file systems) or
    of a page (/sys), whatever is in them.
    """
    size = status.st_size
    if not stat.S_ISREG(status.st_mode) or not size or (size <= mmap.PAGESIZE and not status.st_blocks):
        return None
    return size


async def send_file(response: FileResponse, wire: Wire, descriptor: int, offset: int) -> None:
    """Send what a response's Content-Length still wants of a file; without Content-Length, all to the end of the file.

    Args:
        response: its head has been written.
        wire: the way out.
        descriptor: of the file, which stays open meanwhile and can be read at any place.
        offset: where in the file to start.

    Raises:
        ResponseError: the file ends before Content-Length does; the client sees a cut response.
        ClientDisconnectedError: the client is gone.
        OSError: the file cannot be read.
    """
    if response.body_left() is None or not wire.takes_files():
        await _send_by_reading(response, descriptor, offset)
    else:
        await wire.send_file(response, descriptor, offset)


async def _send_by_reading(response: FileResponse, descriptor: int, offset: int) -> None:
    """In a thread: a disk, or whatever is behind the file, may take its time."""
    loop = asyncio.get_running_loop()
    while (left := response.body_left()) != 0:
        size = READ if left is None else min(READ, left)
        data = await loop.run_in_executor(None, os.pread, descriptor, size, offset)
        if data:
            offset += len(data)
            response.write(data)
            await response.drain()
        elif left is None:
            return
        else:
            raise _too_short(left)


def _too_short(left: int) -> ResponseError:
    return ResponseError(f"the file ended {left} bytes before the end of Content-Length")


async def send_by_kernel(
    response: FileResponse, writer: Socket, transport: asyncio.Transport | None, descriptor: int, offset: int
) -> None:
    """Past the transport, which has to be empty for that and stays so: nobody else writes meanwhile.

    uvloop has no `loop.sendfile()`, and its transports keep their descriptor to themselves, but a duplicate may be
    watched. It keeps the socket open: the end of the connection does not show in it, but in the writer. That a client
    does not read is the sweep's business, as with every response.

    Args:
        response, descriptor, offset: as for `send_file()`.
        writer: what else is written by.
        transport: what that writes to; None when the client is gone.

    Raises:
        ResponseError, ClientDisconnectedError, OSError: as for `send_file()`.
    """
    loop = asyncio.get_running_loop()
    writer.flush()
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        raise ClientDisconnectedError("the client is gone")
    connection = os.dup(sock.fileno())
    try:
        while writer.unsent():
            # A transport writes when the socket takes more, or at the end of the loop's turn: then it is empty soon.
            await _writable(connection, writer, writer.resume, loop)
        sending = _Sending(response, writer, connection, descriptor, offset)
        sending.send_piece()
        while not sending.ended:
            await _writable(connection, writer, sending.send_piece, loop)
    finally:
        os.close(connection)
    error = sending.error
    if isinstance(error, BrokenPipeError | ConnectionResetError):
        raise ClientDisconnectedError("the client is gone") from None
    if error is not None and error.errno not in _CANNOT:
        raise error
    left = response.body_left()
    if error is not None:
        await _send_by_reading(response, descriptor, sending.offset)
    elif left:
        raise _too_short(left)


async def _writable(
    connection: int, writer: Socket, callback: Callable[[], None], loop: asyncio.AbstractEventLoop
) -> None:
    """Have a callback called whenever the socket takes more, until it resumes the writer.

    Raises:
        ClientDisconnectedError: the client is gone, or was cut.
    """
    writer.pause()
    loop.add_writer(connection, callback)
    try:
        await writer.drain()
    finally:
        loop.remove_writer(connection)
        writer.paused = False


class _Sending:
    """A file on its way. Callbacks of the loop drive it: a future for each piece would cost as much as the piece.

    Attributes:
        offset: up to where the file is sent.
        ended: nothing more can be sent: all is, or the file has ended, or there is an error.
        error: of sendfile().
    """

    __slots__ = ("_connection", "_descriptor", "_response", "_writer", "ended", "error", "offset")

    def __init__(self, response: FileResponse, writer: Socket, connection: int, descriptor: int, offset: int) -> None:
        self._response = response
        self._writer = writer
        self._connection = connection
        self._descriptor = descriptor
        self.offset = offset
        self.ended = False
        self.error: OSError | None = None

    def send_piece(self) -> None:
        """Send as much as the socket takes, within bounds; at the end, wake who waits for that."""
        left = self._response.body_left() or 0
        sent = 0
        try:
            sent = os.sendfile(self._connection, self._descriptor, self.offset, min(left, PIECE)) if left else 0
        except BlockingIOError:
            return
        except OSError as exc:
            self.error = exc
        self.offset += sent
        self._response.count_sent(sent)
        self._writer.sent += sent
        if sent == left or not sent:
            self.ended = True
            self._writer.resume()
