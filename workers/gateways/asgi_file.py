"""A file as the body of a response, by sendfile where the kernel can, else read in a thread."""

from __future__ import annotations

import asyncio
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from preforkd.workers.gateways.sendfile import can_send, send_by_kernel

if TYPE_CHECKING:
    from preforkd.workers.gateways.asgi_response import AsgiResponse
    from preforkd.workers.http.protocol import ServerHttpProtocol

READ = 1 << 16  # bytes read at a time where there is no sendfile


async def send_file(response: AsgiResponse, protocol: ServerHttpProtocol, path: str | bytes) -> None:
    """Send the head of a response and a file as its body; the caller ends it.

    Args:
        response: nothing of it has been sent yet. Without Content-Length it gets the file's size.
        protocol: the connection.
        path: of a regular file.

    Raises:
        OSError: the file cannot be read; nothing has been sent then.
        ResponseError: the file is shorter than Content-Length, or got shorter while it was sent.
        ClientDisconnectedError: the client is gone.
    """
    loop = asyncio.get_running_loop()
    file = await loop.run_in_executor(None, _open, path)
    try:
        size = os.fstat(file.fileno()).st_size
        if not response.has_length():
            response.set_length(size)
        response.send_headers()
        if not response.takes_body():
            return
        if response.is_chunked or not can_send(protocol):
            await _send_by_reading(response, file, loop)
        else:
            await send_by_kernel(response, protocol, file.fileno(), 0)
    finally:
        file.close()


def _open(path: str | bytes) -> BinaryIO:
    file = open(path, "rb", buffering=0)  # noqa: SIM115, PTH123 -- the caller closes it; bytes paths are paths too
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path!r} is not a regular file")
    return file


async def _send_by_reading(response: AsgiResponse, file: BinaryIO, loop: asyncio.AbstractEventLoop) -> None:
    while (left := response.body_left()) != 0:
        data = await loop.run_in_executor(None, file.read, READ if left is None else min(READ, left))
        if not data:
            break
        response.write(data)
        await response.drain()
