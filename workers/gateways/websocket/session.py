"""One WebSocket of an ASGI app: what the app sends, how it is opened and closed, and who is told.

Its states are in `states.py`. What the client sends goes the way of `inbound.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from websockets.frames import Close, CloseCode

from preforkd.workers.gateways.asgi.failures import is_disconnect
from preforkd.workers.gateways.asgi.http_call import HttpCall
from preforkd.workers.gateways.websocket import opening as websocket_opening
from preforkd.workers.gateways.websocket.closing import ClosingHandshake
from preforkd.workers.gateways.websocket.inbound import Inbound
from preforkd.workers.gateways.websocket.keepalive import KeepAlive
from preforkd.workers.gateways.websocket.messages import close_of, disconnected, payload_of
from preforkd.workers.gateways.websocket.outbound import Outbound
from preforkd.workers.gateways.websocket.reader import MessageReader
from preforkd.workers.gateways.websocket.states import (
    Command,
    WebSocketEvent,
    WebSocketState,
    command_for,
    following,
)
from preforkd.workers.http.errors import ClientDisconnectedError, HttpProcessingError
from preforkd.workers.http.exchange import ANSWERED, Observer

if TYPE_CHECKING:
    from preforkd.workers.gateways.asgi.http_call import Gateway
    from preforkd.workers.gateways.asgi.scope import Message
    from preforkd.workers.http.exchange import Exchange

_OPEN = WebSocketState.OPEN
_HANDSHAKE = WebSocketState.HANDSHAKE
_RESTART = Close(CloseCode.SERVICE_RESTART, "service restart")


class WebSocket(Observer):
    """A WebSocket: the `receive` and `send` of its app, and what its gateway asks of it.

    Args:
        gateway: the app's.
        exchange: the handshake, valid but for the value of its key.

    Attributes:
        tunnel: the bytes of its connection.
        inbound: what the client sends.
        receive: of the app; see `Inbound.receive()`.
        state: where it is in its life.

    Raises:
        HttpProcessingError: the key is not valid.
    """

    __slots__ = (
        "_answer", "_closing", "_denial", "_exchange", "_gateway", "_keepalive", "_last_call", "_message",
        "_outbound", "inbound", "receive", "state", "tunnel",
    )  # fmt: skip

    def __init__(self, gateway: Gateway, exchange: Exchange) -> None:
        options = gateway.options
        message = exchange.request
        server = websocket_opening.server_protocol(options)
        self._answer = websocket_opening.check(server, message)
        self._message = message
        self._denial: HttpCall | None = None
        self._gateway = gateway
        self._exchange = exchange
        self.tunnel = tunnel = exchange.carrier.tunnel(exchange)
        self.state = WebSocketState.HANDSHAKE
        compression = websocket_opening.compression_of(server)
        deflater, inflater = compression or (None, None)
        self._outbound = outbound = Outbound(tunnel, server, deflater)
        self._closing = closing = ClosingHandshake(outbound, lambda: gateway.drained_by is not None, self._end)
        self._keepalive = KeepAlive(outbound, closing, options.websocket_ping, options.websocket_ping_timeout)
        reader = MessageReader(options.limit_websocket_message, inflater)
        self.inbound = Inbound(outbound, reader, closing, self._keepalive, self._end, self.lose)
        self.receive = self.inbound.receive
        self._last_call: asyncio.TimerHandle | None = None  # for an app that has not answered the handshake in a drain
        gateway.websockets.add(self)
        if gateway.drained_by is not None:
            asyncio.get_running_loop().call_soon(self.go_away)

    # What the app calls.

    async def send(self, message: Message) -> None:
        """Take a message of the app.

        Raises:
            AsgiProtocolError: it is not one that can be sent now.
            ClientDisconnectedError: the client is gone, or the worker has closed the WebSocket.
            ValueError, TypeError: it has a wrong value in it.
        """
        kind = message["type"]
        if kind == "websocket.send" and self.state is _OPEN:  # not by the table: every message passes here
            payload, is_text = payload_of(message)
            self._outbound.send(payload, is_text)
            await self.tunnel.drain()
            return
        command = command_for(self.state, kind)
        if command is Command.CLOSE:
            self._closing.begin(*close_of(message))
            self._follow(WebSocketEvent.CLOSED_BY_APP)
            self.inbound.end()
        elif command is Command.ACCEPT:
            await self._accept(message)
        elif command is Command.DENY:
            await self._respond({"type": "websocket.http.response.start", "status": 403})
            await self._respond({"type": "websocket.http.response.body"})
        else:
            await self._respond(message)

    async def _accept(self, message: Message) -> None:
        gateway = self._gateway
        response = websocket_opening.response_to(
            self._exchange.wire, self._message, self._answer, message, gateway.hop_by_hop
        )
        response.send_headers()
        await response.write_eof()
        if self.tunnel.is_lost or self.state is WebSocketState.DISCONNECTED:
            raise ClientDisconnectedError("the client is gone")
        self._follow(WebSocketEvent.ACCEPTED)
        self.inbound.begin()
        early = self.tunnel.open(self.inbound)
        self._keepalive.start()
        if gateway.drained_by is not None:
            asyncio.get_running_loop().call_soon(self.go_away)
        if early:
            self.inbound.data_received(early)

    async def _respond(self, message: Message) -> None:
        """Answer the handshake with an ordinary response: the extension `websocket.http.response`."""
        if self._denial is None:
            self._denial = HttpCall(self._gateway, self._exchange)
        await self._denial.send({**message, "type": message["type"].removeprefix("websocket.")})
        self._follow(WebSocketEvent.RESPONDED)
        if not message.get("more_body", False) and message["type"].endswith(".body"):
            self._follow(WebSocketEvent.DENIED)
            self.inbound.end()

    # What the gateway calls.

    def app_has_failed(self, exc: BaseException) -> BaseException | None:
        """The app has raised, or was cancelled; return what the HTTP protocol has still to answer the handshake for."""
        if self.state is _HANDSHAKE and self._last_call is not None and _is_disconnect(exc):
            return _leaving()
        if self.state in (_HANDSHAKE, WebSocketState.DENIAL):
            return exc
        # Whoever cuts a connection cancels its app: that says nothing of the app.
        if not is_disconnect(exc) and (isinstance(exc, Exception) or not self.tunnel.is_closing):
            self._exchange.carrier.report_error("Error in the app for the WebSocket %s", self._message, exc=exc)
        self._close_for(1011)
        return None

    def app_has_returned(self) -> None:
        """The app has returned: its WebSocket ends with it.

        Raises:
            HttpProcessingError: it was told of a drain, and has rightly not answered the handshake: 503.
        """
        if self.state is _HANDSHAKE and self._last_call is not None:
            raise _leaving()
        self._close_for(1000)

    def app_has_ended(self) -> None:
        """The app has no more to do with this."""
        self._exchange.observer = ANSWERED
        self.tunnel.finish()
        if not self.tunnel.was_opened:
            self.lose()

    def go_away(self) -> None:
        """The worker leaves: close with 1012. What the client has sent until it knows is still received.

        An app that has not answered the handshake receives that it is over. It may accept all the same.
        """
        if self.state is _OPEN:
            self._close_for(_RESTART.code, _RESTART.reason)
        elif self.state in (_HANDSHAKE, WebSocketState.DENIAL):
            self._plan_last_call()
            self.inbound.refuse(disconnected(_RESTART))
        else:
            self._closing.hurry()  # it has been asked before, but now there is less time

    def _plan_last_call(self) -> None:
        """Have the handshake answered before the connection is cut, as late as streams are told."""
        if self._last_call is not None:
            self._last_call.cancel()
        loop = asyncio.get_running_loop()
        drained_by = self._gateway.drained_by
        left = max(drained_by - loop.time(), 0.0) if drained_by is not None else 0.0
        self._last_call = loop.call_later(left - min(2.0, left / 5), self._give_up)

    def _give_up(self) -> None:
        if self.state is _HANDSHAKE and self._gateway.drained_by is not None:
            self._exchange.carrier.expire(self._exchange)  # cancels the app, and answers 503

    # As an `Observer` of the exchange that has been its handshake.

    def client_has_finished(self) -> bool:
        """WebSocket has no half-close (RFC 6455 section 7.1.1): who ends before it has begun is gone."""
        if self.tunnel.was_opened:
            return True
        self._exchange.needs_no_answer = True
        self.lose()
        return False

    def client_is_gone(self) -> bool:
        """The app is told, and is cancelled only after `disconnect_timeout`."""
        self.lose()
        carrier = self._exchange.carrier
        task = carrier.handler_task
        if task is not None:
            self._gateway.keep(task)
            if carrier.limits.disconnect_timeout:
                carrier.loop.call_later(carrier.limits.disconnect_timeout, task.cancel)
        return True

    def lose(self) -> None:
        """The connection is gone; what has come by it is still received."""
        self._closing.stop()
        self._keepalive.stop()
        if self._last_call is not None:
            self._last_call.cancel()
        self._gateway.websockets.discard(self)
        if self._denial is not None:
            self._denial.lose()
        self.inbound.lose()

    # What changes the state.

    def _close_for(self, code: int, reason: str = "") -> None:
        """Close without having been asked by the app, if it is open."""
        self.inbound.conclude()  # the client may have closed it already
        if self.state is _OPEN:
            self._closing.begin(code, reason)
            self._follow(WebSocketEvent.CLOSED_BY_SERVER)

    def _end(self) -> None:
        """Nothing more will come from the client."""
        self._follow(WebSocketEvent.ENDED)
        self.inbound.end()

    def _follow(self, event: WebSocketEvent) -> None:
        self.state = following(self.state, event)
        if self.state is not _OPEN:
            self._keepalive.stop()


def _leaving() -> HttpProcessingError:
    return HttpProcessingError(503, "The server is restarting", headers={"Retry-After": "1"})


def _is_disconnect(exc: BaseException) -> bool:
    """Whether an app gives up because `receive()` has told it to, as Starlette says that."""
    return is_disconnect(exc) or type(exc).__name__ == "WebSocketDisconnect"
