"""A call that runs in the event loop itself: the fastest way for apps that never wait.

The app does not see that loop: Django's database layer refuses to work in a thread whose loop runs, and `asyncio.run()`
and asgiref, by which Flask and Django run coroutines from WSGI, as well.
"""

from __future__ import annotations

import asyncio

# Of asyncio, for event loops and what replaces them. They cost a request 0.3 us.
from asyncio.events import _get_running_loop, _set_running_loop
from collections.abc import Awaitable, Callable, Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from preforkd.workers import offspring
from preforkd.workers.gateways.wsgi.call import Call, WsgiApp, iterate
from preforkd.workers.gateways.wsgi.file import FileWrapper, Range, sendable
from preforkd.workers.gateways.wsgi.response import WsgiResponse, send_hints
from preforkd.workers.gateways.wsgi.websocket import refuse_websocket
from preforkd.workers.http.done import DONE
from preforkd.workers.http.errors import ResponseError
from preforkd.workers.http.sendfile import send_file

if TYPE_CHECKING:
    from preforkd.workers.gateways.hop_by_hop import HopByHopFields
    from preforkd.workers.gateways.wsgi.environ import Environ
    from preforkd.workers.gateways.wsgi.headers import Fields
    from preforkd.workers.http.exchange import Exchange

T = TypeVar("T")

SPOOL_MAX = 1 << 20
"""Bytes of a body kept in memory; what is longer goes to a temporary file."""


class Gateway(Protocol):
    """What a call wants to know of its gateway, see `WsgiGateway`."""

    app: WsgiApp
    hop_by_hop: HopByHopFields

    def stream_is_over(self, exchange: Exchange, response: WsgiResponse) -> bool:
        """Whether a response is an event stream that has to end, for the worker leaves."""


class LoopCall(Call):
    """One call of the app in the loop.

    Args:
        gateway: the app's.
        exchange: what it answers.

    Attributes:
        response: as soon as something of it was sent.
        result: what the app has returned and is to be closed.
        parts: of it that have not been sent.
        file: what the kernel is to send.
    """

    response: WsgiResponse | None = None
    result: Any = None
    parts: Iterator[bytes] | None = None
    file: Range | None = None

    def __init__(self, gateway: Gateway, exchange: Exchange) -> None:
        self.app = gateway.app
        self.hop_by_hop = gateway.hop_by_hop
        self.exchange = exchange

    def run(self, environ: Environ) -> bool:
        """Call the app and send what it has ready; true: there is more, as `parts` or `file`."""
        # Flat: every request passes here.
        if "HTTP_UPGRADE" in environ:
            refuse_websocket(environ, self.exchange.carrier.logger)
        environ["wsgi.early_hints"] = self.early_hints
        result = self.app(environ, self.start_response)
        kind = type(result)
        if kind is list and len(result) == 1:  # type: ignore[arg-type]  # just looked at
            part = result[0]  # type: ignore[index]  # as above
            begun = self.begun
            if type(part) is bytes and begun is not None and self.response is None:
                self.response = begun
                if not begun.send_whole(part):
                    begun.send_body(part)
                return False
        if (kind is list or kind is tuple) and self.response is None:
            body = self.join(result)  # type: ignore[arg-type]  # just looked at
            response = self.response = self.begun
            if not response.send_whole(body):  # type: ignore[union-attr]  # join() has looked
                response.send_body(body)  # type: ignore[union-attr]  # as above
            return False
        self.result = result
        if kind is FileWrapper and self.response is None and self.begun is not None:
            self.file = sendable(result)  # type: ignore[arg-type]  # as above
            if self.file is not None:
                return True
        self.parts = iterate(result)
        return not self._send_only_part()

    def _send_only_part(self) -> bool:
        """Send the first part; whether it was all, as in most responses of frameworks."""
        for part in self.parts or ():
            self.check_part(part)
            begun = self.begun
            if begun is None or begun.length != len(part) or self.response is not None or type(part) is not bytes:
                if part:
                    self.send(part)
                return False
            self.committed = True
            self.response = begun
            if not begun.send_whole(part):
                begun.send_body(part)
            self.exchange.wire.flush()  # before the iteration goes on: the app may take its time
        if self.response is None:
            self.begin(0)
        return bool(self.response and self.response.ended)

    def send(self, data: bytes) -> None:
        """Write a part of the body; it goes out now, whatever the client can take."""
        response = self.response or self.begin(None)
        response.write(data)
        self.exchange.wire.flush()

    def begin(self, size: int | None) -> WsgiResponse:
        """Send the head; arguments as for `WsgiResponse.begin()`.

        Raises:
            ResponseError: the app has not called `start_response()`.
        """
        response = self.begun
        if response is None:
            raise ResponseError("the app has not called start_response()")
        self.committed = True
        self.response = response
        response.begin(size)
        return response

    def send_hints(self, headers: Fields) -> None:
        """Write an interim response."""
        send_hints(self.exchange, headers)

    def close(self) -> None:
        """Close what the app has returned, once."""
        result, self.result = self.result, None
        close = getattr(result, "close", None)
        if close is None:
            return
        try:
            _guarded(close)
        except Exception as exc:
            if self.response is None or not self.response.is_complete:
                raise
            self.exchange.carrier.report_error("Error in close() of what the app has returned", exc=exc)


