"""Each request's own context in a task that serves many.

A task cannot change its context, and one task serves all requests of a connection (another one for each would cost 2 us
and a turn of the loop). So each step of the app is run in its request's context. Tasks that the app starts inherit that
context, as ever.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context
from types import CoroutineType, coroutine
from typing import Any


def makes_coroutines(function: Callable[..., Awaitable[Any]]) -> bool:
    """Whether calling it runs nothing yet: a coroutine function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def call_in(context: Context, function: Callable[..., Awaitable[Any]], *args: object) -> Any:
    """Call a function in a context; return what it made as something with `send`, `throw` and `close`."""
    awaitable = context.run(function, *args)
    return awaitable if awaitable.__class__ is CoroutineType else context.run(awaitable.__await__)


@coroutine
def go_on_in(context: Context, steps: Any, waiting: Any) -> Generator[Any, Any, Any]:
    """Await, in a context, the rest of a coroutine whose first step was made already.

    Args:
        context: to run its steps in.
        steps: the coroutine.
        waiting: what its first step waits for.
    """
    run, send = context.run, steps.send
    try:
        while True:
            try:
                value = yield waiting
            except GeneratorExit:
                run(steps.close)
                raise
            except BaseException as exc:  # noqa: BLE001 -- handed on: the app's to deal with, a cancellation for instance
                waiting = run(steps.throw, exc)
            else:
                waiting = run(send, value)
    except StopIteration as stop:
        return stop.value


async def run_in(context: Context, function: Callable[..., Awaitable[Any]], *args: object) -> None:
    """Call and await `function(*args)` in a context, in the task that awaits this."""
    steps = call_in(context, function, *args)
    try:
        waiting = context.run(steps.send, None)
    except StopIteration:
        return
    await go_on_in(context, steps, waiting)
