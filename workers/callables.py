"""What a call of an object runs, as far as that can be known without calling it.

`inspect.signature()` says what an object wants to be taken for: a decorated function shows the signature of what it
wraps, and `__signature__` may say anything. What a call really takes is known where it ends in a function that is
written in Python; for anything else, a proxy for instance, nothing is said.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import replace
from types import FunctionType, MethodType
from typing import Any

from preforkd.workers.records import dataclass

_PLACEHOLDER = getattr(functools, "Placeholder", object())  # of a partial, from Python 3.14 on


@dataclass(frozen=True, slots=True)
class Run:
    """The function that a call runs in the end.

    Attributes:
        function: written in Python.
        before: its first arguments, which are not the caller's.
        keywords: that it is given besides.
        made: the class whose instance the call makes; None: it returns what the function does.
    """

    function: FunctionType
    before: tuple[object, ...] = ()
    keywords: tuple[tuple[str, object], ...] = ()
    made: type | None = None

    def takes(self, count: int) -> bool:
        """Whether a call with so many positional arguments gets as far as the first line of the function."""
        try:
            self._signature().bind(*self.before, *range(count), **dict(self.keywords))
        except TypeError:
            return False
        return True

    @property
    def takes_any(self) -> bool:
        """It has `*args`, so that how many it wants cannot be seen."""
        return bool(self.function.__code__.co_flags & inspect.CO_VARARGS)

    @property
    def gives(self) -> str:
        """What the call returns: "coroutine", "async generator", "generator", or "" where that cannot be seen."""
        flags = self.function.__code__.co_flags
        if self.made is not None or flags & inspect.CO_ITERABLE_COROUTINE:  # types.coroutine: both at once
            return ""
        if flags & inspect.CO_COROUTINE:
            return "coroutine"
        if flags & inspect.CO_ASYNC_GENERATOR:
            return "async generator"
        return "generator" if flags & inspect.CO_GENERATOR else ""

    def _signature(self) -> inspect.Signature:
        function = self.function
        # A copy has neither __wrapped__ nor __signature__.
        own = FunctionType(function.__code__, {}, "own", function.__defaults__, function.__closure__)
        own.__kwdefaults__ = function.__kwdefaults__
        return inspect.signature(own)


def run_of(found: object) -> Run | None:
    """Return what a call of `found` runs; None: that cannot be known, or it cannot be called."""
    kind = type(found)  # not isinstance(), which asks the object itself: a proxy answers for another
    if kind is FunctionType:
        return Run(found)  # type: ignore[arg-type]  # as just looked at
    if kind is MethodType:
        return _behind(run_of(found.__func__), found.__self__)  # type: ignore[attr-defined]  # as above
    if kind is functools.partial:
        return _of_partial(found)  # type: ignore[arg-type]  # as above
    if issubclass(kind, type):
        return _of_class(found)  # type: ignore[arg-type]  # as above
    call = inspect.getattr_static(kind, "__call__", None)
    if type(call) is staticmethod:
        return run_of(call.__func__)
    if type(call) is classmethod:
        return _behind(run_of(call.__func__), kind)
    return Run(call, before=(found,)) if type(call) is FunctionType else None


def _behind(run: Run | None, *before: object) -> Run | None:
    return run and replace(run, before=(*run.before, *before))


def _of_partial(found: functools.partial[Any]) -> Run | None:
    run = run_of(found.func)
    if run is None or any(argument is _PLACEHOLDER for argument in found.args):
        return None
    return replace(
        run,
        before=(*run.before, *found.args),
        keywords=tuple({**dict(run.keywords), **found.keywords}.items()),
    )


def _of_class(found: type) -> Run | None:
    if type(found).__call__ is not type.__call__ or found.__new__ is not object.__new__:  # type: ignore[comparison-overlap]  # they are the same where neither is overridden
        return None  # what comes out need not be an instance
    init = inspect.getattr_static(found, "__init__")
    if init is object.__init__:
        init = _no_arguments
    return Run(init, before=(found,), made=found) if type(init) is FunctionType else None


def _no_arguments(self: object) -> None:
    """As `object.__init__`."""
