"""What kind of application an object is, by what can be seen of it without calling it."""

from __future__ import annotations

import inspect
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from preforkd.workers.callables import Run, run_of
from preforkd.workers.records import dataclass

INTERFACES = ("protocol", "asgi", "wsgi")

_CALLS = {
    "asgi": (3, "the three arguments of ASGI (scope, receive, send)"),
    "wsgi": (2, "the two arguments of WSGI (environ, start_response)"),
}
_SAY = "it cannot be told how it wants to be called: say --interface asgi or --interface wsgi"
_NEITHER = "takes neither the three arguments of ASGI nor the two of WSGI"
PLAIN_FACTORY = "a factory has to be a plain function, for --factory does not await what it returns"


@dataclass(frozen=True, slots=True)
class Unclear:
    """It cannot be told, or is none that can be served.

    Attributes:
        reason: completes "APP is ...".
        factory: what --factory would do; empty: nothing to mention.
    """

    reason: str
    factory: str = ""


def interface_of(found: object, protocol: type) -> str | Unclear:
    """Return "protocol", "asgi" or "wsgi", or why that cannot be told.

    ASGI 3 is a coroutine function of three arguments, or an object whose `__call__` is one; WSGI takes two (PEP 3333).

    Args:
        found: the application.
        protocol: the class `ServerHttpProtocol`.
    """
    try:
        return _tell(found, protocol)
    except Exception:  # noqa: BLE001 -- the object's own code: a proxy that stands for nothing yet raises at every question
        return Unclear(f"{_object(found)}, and {_SAY}")


def contradiction(found: object, interface: str) -> str:
    """Say why an object cannot be of an interface, whatever it may do when it is called; empty: it can.

    Only what is certain counts: every request would be answered 500. Where it cannot be known the user's word is taken.

    Args:
        found: the application; may be of any kind.
        interface: "asgi" or "wsgi".
    """
    run = run_of(found)
    if run is None:
        return ""
    count, arguments = _CALLS[interface]
    if not run.takes(count):
        return f"it does not take {arguments}"
    if interface == "asgi":
        return _contradicts_asgi(run)
    return _contradicts_wsgi(run)


def _contradicts_asgi(run: Run) -> str:
    if run.made is not None and not hasattr(run.made, "__await__"):
        return "its instances cannot be awaited"
    return "it returns a generator, which cannot be awaited" if run.gives.endswith("generator") else ""


def _contradicts_wsgi(run: Run) -> str:
    if run.made is not None and not (hasattr(run.made, "__iter__") or hasattr(run.made, "__getitem__")):
        return "its instances cannot be iterated over"
    return "it is asynchronous" if run.gives in ("coroutine", "async generator") else ""


def _tell(found: Any, protocol: type) -> str | Unclear:
    if isinstance(found, type):
        return _of_class(found, protocol)
    if isinstance(found, protocol):
        return Unclear(f"an instance of {type(found).__name__}: name the class itself")
    if not callable(found):
        return Unclear(f"{kind(found)}, which cannot be called")
    if _is_wsgiref_validator(found):
        return "wsgi"
    shown = _Shown.of(found)
    if shown is None:
        return Unclear(f"{kind(found)}, and {_SAY}")
    gives = _gives(found)
    if gives == "coroutine":
        return _of_coroutine_function(found, shown)
    if gives == "async generator":
        return Unclear(f"{kind(found)} that returns an async generator: neither ASGI nor WSGI has such")
    return _of_function(found, shown, is_generator=gives == "generator")


def _of_class(found: type, protocol: type) -> str | Unclear:
    if issubclass(found, protocol):
        return "protocol"
    shown = _Shown.of(found)
    # A class as an application: an instance is what ASGI awaits, as Starlette's endpoints, or WSGI iterates over.
    if shown and shown.takes == [3] and hasattr(found, "__await__"):
        return "asgi"
    if shown and 2 in shown.takes and hasattr(found, "__iter__"):
        return "wsgi"
    name = kind(found)
    if shown and 1 in shown.takes and inspect.iscoroutinefunction(getattr(found, "__call__", None)):  # noqa: B004 -- its kind matters
        return Unclear(f"{name}, an ASGI 2 application as it seems: only ASGI 3 can be served")
    return Unclear(f"{name}, not an application: name an instance", "calls it" if shown and 0 in shown.takes else "")


