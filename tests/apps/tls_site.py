"""Apps of each interface that answer what they are told of TLS, as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from preforkd.workers import PayloadStream, RequestMessage, Response, ServerHttpProtocol

PAGE = b"""<!DOCTYPE html><title>TLS</title><script>
const socket = new WebSocket("wss://" + location.host + "/");
socket.onopen = () => socket.send("hello");
socket.onmessage = event => fetch("/said-" + event.data);
socket.onerror = () => fetch("/failed");
</script>"""


class Site(ServerHttpProtocol):
    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:
        text = json.dumps(None if self.tls is None else asdict(self.tls)).encode()
        self.keep_alive(True)
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Length", str(len(text)))
        response.send_headers()
        response.write(text)
        await response.write_eof()


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    told = {name: value for name, value in environ.items() if name.startswith("SSL_") or name == "HTTPS"}
    told["scheme"] = environ["wsgi.url_scheme"]
    text = json.dumps(told).encode()
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    if scope["type"] == "lifespan":
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": scope["scheme"]})
        return
    if scope["path"] == "/page":
        headers = [(b"content-type", b"text/html"), (b"content-length", str(len(PAGE)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": PAGE})
        return
    text = json.dumps({"scheme": scope["scheme"], **scope["extensions"].get("tls", {})}).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})
