"""What an application is can be seen without calling it, and where it cannot, the message says what to do."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest

from preforkd.workers import ServerHttpProtocol
from preforkd.workers.interface import Unclear, interface_of


class Handler(ServerHttpProtocol):
    pass


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi(environ: Any, start_response: Any) -> Any: ...


class Asgi:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class Wsgi:
    def __call__(self, environ: Any, start_response: Any) -> Any: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...


class PlainAsgi:
    def __call__(self, scope: Any, receive: Any, send: Any) -> Any: ...


class WsgiClass:
    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Any: ...


@functools.wraps(wsgi)
def decorated(*args: Any) -> Any: ...


@pytest.mark.parametrize(
    ("found", "interface"),
    [
        (Handler, "protocol"),
        (asgi, "asgi"),
        (Asgi(), "asgi"),
        (Wsgi().method, "asgi"),
        (PlainAsgi(), "asgi"),
        (functools.partial(asgi), "asgi"),
        (lambda scope, receive, send: None, "asgi"),
        (wsgi, "wsgi"),
        (Wsgi(), "wsgi"),
        (WsgiClass, "wsgi"),
        (decorated, "wsgi"),
        (functools.partial(lambda extra, environ, start_response: [], 1), "wsgi"),
    ],
)
def test_what_can_be_told(found: object, interface: str) -> None:
    assert interface_of(found, ServerHttpProtocol) == interface


class Asgi2:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


def asgi2(scope: Any) -> Any: ...


def create() -> Any: ...


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Asgi2, "an ASGI 2 application as it seems: only ASGI 3 can be served"),
        (asgi2, "an ASGI 2 application as it seems: only ASGI 3 can be served"),
        (Asgi, "name an instance, or use --factory to call it"),
        (create, "--factory calls it"),
        (lambda *args: None, "say --interface asgi or --interface wsgi"),
        (lambda a, b, c=None: None, "say --interface asgi or --interface wsgi"),
        (5, "which cannot be called"),
        (None, "None, which cannot be called"),
        (inspect, "a module, which cannot be called"),
        (lambda a, b, c, d: None, "neither the three arguments of ASGI nor the two of WSGI"),
    ],
)
def test_what_cannot_be_told_is_explained(found: object, reason: str) -> None:
    told = interface_of(found, ServerHttpProtocol)
    assert isinstance(told, Unclear)
    assert reason in told.reason