def serve_now(
    gateway: Gateway, exchange: Exchange, environ: Environ, loop: asyncio.AbstractEventLoop
) -> Awaitable[None]:
    """Call the app; when what it returns is ready, as mostly, the response is written when this returns.

    Args:
        gateway: knows what is called.
        exchange: what it answers.
        environ: what it is called with.
        loop: the running one; asking for it costs as much as hiding it.
    """
    call = LoopCall(gateway, exchange)
    _set_running_loop(None)
    try:
        if call.run(environ):
            return _send_more(call, gateway)
    except BaseException as exc:
        offspring.end_if_strayed(exc)
        if call.result is not None:
            call.close()
        if not isinstance(exc, Exception):  # nothing was awaited, so it is the app's: also a cancellation
            raise _wrapped(exc) from exc
        raise
    finally:
        _set_running_loop(loop)
    if call.result is not None:
        call.close()
    wire = exchange.wire
    if wire.corked and not wire.paused:
        return DONE
    return wire.drain()


def _wrapped(exc: BaseException) -> RuntimeError:
    # SystemExit would end the worker, from any request that makes an app raise it. GeneratorExit would end the
    # connection's task, which takes it for its own.
    offspring.end_if_strayed(exc)
    return RuntimeError(f"the app raised {type(exc).__name__}")


def _guarded(function: Callable[..., T], *args: Any) -> T:
    """Call code of the app from where something is awaited: whatever comes out of it as an `Exception`."""
    loop = _get_running_loop()
    _set_running_loop(None)
    try:
        return function(*args)
    except Exception:
        raise
    except BaseException as exc:
        raise _wrapped(exc) from exc
    finally:
        _set_running_loop(loop)


async def _send_more(call: LoopCall, gateway: Gateway) -> None:
    """Send what is left, and let the loop turn after each part."""
    exchange = call.exchange
    wire = exchange.wire
    try:
        if call.file is not None:
            size = call.file.size if call.begun is None or call.begun.length is None else call.begun.length
            response = call.begin(size)
            if response.takes_body():
                await send_file(response, wire, call.file.descriptor, call.file.offset)
        else:
            parts = call.parts
            while parts is not None:
                await wire.drain()
                await asyncio.sleep(0)  # also lets the end of the connection cancel this
                if call.response is not None and gateway.stream_is_over(exchange, call.response):
                    break
                part = _guarded(next, parts, None)
                if part is None:
                    break
                call.check_part(part)
                if part:
                    call.send(part)
        await (call.response or call.begin(0)).write_eof()
        wire.flush()  # before close(): the app may take its time
    finally:
        call.close()


async def serve_buffered(gateway: Gateway, exchange: Exchange, environ: Environ) -> None:
    """Call the app when all of the request's body is there: it cannot be waited for in the loop."""
    payload = exchange.body
    body = BytesIO()  # no list of parts: a client that dribbles would make a million objects of them
    while body.tell() <= SPOOL_MAX and not payload.at_eof():
        body.write(await payload.readany())
    if payload.at_eof():
        body.seek(0)
        environ["wsgi.input"] = body
        await serve_now(gateway, exchange, environ, asyncio.get_running_loop())
        return
    import tempfile  # few bodies are so long, and it takes 2 ms to import

    with tempfile.TemporaryFile() as file:
        file.write(body.getbuffer())
        body.close()
        async for part in payload:
            file.write(part)
        file.seek(0)
        environ["wsgi.input"] = file
        await serve_now(gateway, exchange, environ, asyncio.get_running_loop())
