"""Apps that answer with a file, or what passes for one: ASGI by `pathsend`, WSGI by `wsgi.file_wrapper`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """`?path=...`, with a Content-Length if the query has a `length`."""
    assert scope["type"] == "http"
    query = parse_qs(scope["query_string"].decode())
    headers = [(b"content-length", length.encode()) for length in query.get("length", ())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.pathsend", "path": query["path"][0]})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The same; the file stands at `offset`, and `path=pipe` is a pipe with something in it."""
    query = parse_qs(environ["QUERY_STRING"])
    file = _pipe() if query["path"] == ["pipe"] else Path(query["path"][0]).open("rb")  # noqa: SIM115 -- the wrapper closes it
    if "offset" in query:
        file.seek(int(query["offset"][0]))
    start_response("200 OK", [("Content-Length", length) for length in query.get("length", ())])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
    return wrapped


def _pipe() -> BinaryIO:
    reading, writing = os.pipe()
    os.write(writing, b"out of a pipe")
    os.close(writing)
    return os.fdopen(reading, "rb")
