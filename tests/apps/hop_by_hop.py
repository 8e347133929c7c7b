"""Apps that set fields that are the connection's: the path's parts are name and value, `/Connection/close`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


def field_of(path: str) -> tuple[str, str]:
    """Return the field that a path asks for."""
    name, _, value = path.strip("/").partition("/")
    return name, value


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Streams, as an example of server-sent events does."""
    start_response("200 OK", [("Content-Type", "text/event-stream"), field_of(environ["PATH_INFO"])])

    def events() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        yield b"data: 2\n\n"

    return events()


async def asgi_app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The same."""
    if scope["type"] != "http":
        raise RuntimeError("no lifespan here")
    name, value = field_of(scope["path"])
    fields = [(b"content-type", b"text/event-stream"), (name.lower().encode(), value.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": b"data: 2\n\n"})
