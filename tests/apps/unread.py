"""Apps of all three interfaces that read as much of a request's body as its query says, then answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from preforkd.workers import Response, ServerHttpProtocol

TEXT = b"answered"
LENGTH = str(len(TEXT))


class Unread(ServerHttpProtocol):
    """`?N` reads N bytes, `?` none; with `/early` the head of the response is sent before."""

    async def handle_request(self, message: Any, payload: Any) -> None:
        self.keep_alive(True)
        path, _, most = message.path.partition("?")
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Length", LENGTH)
        if path == "/early":
            response.send_headers()
            await response.drain()
        left = int(most or 0)
        while left > 0 and (part := await payload.read(left)):
            left -= len(part)
        if path != "/early":
            response.send_headers()
        response.write(TEXT)
        await response.write_eof()


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """The same as ASGI app."""
    assert scope["type"] == "http"
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", LENGTH.encode())]}
    await send(start)
    if scope["path"] == "/early":
        await send({"type": "http.response.body", "body": TEXT[:1], "more_body": True})
    left = int(scope["query_string"] or b"0")
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await send({"type": "http.response.body", "body": TEXT[1:] if scope["path"] == "/early" else TEXT})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The same as WSGI app."""
    write = start_response("200 OK", [("Content-Length", LENGTH)])
    text = TEXT
    if environ["PATH_INFO"] == "/early":
        write(TEXT[:1])
        text = TEXT[1:]
    left = int(environ["QUERY_STRING"] or 0)
    while left > 0 and (part := environ["wsgi.input"].read(min(left, 65536))):
        left -= len(part)
    return [text]