def _of_coroutine_function(found: object, shown: _Shown) -> str | Unclear:
    if 3 in shown.takes:
        return "asgi"
    reason = f"{kind(found)}, which does not take the three arguments of ASGI"
    return Unclear(f"{reason}; {PLAIN_FACTORY}" if 0 in shown.takes else reason)


def _of_function(found: object, shown: _Shown, *, is_generator: bool) -> str | Unclear:
    name = kind(found)
    takes = shown.takes
    if takes == [3] and not is_generator:
        # A plain function may return a coroutine, as a decorated application does: nothing else takes three arguments.
        return "asgi"
    if takes == [2]:
        return "wsgi"
    if takes in ([], [3]):
        return Unclear(f"{name}, which {_NEITHER}")
    if takes == [0]:
        return Unclear(f"{name}, which {_NEITHER}", "calls it")
    if 0 in takes and not shown.takes_any:
        # What an interface gives has no defaults in any application.
        return Unclear(f"{name} that can be called without arguments, and so no application", "calls it")
    if takes == [1]:
        return Unclear(
            f"{name} of one argument: an ASGI 2 application, of which only ASGI 3 can be served, or a factory that "
            "needs an argument, which --factory does not give"
        )
    hint = 0 in takes and not _is_looked_up(found)
    return Unclear(f"{name}, and {_SAY}", "calls it if it makes the application" if hint else "")


def _is_looked_up(found: object) -> bool:
    """Whether code of its class looks up for each call what is run, as in a proxy.

    From Python 3.13 on `inspect.signature()` follows that, to a function that hands any arguments on.
    """
    call = inspect.getattr_static(type(found), "__call__", None)
    return isinstance(call, property) or type(inspect.getattr_static(type(call), "__get__", None)) is FunctionType


def _is_wsgiref_validator(found: object) -> bool:
    """Whether it is a `wsgiref.validate.validator(app)`: a function of `*args` that only looks at what passes."""
    return type(found) is FunctionType and (found.__module__, found.__name__) == ("wsgiref.validate", "lint_app")


def kind(found: object) -> str:
    """Say in words what was found."""
    actual = type(found)  # not isinstance(): a proxy answers for another, or raises
    if issubclass(actual, ModuleType):
        return "a module"
    if issubclass(actual, type):
        return f"the class {found.__qualname__}"  # type: ignore[attr-defined]  # as just looked at
    if actual in (FunctionType, MethodType, BuiltinFunctionType):
        return "a coroutine function" if inspect.iscoroutinefunction(found) else "a function"
    return "None" if found is None else _object(found)


def _object(found: object) -> str:
    return f"an object of {type(found).__module__}.{type(found).__qualname__}"


def is_coroutine_function(found: object) -> bool:
    """Whether a call of it returns a coroutine, as far as can be seen."""
    return not isinstance(found, type) and _gives(found) == "coroutine"


def _gives(found: Any) -> str:
    run = run_of(found)
    if run is not None and run.gives:
        return run.gives
    # Marked as a coroutine function although it is none, or an object that answers for another.
    marked = inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(getattr(found, "__call__", None))  # noqa: B004 -- its kind matters
    return "coroutine" if marked else ""


@dataclass(frozen=True, slots=True)
class _Shown:
    """How a callable wants to be called, as it shows.

    Attributes:
        takes: the numbers of positional arguments, from 0 to 3, that it can be called with.
        takes_any: it has `*args`.
    """

    takes: list[int]
    takes_any: bool

    @classmethod
    def of(cls, found: object) -> _Shown | None:
        """Look at it; None: it shows nothing."""
        run = run_of(found)
        if run is not None and not run.takes_any:
            return cls([count for count in range(4) if run.takes(count)], takes_any=False)
        try:
            # A decorated function shows what it wraps; but what a proxy has by that name is where it gets its object.
            signature = inspect.signature(found, follow_wrapped=run is not None or _wraps(found))  # type: ignore[arg-type]  # only what can be called comes here
        except (TypeError, ValueError):
            return None
        kinds = [parameter.kind for parameter in signature.parameters.values()]
        return cls([count for count in range(4) if _binds(signature, count)], inspect.Parameter.VAR_POSITIONAL in kinds)


def _wraps(found: object) -> bool:
    """Whether `functools.wraps()` was used on it."""
    try:
        return "__wrapped__" in object.__getattribute__(found, "__dict__")
    except AttributeError:
        return False


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True
