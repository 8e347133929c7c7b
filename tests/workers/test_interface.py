"""What an application is can be seen without calling it, and where it cannot, the message says what to do."""

from __future__ import annotations

import functools
import inspect
from typing import Any
from wsgiref.validate import validator

import pytest

from preforkd.workers import ServerHttpProtocol
from preforkd.workers.interface import Unclear, contradiction, interface_of, kind


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


class AwaitedClass:
    """As Starlette's endpoints: an instance answers one request when it is awaited."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def __await__(self) -> Any: ...


class Static:
    @staticmethod
    async def asgi(scope: Any, receive: Any, send: Any) -> None: ...

    @classmethod
    def wsgi(cls, environ: Any, start_response: Any) -> Any: ...


class StaticCall:
    @staticmethod
    async def __call__(scope: Any, receive: Any, send: Any) -> None: ...


class ClassCall:
    @classmethod
    def __call__(cls, environ: Any, start_response: Any) -> Any: ...


class Forwards:
    """A middleware or proxy that is written in Python and shows what it stands for."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.found, name)

    def __call__(self, *args: Any) -> Any: ...


class Decorates:
    """A decorator that is a class."""

    def __init__(self, found: Any) -> None:
        functools.update_wrapper(self, found)

    def __call__(self, *args: Any, **keywords: Any) -> Any: ...


@functools.wraps(wsgi)
def decorated(*args: Any) -> Any: ...


@functools.wraps(asgi)
def decorated_asgi(*args: Any, **keywords: Any) -> Any: ...


@functools.wraps(asgi)
async def decorated_async(*args: Any, **keywords: Any) -> Any: ...


@functools.wraps(wsgi)
async def asgi_of_wsgi(scope: Any, receive: Any, send: Any) -> Any: ...


async def anything_async(*args: Any) -> Any: ...


async def asgi_with_more(scope: Any, receive: Any, send: Any, *, more: Any) -> None: ...


async def asgi_with_defaults(scope: Any = None, receive: Any = None, send: Any = None) -> None: ...


def wsgi_generator(environ: Any, start_response: Any) -> Any:
    yield b""


@pytest.mark.parametrize(
    ("found", "interface"),
    [
        (Handler, "protocol"),
        (asgi, "asgi"),
        (Asgi(), "asgi"),
        (Wsgi().method, "asgi"),
        (PlainAsgi(), "asgi"),
        (PlainAsgi().__call__, "asgi"),
        (AwaitedClass, "asgi"),
        (Static.asgi, "asgi"),
        (StaticCall(), "asgi"),
        (functools.partial(asgi), "asgi"),
        (functools.partial(asgi_with_more, more=1), "asgi"),
        (functools.partial(Wsgi().method), "asgi"),
        (functools.partial(Asgi()), "asgi"),
        (lambda scope, receive, send: None, "asgi"),
        (decorated_asgi, "asgi"),
        (decorated_async, "asgi"),
        (asgi_of_wsgi, "asgi"),
        (anything_async, "asgi"),
        (asgi_with_defaults, "asgi"),
        (Forwards(asgi), "asgi"),
        (Decorates(asgi), "asgi"),
        (wsgi, "wsgi"),
        (Wsgi(), "wsgi"),
        (Wsgi().__call__, "wsgi"),
        (Static.wsgi, "wsgi"),
        (ClassCall(), "wsgi"),
        (WsgiClass, "wsgi"),
        (decorated, "wsgi"),
        (Forwards(wsgi), "wsgi"),
        (Decorates(wsgi), "wsgi"),
        (wsgi_generator, "wsgi"),
        (functools.partial(lambda extra, environ, start_response: [], 1), "wsgi"),
        (validator(wsgi), "wsgi"),
    ],
)
def test_what_can_be_told(found: object, interface: str) -> None:
    assert interface_of(found, ServerHttpProtocol) == interface
    if interface != "protocol":
        assert contradiction(found, interface) == "", "what is found by itself may be said too"


def test_applications_of_frameworks_are_told() -> None:
    endpoints = pytest.importorskip("starlette.endpoints")
    applications = pytest.importorskip("starlette.applications")
    flask = pytest.importorskip("flask")
    endpoint = type("Endpoint", (endpoints.HTTPEndpoint,), {})
    told = [interface_of(one, ServerHttpProtocol) for one in (endpoint, applications.Starlette(), flask.Flask("a"))]
    assert told == ["asgi", "asgi", "wsgi"]


class Asgi2:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


def asgi2(scope: Any) -> Any: ...


class Asgi2Instance:
    def __call__(self, scope: Any) -> Any: ...


def create() -> Any: ...


def create_app(config: Any = None) -> Any:
    """As Flask's documentation has it."""


def create_with_options(config: Any = None, *, debug: bool = False, **more: Any) -> Any: ...


def create_three(one: int = 1, two: int = 2, three: int = 3) -> Any: ...


async def create_async() -> Any: ...


async def create_async_app(config: Any = None) -> Any: ...


async def two(environ: Any, start_response: Any) -> Any: ...


async def events(scope: Any, receive: Any, send: Any) -> Any:
    yield b""


def generator_of_three(scope: Any, receive: Any, send: Any) -> Any:
    yield b""


class LooksUp:
    """A proxy as those of werkzeug: code of its own finds for each call what is run."""

    class Lookup:
        def __get__(self, instance: object, owner: type) -> Any:
            return self if instance is None else lambda *args: None

    __call__ = Lookup()


class Finds:
    """The same, as a property."""

    @property
    def __call__(self) -> Any:
        return lambda *args: None


