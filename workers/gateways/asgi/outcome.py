"""What becomes of a request when its ASGI app has returned, or has raised."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from preforkd.workers.gateways.asgi.failures import gives_up, is_disconnect
from preforkd.workers.gateways.asgi.http_call import COMPLETE
from preforkd.workers.http.errors import ClientDisconnectedError, HttpProcessingError
from preforkd.workers.http.exchange import ANSWERED

if TYPE_CHECKING:
    from preforkd.workers.gateways.asgi.http_call import HttpCall


def conclude(call: HttpCall) -> None:
    """The app has returned, and has left something open: its response, the body, or who waits in `receive()`.

    Raises:
        HttpProcessingError: the app has not answered, and it is the request that was wrong, or the worker that leaves.
    """
    fault = call.payload_fault if call.response is None else None
    call.end()
    if call.phase != COMPLETE and (call.leaves or call.gateway.drained_by is not None):
        _end_left_stream(call)
    if fault is not None:  # the app was told that its client is gone, but it is there, and sent a bad body
        try:
            raise fault
        finally:
            del fault  # a frame and an exception that hold each other wait for the collector


def app_has_failed(call: HttpCall, exc: BaseException) -> None:
    """Deal with an exception of the app; what the core answers better is raised again.

    Raises:
        BaseException: the app has not finished its response: the core answers 500, or cuts the connection.
    """
    carrier = call.exchange.carrier
    if call.is_detached:
        if not isinstance(exc, Exception):
            raise exc
        carrier.report_error("Error in the app behind its response to %s", call.message, exc=exc)
        return
    call.exchange.observer = ANSWERED
    call.end()
    if call.leaves and call.phase != COMPLETE and _ends_told_stream(call, exc):
        return
    if not isinstance(exc, Exception):
        raise exc
    if carrier.may_have_left() and (gives_up(exc) if call.was_told else is_disconnect(exc)):
        call.was_told = True
        return
    if call.phase == COMPLETE:
        if not (call.is_gone and is_disconnect(exc)):  # the client left while the last part waited for it
            carrier.report_error("The app has answered %s and then raised", call.message, exc=exc)
        return
    if call.is_gone:
        if not gives_up(exc):
            carrier.report_error("Error in the app for %s, whose client is gone", call.message, exc=exc)
        raise ClientDisconnectedError("the client is gone") from exc
    fault = call.payload_fault
    if fault is not None and call.response is None:
        raise fault  # the app has only told us that its body was bad: 400, 408 or 413 says it better than 500
    raise exc


def _ends_told_stream(call: HttpCall, exc: BaseException) -> bool:
    """Whether an app has raised because it was told to end its stream, in one of the ways that apps have."""
    exchange = call.exchange
    if not exchange.is_open or exchange.has_expired:
        return False  # the client is gone, or it is cut
    task = asyncio.current_task()
    if isinstance(exc, asyncio.CancelledError) and task is not None:
        while task.cancelling():
            task.uncancel()  # what it has been told by has cancelled it
        return True
    return gives_up(exc)


def _end_left_stream(call: HttpCall) -> None:
    """The app has ended its stream because it was told that its worker leaves, as it should, or knew it itself."""
    exchange = call.exchange
    if not exchange.is_open or call.end_stream() or not call.leaves:
        return
    if exchange.wire.response is None:
        raise HttpProcessingError(503, headers={"Retry-After": "1"})
    exchange.keep_alive = False  # nobody is to blame for an unfinished response
    with contextlib.suppress(Exception, asyncio.CancelledError):
        exchange.carrier.logger.warning(
            "The response to %s is cut: its app ends it, for its worker leaves", call.message
        )
