"""A WSGI app served in a thread of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from preforkd.workers.gateways.wsgi import WsgiGateway
from tests.workers.gateways.asgi.serving import Served, serve_gateway

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], None]]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

PLAIN = [("Content-Type", "text/plain")]

MODES = {"thread": 1, "threads": 3, "loop": 0}
"""`--threads` by the name that a test shows."""


@contextmanager
def serve(app: App, threads: int = 1, *, root_path: str = "", **arguments: Any) -> Iterator[Served]:
    """Serve an app for the duration of a `with` block.

    Args:
        app: the application.
        threads: as `--threads`.
        root_path: as `--root-path`.
        arguments: for `serve_gateway`.
    """
    with serve_gateway(lambda _: WsgiGateway(app, threads, root_path), **arguments) as served:
        yield served


def answer(text: str | Callable[[Environ], str | bytes]) -> App:
    """Make an application that answers with a text, or what a function makes of the environ."""

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        said = text(environ) if callable(text) else text
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [said if isinstance(said, bytes) else said.encode()]

    return application


def returning(body: Any, status: str = "200 OK", headers: list[tuple[str, str]] = PLAIN) -> App:
    """An app that begins its response and returns `body`."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, headers)
        result: Iterable[bytes] = body(environ) if callable(body) else body
        return result

    return app