class Unsigned:
    """Says that it can be called, and not how: as a proxy, or what is written in C."""

    __signature__ = "none"

    __call__ = min


SAY = "say --interface asgi or --interface wsgi"


@pytest.mark.parametrize(
    ("found", "reason", "factory"),
    [
        (Asgi2, "an ASGI 2 application as it seems: only ASGI 3 can be served", ""),
        (asgi2, "an ASGI 2 application, of which only ASGI 3 can be served, or a factory that needs an argument", ""),
        (Asgi2Instance(), "an ASGI 2 application, of which only ASGI 3 can be served", ""),
        (Asgi, "not an application: name an instance", "calls it"),
        (create, "neither the three arguments of ASGI nor the two of WSGI", "calls it"),
        (create_app, "a function that can be called without arguments, and so no application", "calls it"),
        (create_with_options, "can be called without arguments", "calls it"),
        (create_three, "can be called without arguments", "calls it"),
        (functools.partial(asgi2, 1), "neither the three arguments", "calls it"),
        (create_async, "a factory has to be a plain function", ""),
        (create_async_app, "a factory has to be a plain function", ""),
        (two, "a coroutine function, which does not take the three arguments of ASGI", ""),
        (events, "returns an async generator: neither ASGI nor WSGI has such", ""),
        (generator_of_three, "neither the three arguments", ""),
        (lambda *args: None, SAY, "calls it if it makes the application"),
        (lambda a, b, c=None: None, SAY, ""),
        (lambda a, b=None: None, SAY, ""),
        (Unsigned(), SAY, ""),
        (LooksUp(), SAY, ""),
        (Finds(), SAY, ""),
        (5, "which cannot be called", ""),
        (None, "None, which cannot be called", ""),
        (inspect, "a module, which cannot be called", ""),
        (lambda a, b, c, d: None, "neither the three arguments of ASGI nor the two of WSGI", ""),
    ],
)
def test_what_cannot_be_told_is_explained(found: object, reason: str, factory: str) -> None:
    told = interface_of(found, ServerHttpProtocol)
    assert isinstance(told, Unclear)
    assert reason in told.reason
    assert told.factory == factory


def test_a_proxy_that_stands_for_nothing_yet_is_told_to_say_its_interface() -> None:
    class Unbound:
        @property  # type: ignore[misc]  # as proxies do
        def __class__(self) -> Any:
            raise RuntimeError("working outside of a context")

        def __call__(self, *args: Any) -> Any: ...

    told = interface_of(Unbound(), ServerHttpProtocol)
    assert isinstance(told, Unclear)
    assert SAY in told.reason
    assert contradiction(Unbound(), "wsgi") == ""
    assert kind(Unbound()).startswith("an object of tests.")


def test_a_proxy_of_werkzeug_is_told_to_say_its_interface() -> None:
    local = pytest.importorskip("werkzeug.local")
    flask = pytest.importorskip("flask")
    for proxy in (local.LocalProxy(lambda: flask.Flask("a")), flask.current_app):
        told = interface_of(proxy, ServerHttpProtocol)
        assert isinstance(told, Unclear)
        assert SAY in told.reason
        assert not told.factory
        assert not contradiction(proxy, "wsgi"), "what it stands for is its own affair"


ASGI_TAKES = "it does not take the three arguments of ASGI"
WSGI_TAKES = "it does not take the two arguments of WSGI"


@pytest.mark.parametrize(
    ("found", "interface", "why"),
    [
        (wsgi, "asgi", ASGI_TAKES),
        (Wsgi(), "asgi", ASGI_TAKES),
        (Wsgi().__call__, "asgi", ASGI_TAKES),
        (two, "asgi", ASGI_TAKES),
        (create, "asgi", ASGI_TAKES),
        (asgi_with_more, "asgi", ASGI_TAKES),
        (functools.partial(asgi, 1), "asgi", ASGI_TAKES),
        (Asgi, "asgi", ASGI_TAKES),
        (WsgiClass, "asgi", ASGI_TAKES),
        (events, "asgi", "it returns a generator, which cannot be awaited"),
        (generator_of_three, "asgi", "it returns a generator, which cannot be awaited"),
        (type("Three", (), {"__init__": lambda self, a, b, c: None}), "asgi", "its instances cannot be awaited"),
        (asgi, "wsgi", WSGI_TAKES),
        (Asgi(), "wsgi", WSGI_TAKES),
        (asgi_of_wsgi, "wsgi", WSGI_TAKES),
        (AwaitedClass, "wsgi", WSGI_TAKES),
        (Wsgi, "wsgi", WSGI_TAKES),
        (two, "wsgi", "it is asynchronous"),
        (decorated_async, "wsgi", "it is asynchronous"),
        (type("Two", (), {"__init__": lambda self, a, b: None}), "wsgi", "its instances cannot be iterated over"),
    ],
)
def test_what_the_signature_proves_to_be_wrong_is_said(found: object, interface: str, why: str) -> None:
    assert contradiction(found, interface).startswith(why)


class Signed:
    __signature__ = inspect.signature(wsgi)

    def __call__(self, *args: Any) -> Any: ...


class Made:
    def __new__(cls, *args: Any) -> Any: ...


class TwoOrThree:
    def __call__(self, one: Any, two: Any, three: Any = None) -> Any: ...


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
@pytest.mark.parametrize(
    "found",
    [
        decorated,
        decorated_asgi,
        Forwards(wsgi),
        Decorates(asgi),
        Signed(),
        Made,
        TwoOrThree(),
        Unsigned(),
        min,
    ],
)
def test_where_nothing_is_proved_the_users_word_is_taken(found: object, interface: str) -> None:
    assert contradiction(found, interface) == ""
