"""What an app is told of its client, as JSON: `Told`, `asgi` and `wsgi` are the same for the three interfaces."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from preforkd.workers import PayloadStream, RequestMessage, Response, ServerHttpProtocol
from preforkd.workers.http.names import note_of


def noted(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The fields by which proxies say something, that the app can see."""
    return {name.lower(): value for name, value in fields if note_of(name.lower().encode())}


class Told(ServerHttpProtocol):
    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:
        said = message.forwarded
        told = {
            "client": self.remote,
            "scheme": (said and said.scheme) or self.peer_scheme,
            "host": message.headers.get("Host"),
            "root": said.prefix if said else "",
            "noted": noted(message.headers.items()),
            "raw": noted((name.decode(), value.decode("latin-1")) for name, value in message.raw_headers),
            "proxied": self.proxy_header
            and [self.proxy_header.authority, (self.proxy_header.unique_id or b"").decode()],
        }
        body = json.dumps(told).encode()
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Length", str(len(body)))
        response.send_headers()
        response.write(body)
        self.keep_alive(True)
        await response.write_eof()


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] != "lifespan"
    fields = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
    proxied = scope["extensions"].get("preforkd.proxy")
    told = {
        "client": scope["client"][0] if scope["client"] else "-",
        "port": scope["client"][1] if scope["client"] else 0,
        "scheme": scope["scheme"],
        "host": dict(fields).get("host"),
        "root": scope["root_path"],
        "path": scope["path"],
        "server": scope["server"],
        "noted": noted(fields),
        "proxied": proxied and [proxied["authority"], (proxied["unique_id"] or b"").decode()],
    }
    body = json.dumps(told)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": body})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body.encode()})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    fields = [(key[5:].replace("_", "-"), value) for key, value in environ.items() if key.startswith("HTTP_")]
    proxied = environ.get("preforkd.proxy")
    told = {
        "client": environ["REMOTE_ADDR"] or "-",
        "port": int(environ.get("REMOTE_PORT", 0)),
        "scheme": environ["wsgi.url_scheme"],
        "host": environ.get("HTTP_HOST"),
        "root": environ["SCRIPT_NAME"],
        "path": environ["SCRIPT_NAME"] + environ["PATH_INFO"],
        "server": [environ["SERVER_NAME"], int(environ["SERVER_PORT"])],
        "noted": noted(fields),
        "proxied": proxied and [proxied["authority"], (proxied["unique_id"] or b"").decode()],
    }
    start_response("200 OK", [])
    return [json.dumps(told).encode()]
