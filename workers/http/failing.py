"""What is done with an exception of a handler: who is to know of it, and what its client is answered."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from preforkd.workers.http.error_page import FINAL_STATUSES
from preforkd.workers.http.errors import ClientDisconnectedError, HttpProcessingError
from preforkd.workers.http.states import ConnectionState

if TYPE_CHECKING:
    from preforkd.workers.http.exchange import Exchange
    from preforkd.workers.http.host import Host
    from preforkd.workers.http.running import Runner

# An override of a log method that fails must not reach the client, nor end the connection. It does not wait, so a
# CancelledError out of it is its own.
LOG_MAY_FAIL = contextlib.suppress(Exception, asyncio.CancelledError)


def is_for_the_loop(exc: BaseException, connection: Host, runner: Runner, exchange: Exchange) -> bool:
    """Whether an exception of a handler ends the connection's task: the loop's own cancellation, KeyboardInterrupt."""
    if not isinstance(exc, asyncio.CancelledError):
        return not isinstance(exc, Exception)
    if connection.transport is None or connection.state is not ConnectionState.ACTIVE or exchange.has_expired:
        return False
    return runner.task is not None and runner.task.cancelling() > 0


async def answer_failure(exc: BaseException, connection: Host, runner: Runner, exchange: Exchange) -> bool:
    """Answer what a handler has raised; false: there is nobody to answer."""
    if connection.state is ConnectionState.UPGRADED:
        if not isinstance(exc, ClientDisconnectedError | asyncio.CancelledError):
            connection.report_error(
                "Error in the handler that has taken over the connection of %s", exchange.request, exc=exc
            )
        connection.abort()
        return True
    if connection.transport is None or connection.state is not ConnectionState.ACTIVE:
        return False
    if exchange.has_expired and isinstance(exc, asyncio.CancelledError) and runner.task is not None:
        runner.task.uncancel()
        exc = HttpProcessingError(503, "The request took too long")
    if isinstance(exc, ClientDisconnectedError):
        with LOG_MAY_FAIL:
            connection.log_debug("The client is gone: %s", exc)
    elif isinstance(exc, HttpProcessingError) and exc.code in FINAL_STATUSES:
        await answer_error(connection, runner, exchange, exc.code, exc, exc.headers, exc.message or None)
    else:
        await answer_error(connection, runner, exchange, 500, exc)
    return True


async def answer_error(connection: Host, runner: Runner, exchange: Exchange, status: int, *args: object) -> None:
    """Call `handle_error()`, which a subclass may have overridden and which may fail in turn.

    Args:
        connection, runner: of the request.
        exchange: the request.
        status: what to answer.
        args: more arguments for `handle_error()`, behind the body.
    """
    exchange.keep_alive = False  # said in a head that is still to be written, whatever the override waits for
    try:
        await connection.handle_error(status, exchange.request, exchange.body, *args)  # type: ignore[arg-type]  # passed on as they came
    except Exception:  # noqa: BLE001 -- a subclass's own: the connection closes whatever it did
        log_failure(connection, "Error in handle_error()")
    except asyncio.CancelledError:
        if runner.task is None or runner.task.cancelling():
            raise
        log_failure(connection, "Error in handle_error()")
    exchange.keep_alive = False


def log_failure(connection: Host, text: str) -> None:
    """Call `log_exception()`, which a subclass may have overridden and which may fail in turn."""
    with LOG_MAY_FAIL:
        connection.log_exception(text)
