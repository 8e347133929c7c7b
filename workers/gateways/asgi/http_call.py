"""One HTTP request of an ASGI app: its `receive` and `send`, and what may be sent when.

The rules (ASGI HTTP message format):

* HEAD: `http.response.start` has to come; early hints may. A head is kept back until the first part of the body.
* BODY: parts of the body, or one file, or early hints until the first of them. The last part has no `more_body`.
* FILE: nothing; the file is being sent, and what came in between would be taken for a part of it.
* TRAILERS: only if `http.response.start` has announced them.
* COMPLETE: nothing more. What is sent all the same is an error of the app and changes nothing on the wire.

An error of the app is raised into the app. Once the client is gone `send()` raises `ClientDisconnectedError`, an
`OSError`, and `receive()` says `http.disconnect`: some apps wait for the one, some for the other.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from preforkd.workers.gateways.asgi.errors import AsgiProtocolError
from preforkd.workers.gateways.asgi.file import send_path
from preforkd.workers.gateways.asgi.response import AsgiResponse, as_bytes, pairs_of
from preforkd.workers.gateways.streams import comes_back, is_event_stream
from preforkd.workers.http import compiled
from preforkd.workers.http.done import DONE
from preforkd.workers.http.errors import ClientDisconnectedError, HttpProcessingError, ResponseError
from preforkd.workers.http.exchange import ANSWERED, Observer
from preforkd.workers.http.message import HttpVersion11
from preforkd.workers.http.payload import EMPTY_PAYLOAD

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable
    from contextvars import Context

    from preforkd.workers.gateways.asgi.draining import DrainingEvent
    from preforkd.workers.gateways.asgi.options import AsgiOptions
    from preforkd.workers.gateways.asgi.scope import AsgiApp, Message
    from preforkd.workers.gateways.hop_by_hop import HopByHopFields
    from preforkd.workers.gateways.streams import StreamDrain
    from preforkd.workers.http.exchange import Exchange

HEAD, BODY, FILE, TRAILERS, COMPLETE = range(5)
_EXPECTED = (
    "http.response.start",
    "http.response.body",
    "nothing: http.response.pathsend is still at work",
    "http.response.trailers",
    "nothing: the response is complete",
)


class Gateway(Protocol):
    """What a call, or a WebSocket, wants to know of its gateway; see `AsgiGateway`."""

    app: AsgiApp
    options: AsgiOptions
    websockets: set[Any]
    hop_by_hop: HopByHopFields
    streams: StreamDrain
    draining: DrainingEvent
    drained_by: float | None
    context: Context | None
    logger: logging.Logger

    def keep(self, task: asyncio.Task[Any] | None) -> None:
        """Hold on to a task that has outlived its response or its connection."""


@compiled.in_both_forms
class HttpCall(Observer):
    """The `receive` and `send` of one request; it may outlive its connection and its response.

    Attributes:
        gateway: the app's.
        exchange: what it answers.
        message, payload: the request.
        response: None until the app has sent `http.response.start`.
        phase: what the app has to send next.
        is_gone: the client is gone, or the app would not hear otherwise that the worker leaves: `send()` raises.
        leaves: the app has been told to end its stream, for the worker leaves.
        is_disconnected: `receive()` says `http.disconnect` from now on.
        was_told: it has said so.
        listener: what the app waits for in `receive()`, or has; None: it has not asked for `http.disconnect`.
        is_detached: the response is complete, the app went on, and the connection went on without it.
    """

    __slots__ = (
        "__dict__", "__weakref__", "_wants_trailers", "exchange", "gateway", "is_gone", "message", "payload", "phase",
        "response",
    )  # fmt: skip

    # Class attributes until a request needs another value: making an exchange costs less.
    is_detached = False
    leaves = False
    is_disconnected = False
    was_told = False
    _body_was_read = False
    _sent_when_told = 0
    listener: asyncio.Event | None = None

    def __init__(self, gateway: Gateway, exchange: Exchange) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.message = exchange.request
        self.payload = exchange.body
        self.response: AsgiResponse | None = None
        self.phase = HEAD
        self.is_gone = False
        self._wants_trailers = False

    # What the app calls.

    async def receive(self) -> Message:
        """The next part of the request's body; then `http.disconnect`, when the client is gone or has its answer."""
        if not self._body_was_read and not self.is_gone and self.phase != COMPLETE:
            # Also when the client has closed its side meanwhile: what it has asked for is still answered.
            payload = self.payload
            if payload is EMPTY_PAYLOAD:
                self._body_was_read = True
                return {"type": "http.request", "body": b"", "more_body": False}
            try:
                data = payload.take_arrived() or await payload.readany()  # mostly it is there: no coroutine for it
            except (ClientDisconnectedError, HttpProcessingError):
                self.was_told = True
                return {"type": "http.disconnect"}
            self._body_was_read = payload.at_eof()
            return {"type": "http.request", "body": data, "more_body": not self._body_was_read}
        if self.is_to_leave():
            self._note_leaving()
            self.is_disconnected = True
        if not self.is_disconnected and self.phase != COMPLETE:
            if self.listener is None:
                self.listener = asyncio.Event()
            await self.listener.wait()
        self.was_told = True
        return {"type": "http.disconnect"}

    def send(self, message: Message) -> Awaitable[None]:
        """Take a message of the app; what is returned is to be awaited.

        Raises:
            AsgiProtocolError: it is not one that can be sent now.
            ClientDisconnectedError: the client is gone.
            ResponseError: more or fewer bytes than Content-Length.
            TypeError, ValueError: it has a wrong type or value in it.
        """
        # Flat: every response passes here twice, and a coroutine each costs it 0.3 us.
        kind = message["type"]
        phase = self.phase
        if kind == "http.response.body" and phase == BODY:
            response = self.response
            body = message.get("body", b"")
            if (
                message.get("more_body", False)
                or self._wants_trailers
                or response.headers_sent  # type: ignore[union-attr]  # set in this phase
                or self.is_gone
                or response.content_length is None  # type: ignore[union-attr]  # as above
                or not response.send_whole(body)  # type: ignore[union-attr]  # as above
            ):
                return self._send_body(response, body, message)  # type: ignore[arg-type]  # as above
            self.phase = COMPLETE
        elif kind == "http.response.start" and phase == HEAD and not self.is_gone:
            status = message["status"]
            if status.__class__ is not int or not 200 <= status <= 999:
                self._refuse_status(status)
            response = AsgiResponse(self.exchange.wire, status, self.message.version)
            response.add_pairs(message.get("headers", ()), self.gateway.hop_by_hop)
            if message.get("trailers", False):
                self._wants_trailers = True
            self.response = response
            self.phase = BODY
        else:
            return self._send_unusual(kind, message)
        return DONE

    async def _send_body(self, response: AsgiResponse, body: bytes, message: Message) -> None:
        """A part of the body, or all of it, that `AsgiResponse.send_whole()` leaves to the rules."""
        if self.is_gone:
            raise self._gone()
        if self.phase != BODY:
            self._refuse(message["type"])  # a task may run long after it was made
        if body.__class__ is not bytes:
            body = as_bytes(body)  # before a byte is sent: a head cannot be taken back
        if message.get("more_body", False) or self._wants_trailers or response.headers_sent:
            await self._send_part(response, body, message)
        else:
            await self._send_whole(response, body)

    async def _send_whole(self, response: AsgiResponse, body: bytes) -> None:
        """A response whose body comes in one part."""
        if self.message.method != "HEAD" and response.status not in (204, 304):
            if response.content_length is None:
                response.set_length(len(body))
            elif response.content_length != len(body):
                raise ResponseError(f"the body has {len(body)} bytes, but Content-Length is {response.content_length}")
        response.send_headers()
        if body:
            response.write(body)
        await self._complete(response.write_eof())

    async def _send_part(self, response: AsgiResponse, body: bytes, message: Message) -> None:
        is_first = not response.headers_sent
        if is_first:
            if self._wants_trailers and self._may_have_trailers():
                response.enable_chunked_encoding()
            response.send_headers()
            if self.is_to_leave():
                self.leave()  # it begins to stream when the others have been told already
        if body:
            response.write(body)
        if message.get("more_body", False):
            await (response.drain() if response.takes_body() else self._discard(is_first=is_first))
        elif self._wants_trailers:
            self.phase = TRAILERS
            await response.drain()
        elif not body and self._is_left_unfinished(response):
            return  # as if it had not been sent: the rest is dealt with when the app returns
        else:
            await self._complete(response.write_eof())

    async def _discard(self, *, is_first: bool) -> None:
        """A part of a body that is not sent, as with HEAD, is not the last one: see to what writing it would do."""
        if self.exchange.carrier.client_finished and not is_first:
            raise ClientDisconnectedError("the client has got all that it gets, and has closed its side")
        await asyncio.sleep(0)
        if self.is_gone:
            raise self._gone()

    def _may_have_trailers(self) -> bool:
        """Whether the client takes trailers: ASGI has them sent to those only that say `TE: trailers`."""
        te = [token for value in self.message.headers.getall("TE", []) for token in value.lower().split(",")]
        return self.message.version >= HttpVersion11 and any(token.strip(" \t") == "trailers" for token in te)

    async def _send_unusual(self, kind: str, message: Message) -> None:
        response = self.response
        if self.is_gone and self.phase != COMPLETE:
            raise self._gone()
        if kind == "http.response.trailers" and self.phase == TRAILERS and response is not None:
            if self._may_have_trailers():
                response.add_trailers(pairs_of(message))
            if not message.get("more_trailers", False):
                response.end_with_trailers()
                await self._complete(response.drain())
        elif kind == "http.response.pathsend" and self.phase == BODY and response is not None:
            await self._send_file(response, message["path"])
        elif kind == "http.response.early_hint" and self.phase in (HEAD, BODY):
            self._send_early_hint(message.get("links", ()))
        else:
            self._refuse(kind)

    async def _send_file(self, response: AsgiResponse, path: object) -> None:
        if response.headers_sent or self._wants_trailers:
            raise AsgiProtocolError("http.response.pathsend is the whole body of a response, without trailers")
        name = os.fspath(path)  # type: ignore[call-overload]  # refuses an integer, which open() takes for a descriptor
        self.phase = FILE
        try:
            await send_path(response, self.exchange.wire, name)
        finally:
            if not response.headers_sent:
                self.phase = BODY  # it could not be read: the app may send something else
        if self.is_gone:
            raise self._gone()
        await self._complete(response.write_eof())

    def _send_early_hint(self, links: Any) -> None:
        """An interim response 103 (RFC 8297); not to HTTP/1.0, and not behind the head: there it comes too late."""
        if self.message.version < HttpVersion11 or (self.response is not None and self.response.headers_sent):
            return
        wire = self.exchange.wire
        hint = AsgiResponse(wire, 103)
        hint.add_pairs([(b"Link", link) for link in links], self.gateway.hop_by_hop)
        hint.send_headers()
        wire.flush()

    def _gone(self) -> ClientDisconnectedError:
        return ClientDisconnectedError("the worker leaves" if self.leaves else "the client is gone")

    def _refuse_status(self, status: object) -> None:
        """An enum of integers is fine; what is no final status is not."""
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise ValueError(f"the status of http.response.start must be an integer from 200 to 999, not {status!r}")

    def _refuse(self, kind: object) -> NoReturn:
        raise AsgiProtocolError(f"the app has sent {kind!r}, expected was {_EXPECTED[self.phase]}")

    async def _complete(self, waiting: Awaitable[None]) -> None:
        """The app has sent all; it goes on when the client has read enough of it, and so may the connection."""
        self.phase = COMPLETE
        await waiting
        self._response_is_complete()

    # An app that goes on after its response.

    def _response_is_complete(self) -> None:
        """The app has sent all of its response. Mostly it returns right then; else the connection goes on alone."""
        exchange = self.exchange
        if not exchange.wire.corked:  # else handler_waits() will be called, or it returns
            exchange.carrier.loop.call_soon(self._look_whether_app_goes_on, context=self.gateway.context)

    def _look_whether_app_goes_on(self) -> None:
        exchange = self.exchange
        if exchange.observer is not self or exchange.wire.exchange is not exchange or exchange.wire.paused:
            return  # the app has returned; or the client has to read first
        task = exchange.carrier.handler_task
        if not exchange.carrier.detach(exchange):
            self._response_is_complete()
            return
        self.is_detached = True
        exchange.observer = ANSWERED
        self.end()
        self.gateway.keep(task)

    # As an `Observer`.

    def handler_waits(self) -> None:
        """The app waits for something; behind its response, perhaps."""
        if self.phase == COMPLETE:
            self._response_is_complete()

    def can_write(self) -> None:
        """The client has read what was too much for it."""
        if self.phase == COMPLETE:
            self._response_is_complete()

    def client_has_finished(self) -> bool:
        """The app is told. Mostly the client is gone; if it is not, it still gets what the app sends (as with Go's)."""
        self.disconnect()
        return True

    def client_is_gone(self) -> bool:
        """The app is told, and is cancelled only after `disconnect_timeout`."""
        exchange = self.exchange
        carrier = exchange.carrier
        exchange.keep_alive = False  # nobody is to blame for an unfinished response
        carrier.abandon(exchange)  # now: the app may go on for as long as it likes
        self.lose()
        task = carrier.handler_task
        if task is not None:
            self.gateway.keep(task)
            if carrier.limits.disconnect_timeout and self.phase != COMPLETE:
                carrier.loop.call_later(carrier.limits.disconnect_timeout, task.cancel)
        return True

    # What the gateway calls.

    @property
    def payload_fault(self) -> HttpProcessingError | None:
        """What was wrong with the request's body, if something was."""
        fault = self.payload.exception()
        return fault if isinstance(fault, HttpProcessingError) else None

    def disconnect(self) -> None:
        """From now on the app receives `http.disconnect`."""
        self.is_disconnected = True
        if self.listener is not None:
            self.listener.set()

    def is_to_leave(self) -> bool:
        """Whether it streams, and streams of its kind are told that the worker leaves."""
        response = self.response
        return response is not None and self.gateway.streams.tells(self.message, response)

    def leave(self) -> None:
        """The worker leaves: tell the app to end its stream.

        Who listens to `receive()` hears it there, and what it still sends goes out. Who does not can only be told by
        `send()`; so is none whose stream may be half of an answer.
        """
        self._note_leaving()
        if self.listener is None and self.response is not None and comes_back(self.message, self.response):
            self.is_gone = True
        self.disconnect()

    def _note_leaving(self) -> None:
        self.leaves = True
        if self.response is not None:
            self._sent_when_told = self.response.output_length

    def _is_left_unfinished(self, response: AsgiResponse) -> bool:
        """Whether an empty last part is no end, but what middleware makes of a stream that has stopped when told.

        That of Starlette (`BaseHTTPMiddleware`) completes whatever its app has sent by then, half a download as well.
        """
        return (
            self.leaves
            and self.was_told
            and response.output_length == self._sent_when_told
            and not response.has_length()
            and not is_event_stream(response)
            and not self.gateway.draining.is_used  # who asks for it means its ends
        )

    def end_stream(self) -> bool:
        """The app has left its stream unfinished, as it was told to: end it so that the client sees no failure.

        Returns:
            Whether that is so: what is no event stream must not look whole, and what has promised a length cannot.
        """
        response = self.response
        if response is None or not is_event_stream(response) or response.has_length():
            return False
        if not response.headers_sent:
            response.send_headers()
        response.end()
        self.phase = COMPLETE
        return True

    def lose(self) -> None:
        """The client is gone."""
        self.is_gone = True
        self.leaves = False
        self.disconnect()

    def end(self) -> None:
        """The connection is done with this request: wake what still waits for something of it."""
        self.is_disconnected = True
        if self.listener is not None:
            self.listener.set()
        if self.payload is not EMPTY_PAYLOAD and not self.payload.is_complete and self.payload.exception() is None:
            self.payload.set_exception(ClientDisconnectedError("the response is complete"))
