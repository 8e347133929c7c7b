"""An ASGI app whose responses are as large as the path says, for clients that do not read them."""

from __future__ import annotations

from tempfile import TemporaryFile
from typing import IO, Any

_FILES: list[IO[bytes]] = []  # without a name: they end with the process


def file_of(size: int) -> str:
    """A file of that size: all of it a hole."""
    file = TemporaryFile()  # noqa: SIM115 -- it stays for the response
    file.truncate(size)
    _FILES.append(file)
    return f"/proc/self/fd/{file.fileno()}"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """`/bytes/N`, `/file/N`, `/stream/N` (and never an end), or a WebSocket that sends messages of N bytes."""
    if scope["type"] == "lifespan":
        raise RuntimeError
    _, kind, size = scope["path"].split("/")
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "bytes": bytes(int(size))})
    headers = [] if kind == "stream" else [(b"content-length", size.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if kind == "file":
        await send({"type": "http.response.pathsend", "path": file_of(int(size))})
    else:
        await send({"type": "http.response.body", "body": bytes(int(size)), "more_body": kind == "stream"})
        while kind == "stream" and (await receive())["type"] != "http.disconnect":
            pass
