"""A file as the body of a response of an ASGI app."""

from __future__ import annotations

import asyncio
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from preforkd.workers.http.sendfile import measured, send_file

if TYPE_CHECKING:
    from preforkd.workers.gateways.asgi.response import AsgiResponse
    from preforkd.workers.http.exchange import Wire


async def send_path(response: AsgiResponse, wire: Wire, path: str | bytes) -> None:
    """Send the head of a response and a file as its body; the caller ends it.

    Args:
        response: nothing of it has been sent yet. Without Content-Length it gets the file's size, if that can be told.
        wire: the way out.
        path: of a regular file.

    Raises:
        OSError: the file cannot be read; nothing has been sent then.
        ResponseError: the file is shorter than Content-Length, or got shorter while it was sent.
        ClientDisconnectedError: the client is gone.
    """
    file = await asyncio.get_running_loop().run_in_executor(None, _open, path)
    try:
        size = measured(os.fstat(file.fileno()))
        if size is not None and not response.has_length():
            response.set_length(size)
        response.send_headers()
        if response.takes_body():
            await send_file(response, wire, file.fileno(), 0)
    finally:
        file.close()


def _open(path: str | bytes) -> BinaryIO:
    file = open(path, "rb", buffering=0, opener=_without_waiting)  # noqa: SIM115 -- the caller closes it; bytes paths are paths too
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path!r} is not a regular file")
    return file


def _without_waiting(path: str | bytes, flags: int) -> int:
    """Open a file, also a pipe that nobody writes to, which would keep a thread for ever."""
    return os.open(path, flags | os.O_NONBLOCK)
