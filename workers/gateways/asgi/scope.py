"""What an ASGI app is told of a request: the scope (HTTP and WebSocket message format, TLS extension 0.2)."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from preforkd.workers.gateways.described import compiled_form
from preforkd.workers.http import compiled
from preforkd.workers.http.message import HttpVersion11
from preforkd.workers.http.tls_info import distinguished_name

if TYPE_CHECKING:
    from preforkd.workers.http.message import Forwarded, RequestMessage
    from preforkd.workers.proxy_protocol import ProxyHeader

Scope = dict[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Address = tuple[str, int | None]

# Of HTTP an older one than is served: from 2.4 on Starlette does not listen to `receive()` while it streams, but waits
# for an OSError from `send()`, which a quiet stream never calls. `send()` raises it all the same.
VERSIONS = {"version": "3.0", "spec_version": "2.3"}
WEBSOCKET_VERSIONS = {"version": "3.0", "spec_version": "2.5"}

# What plain connections have in common: nothing of it is kept by each of them.
_DRAINING: dict[str, Any] = {"preforkd.draining": {}}
_EXTENSIONS: dict[str, Any] = {
    "http.response.early_hint": {},
    "http.response.pathsend": {},
    "http.response.trailers": {},
    **_DRAINING,
}
_WEBSOCKET_EXTENSIONS: dict[str, Any] = {"websocket.http.response": {}, **_DRAINING}

_ORIGIN = re.compile(r"[A-Za-z]+://[^/?]*")


def split_target(target: str) -> tuple[str, str]:
    """Divide a request target (RFC 9112 section 3.2) into path and query, as sent."""
    if target[:1] not in ("/", "*"):
        target = target[_ORIGIN.match(target).end() :]  # type: ignore[union-attr]  # the parser takes no other form
        if target[:1] != "/":
            target = "/" + target
    path, _, query = target.partition("?")
    return path, query


@compiled.in_both_forms
class Templates:
    """The part of the scope that is the same for all requests of a connection, and of others like it.

    Args:
        server: our address.
        tls: of the connection; None: it is plain.
        root_path: where the app is mounted, without a slash at the end. As with other servers it is put before the
            path of the request: the proxy in front is expected to have stripped it.
        draining: the event `preforkd.draining`. It is no value of the extension of that name: those are plain data.
        state: what the app's lifespan has left; each request gets a copy.
        proxied: what a PROXY header has said of the connection.
    """

    __slots__ = (
        "_extensions", "_http", "_raw_root", "_root_path", "_state", "_usual", "_websocket_extensions"
    )  # fmt: skip

    def __init__(
        self,
        server: Address | None,
        tls: ssl.SSLObject | None,
        root_path: str,
        draining: asyncio.Event,
        state: dict[str, Any],
        proxied: ProxyHeader | None,
    ) -> None:
        # All keys are there from the start: a copy that grows costs as much again.
        common = {
            "asgi": VERSIONS, "http_version": "1.1", "path": "", "raw_path": b"", "query_string": b"", "headers": (),
            "root_path": root_path, "client": None,
            "server": proxied.server if proxied is not None and proxied.server else server, "state": None,
            "extensions": None, "preforkd.draining": draining,
        }  # fmt: skip
        self._http = {"type": "http", "scheme": "https" if tls else "http", "method": "", **common}
        extensions: dict[str, Any] = {}
        if tls is not None:
            extensions["tls"] = describe_tls(tls)
        if proxied is not None:
            extensions["preforkd.proxy"] = {"authority": proxied.authority, "unique_id": proxied.unique_id}
        self._extensions = {**_EXTENSIONS, **extensions} if extensions else _EXTENSIONS
        self._websocket_extensions = {**_WEBSOCKET_EXTENSIONS, **extensions} if extensions else _WEBSOCKET_EXTENSIONS
        self._root_path = root_path
        self._raw_root = root_path.encode()
        self._state = state
        described = compiled_form()
        self._usual = described.scope if described is not None and not root_path else None

    def http(self, message: RequestMessage, client: Address | None) -> Scope:
        """Return the scope of a request.

        Args:
            message: its head.
            client: who has opened the connection.
        """
        # Flat: every request passes here.
        if self._usual is not None:
            usual: Scope | None = self._usual(self._http, self._state, self._extensions, message, client)
            if usual is not None:
                return usual
        target = message.path
        if target[0] == "/":
            path, _, query = target.partition("?")
        else:
            path, query = split_target(target)
        raw_path = path.encode("ascii")
        if "%" in path:
            path = unquote(path)
        scope: Scope = self._http.copy()
        if message.version is not HttpVersion11:
            scope["http_version"] = "1.0"
        scope["asgi"] = VERSIONS.copy()
        scope["method"] = message.method
        scope["client"] = client
        if self._root_path and target != "*":  # of OPTIONS: it means the server, not a path in it
            scope["path"] = self._root_path + path
            scope["raw_path"] = self._raw_root + raw_path
        else:
            scope["path"] = path
            scope["raw_path"] = raw_path
        scope["query_string"] = query.encode("ascii")
        scope["headers"] = message.fields.copy()  # the app may change it
        state = scope["state"] = self._state.copy()
        if message.request_id:
            state["request_id"] = message.request_id
        scope["extensions"] = self._extensions.copy()
        if message.forwarded is not None:
            _forward(scope, message.forwarded, path, raw_path)
        return scope

    def websocket(self, message: RequestMessage, client: Address | None) -> Scope:
        """Return the scope of a WebSocket handshake; arguments as for `http()`."""
        scope = self.http(message, client)
        del scope["method"]
        scope["type"] = "websocket"
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        if message.forwarded is not None and message.forwarded.scheme:
            scope["scheme"] = "wss" if message.forwarded.scheme == "https" else "ws"
        scope["asgi"] = WEBSOCKET_VERSIONS.copy()
        scope["extensions"] = self._websocket_extensions.copy()
        offered = [value for name, value in message.fields if name == b"sec-websocket-protocol"]
        scope["subprotocols"] = [
            one.strip(" \t") for value in offered for one in value.decode("latin-1").split(",") if one.strip(" \t")
        ]
        return scope


def _forward(scope: Scope, said: Forwarded, path: str, raw_path: bytes) -> None:
    """Have a scope say what trusted proxies say of the request, whose path is given without a root."""
    scope["client"] = said.client
    if said.scheme:
        scope["scheme"] = said.scheme
    if said.server is not None:
        scope["server"] = said.server
    if said.prefix:
        scope["root_path"] = unquote(said.prefix)
        if path != "*":
            scope["path"] = scope["root_path"] + path
            scope["raw_path"] = said.prefix.encode("ascii") + raw_path


def server_of(transport: asyncio.BaseTransport) -> Address | None:
    """Return host and port of our side; for a unix socket its path, or its name with a leading `@`, and None."""
    sockname = transport.get_extra_info("sockname")
    if isinstance(sockname, tuple):
        return str(sockname[0]), int(sockname[1])
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        return os.fsdecode(sockname or "").replace("\0", "@", 1), None
    return None


# TLS


_TLS_VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_CIPHER_NUMBERS: dict[str, int] = {}
"""By name. A context lists all of its ciphers or none, which takes longer than the rest of this."""


def describe_tls(tls: ssl.SSLObject) -> dict[str, Any]:
    """Return the value of the extension `tls`.

    `server_cert` is None: OpenSSL has no way for Python to see the certificate that was sent.
    """
    certificate = tls.getpeercert(binary_form=True)
    cipher = tls.cipher()
    if cipher and cipher[0] not in _CIPHER_NUMBERS:
        _CIPHER_NUMBERS.update({one["name"]: one["id"] & 0xFFFF for one in tls.context.get_ciphers()})
    return {
        "server_cert": None,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(certificate)] if certificate else [],
        "client_cert_name": distinguished_name((tls.getpeercert() or {}).get("subject", ())) if certificate else None,
        "client_cert_error": None,
        "tls_version": _TLS_VERSIONS.get(tls.version() or ""),
        "cipher_suite": _CIPHER_NUMBERS.get(cipher[0]) if cipher else None,
    }
