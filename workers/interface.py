"""What kind of application an object is, by what can be seen of it without calling it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

INTERFACES = ("protocol", "asgi", "wsgi")


@dataclass(frozen=True, slots=True)
class Unclear:
    """It cannot be told, or is none that can be served; `reason` completes "APP is ..."."""

    reason: str


def interface_of(found: object, protocol: type) -> str | Unclear:
    """Return "protocol", "asgi" or "wsgi", or why that cannot be told.

    ASGI 3 is a coroutine function of three arguments, or an object whose `__call__` is one; WSGI takes two (PEP 3333).

    Args:
        found: the application.
        protocol: the class `ServerHttpProtocol`.
    """
    if isinstance(found, type):
        return _of_class(found, protocol)
    if isinstance(found, protocol):
        return Unclear(f"an instance of {type(found).__name__}: name the class itself")
    if not callable(found):
        return Unclear(f"{kind(found)}, which cannot be called")
    if _takes(found, 3) and _is_coroutine_function(found):
        return "asgi"
    takes = [count for count in (3, 2, 1) if _takes(found, count)]
    if takes == [2] and not _is_coroutine_function(found):
        return "wsgi"
    return _of_arguments(found, takes)


def _of_class(found: type, protocol: type) -> str | Unclear:
    if issubclass(found, protocol):
        return "protocol"
    if _takes(found, 2) and hasattr(found, "__iter__"):
        return "wsgi"  # a class as an application: an instance is what WSGI iterates over
    if _takes(found, 1) and _is_coroutine_function(getattr(found, "__call__", None)):  # noqa: B004 -- its kind matters
        return Unclear(f"the class {found.__qualname__}, an ASGI 2 application as it seems: only ASGI 3 can be served")
    return Unclear(f"the class {found.__qualname__}, not an application: name an instance, or use --factory to call it")


def _of_arguments(found: Any, takes: list[int]) -> Unclear | str:
    """What a callable is that has none of the plain forms."""
    name = kind(found)
    if takes == [3]:
        # A plain function may return a coroutine, as a decorated application does: nothing else takes three arguments.
        return "asgi"
    if not takes:
        hint = "; --factory calls it" if inspect.isroutine(found) and _takes(found, 0) else ""
        return Unclear(f"{name}, which takes neither the three arguments of ASGI nor the two of WSGI{hint}")
    if takes == [1]:
        return Unclear(f"{name} of one argument, an ASGI 2 application as it seems: only ASGI 3 can be served")
    return Unclear(f"{name}, and it cannot be told how it wants to be called: say --interface asgi or --interface wsgi")


def kind(found: object) -> str:
    """Say in words what was found."""
    if inspect.ismodule(found):
        return "a module"
    if isinstance(found, type):
        return f"the class {found.__qualname__}"
    if inspect.iscoroutinefunction(found):
        return "a coroutine function"
    if inspect.isroutine(found):
        return "a function"
    return "None" if found is None else f"an object of {type(found).__module__}.{type(found).__qualname__}"


def _is_coroutine_function(found: Any) -> bool:
    while hasattr(found, "func") and hasattr(found, "keywords"):  # functools.partial
        found = found.func
    return inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(getattr(found, "__call__", None))  # noqa: B004 -- as above


def _takes(function: Any, count: int) -> bool:
    """Whether a callable takes that many positional arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True
