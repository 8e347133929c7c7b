"""What it means that an ASGI app has raised."""

from __future__ import annotations

import asyncio

from preforkd.workers import offspring
from preforkd.workers.http.errors import ClientDisconnectedError


def error_of(exc: BaseException) -> BaseException:
    """Make an error of what an app has raised that is none: one request must not end the worker and all others.

    `SystemExit` and `KeyboardInterrupt` would end the loop (a real interrupt never comes: workers leave it to their
    master), a `CancelledError` that nobody has asked for would cut the connection without a word. A real cancellation
    is returned as it is.
    """
    offspring.end_if_strayed(exc)
    if isinstance(exc, Exception | GeneratorExit):  # GeneratorExit: the coroutine is being closed
        return exc
    if isinstance(exc, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return exc
    error = RuntimeError(f"the app raised {type(exc).__name__}")
    error.__cause__ = exc
    return error


def is_disconnect(exc: BaseException | None) -> bool:
    """Whether an exception, or what it came from, is what `send()` raises when the client is gone."""
    seen = 0
    while exc is not None and seen < 50:
        if isinstance(exc, BaseExceptionGroup):
            return all(is_disconnect(one) for one in exc.exceptions)
        if isinstance(exc, ClientDisconnectedError) or type(exc).__name__ == "ClientDisconnect":
            return True
        exc = exc.__cause__ or exc.__context__
        seen += 1
    return False


def gives_up(exc: BaseException) -> bool:
    """Whether an app that was told that nobody waits any more has ended by that: as above, or by cancelling itself."""
    return is_disconnect(exc) or isinstance(exc.__cause__, asyncio.CancelledError)
