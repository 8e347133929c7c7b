"""The kernel sends a part of a file as the body of a response, past the transport."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Protocol

from preforkd.workers.http.errors import ClientDisconnectedError, ResponseError

if TYPE_CHECKING:
    from preforkd.workers.http.protocol import ServerHttpProtocol

PIECE = 1 << 19  # bytes that one sendfile() may take: the loop turns in between, and the file may not be in memory
LOOK = 0.5  # seconds between two looks at a connection whose client does not read


class CountedResponse(Protocol):
    """A response whose body is not written through it."""

    def body_left(self) -> int | None:
        """Bytes of Content-Length that have not been sent; None: there is no Content-Length."""

    def count_sent(self, size: int) -> None:
        """So many bytes of the body went out."""


def can_send(protocol: ServerHttpProtocol) -> bool:
    """Whether the kernel can write to this connection: not through TLS."""
    transport = protocol.transport
    return transport is not None and transport.get_extra_info("sslcontext") is None


async def send_by_kernel(response: CountedResponse, protocol: ServerHttpProtocol, descriptor: int, offset: int) -> None:
    """Send as many bytes of a file as the response's Content-Length still wants; its head has been written.

    The transport has to be empty for that and stays so: nobody else writes meanwhile. uvloop has no `loop.sendfile()`,
    and its transports keep their descriptor to themselves, but a duplicate may be watched.

    Args:
        response: with a Content-Length.
        protocol: the connection; `can_send()` is true of it.
        descriptor: of the file.
        offset: where in the file to start.

    Raises:
        ResponseError: the file ends too early; the client sees a cut response.
        ClientDisconnectedError: the client is gone.
    """
    loop = asyncio.get_running_loop()
    protocol.writer.flush()
    sock = protocol.transport.get_extra_info("socket") if protocol.transport is not None else None
    if sock is None:
        raise ClientDisconnectedError("the client is gone")
    connection = os.dup(sock.fileno())
    try:
        while protocol.transport is not None and protocol.transport.get_write_buffer_size():
            # A transport writes when the socket takes more, or at the end of the loop's turn: then it is empty soon.
            await _writable(connection, protocol, loop)
        while left := response.body_left():
            try:
                sent = os.sendfile(connection, descriptor, offset, min(left, PIECE))
            except BlockingIOError:
                await _writable(connection, protocol, loop)
                continue
            except (BrokenPipeError, ConnectionResetError):
                raise ClientDisconnectedError("the client is gone") from None
            if not sent:
                raise ResponseError(f"the file ended {left} bytes before the end of Content-Length")
            offset += sent
            response.count_sent(sent)
            protocol.writer.sent += sent
            await asyncio.sleep(0)
            if protocol.transport is None:
                raise ClientDisconnectedError("the client is gone")
    finally:
        os.close(connection)


async def _writable(connection: int, protocol: ServerHttpProtocol, loop: asyncio.AbstractEventLoop) -> None:
    """Wait until the socket takes more.

    The sweep sees the transport's buffer only, which is empty, so a client that does not read is cut from here.

    Raises:
        ClientDisconnectedError: the client is gone, or does not read for `write_timeout` seconds.
    """
    waiter: asyncio.Future[None] = loop.create_future()
    since = loop.time()
    loop.add_writer(connection, _wake, waiter)
    try:
        while not waiter.done():
            # The duplicate keeps the socket open: the end of the connection does not show here, so look now and then.
            await asyncio.wait([waiter], timeout=LOOK)
            if 0 < protocol.limits.write_timeout <= loop.time() - since and not waiter.done():
                protocol.abort()
            if protocol.transport is None or protocol.transport.is_closing():
                raise ClientDisconnectedError("the client is gone")
    finally:
        loop.remove_writer(connection)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
