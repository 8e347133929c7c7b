"""The rows of the table: what is asked of which servers."""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks import wrk
from tests.benchmarks.apps.bodies import UPLOAD
from tests.benchmarks.servers import Interface, Kind

ALL: frozenset[Interface] = frozenset({"bare", "protocol", "asgi", "wsgi"})
WAITS: frozenset[Interface] = frozenset({"bare", "protocol", "asgi"})
ASGI: frozenset[Interface] = frozenset({"bare", "asgi"})
WSGI: frozenset[Interface] = frozenset({"bare", "wsgi"})


@dataclass(frozen=True)
class Row:
    """A kind of request.

    Attributes:
        title: of the row.
        app: name of the app in each of the modules of `tests.benchmarks.apps`; `module:attribute`: of a framework.
        lua: what wrk is told to send; empty: WebSocket messages are sent, by a load of our own.
        interfaces: of the servers that are asked.
        logged: with the access log on.
        limit: name of the bare protocol that is the limit.
        tls: through TLS.
    """

    title: str
    app: str
    lua: str
    interfaces: frozenset[Interface] = ALL
    logged: bool = False
    limit: str = "hello"
    tls: bool = False

    def concerns(self, kind: Kind) -> bool:
        """Whether the server can be asked this."""
        if not self.lua:
            return kind.websocket
        if self.tls and kind.tls is None:
            return False
        return kind.interface in self.interfaces and (not self.logged or kind.logged is not None)

    def arguments_of(self, kind: Kind) -> tuple[str, ...]:
        """Return what a server is started with beside its command."""
        return ((kind.logged or ()) if self.logged else kind.quiet) + ((kind.tls or ()) if self.tls else ())

    def app_of(self, kind: Kind) -> str:
        """Return the name of the app for a server."""
        if kind.interface == "bare":
            return f":{self.limit}"
        if ":" in self.app:
            return f"tests.benchmarks.apps.{self.app}"
        attribute = self.app.capitalize() if kind.interface == "protocol" else self.app
        return f"tests.benchmarks.apps.{kind.interface}:{attribute}"


_GET, _POST = wrk.script(), wrk.script("POST", 0)

ROWS = {
    "get": Row("GET", "hello", _GET),
    "post": Row("POST of 110 bytes of JSON", "post", _POST),
    "wait": Row("GET, a handler that waits once", "wait", _GET, WAITS),
    "log": Row("GET, access log on", "hello", _GET, logged=True),
    "fastapi": Row("FastAPI, GET: JSON, two query parameters", "fastapi_app:app", _GET, ASGI),
    "fastapi-post": Row("FastAPI, POST with a pydantic model", "fastapi_app:app", _POST, ASGI),
    "flask": Row("Flask, GET: JSON, two query parameters", "flask_app:app", _GET, WSGI),
    "1mb": Row("1 MB", "large", _GET, limit="large"),
    "stream": Row("64 kB streamed in eight parts", "stream", _GET, limit="stream"),
    "upload": Row("upload of 100 kB", "upload", wrk.script("POST", UPLOAD), limit="upload"),
    "once": Row("GET, a connection per request", "hello", wrk.script(close=True), limit="once"),
    "tls": Row("TLS, GET", "hello", _GET, tls=True),
    "tls-once": Row(
        "TLS, GET, a connection and a handshake per request", "hello", wrk.script(close=True), limit="once", tls=True
    ),
    "websocket": Row("WebSocket echo, a message", "echo", ""),
    "same": Row("GET, the same head each time (no real traffic is so)", "hello", wrk.script(alike=True)),
}
