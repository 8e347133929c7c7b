"""One WebSocket of an ASGI app, on the sans-I/O protocol of the library `websockets` (RFC 6455, RFC 7692)."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from websockets.extensions.permessage_deflate import enable_server_permessage_deflate
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from preforkd.workers.gateways import websocket_opening
from preforkd.workers.gateways.asgi_exchange import HttpExchange
from preforkd.workers.gateways.asgi_failures import is_disconnect
from preforkd.workers.gateways.websocket_closing import ClosingHandshake, outcome
from preforkd.workers.gateways.websocket_keepalive import KeepAlive
from preforkd.workers.gateways.websocket_messages import close_of, disconnected, payload_of, received
from preforkd.workers.gateways.websocket_short import SHORT_MAX, short_message, wire_size
from preforkd.workers.gateways.websocket_states import (
    Command,
    WebSocketEvent,
    WebSocketState,
    command_for,
    following,
)
from preforkd.workers.gateways.websocket_wire import Wire
from preforkd.workers.http.errors import ClientDisconnectedError
from preforkd.workers.http.payload import EMPTY_PAYLOAD
from preforkd.workers.http.waiter import Wakeup

if TYPE_CHECKING:
    from preforkd.workers.gateways.asgi import AsgiProtocol
    from preforkd.workers.gateways.asgi_scope import Message
    from preforkd.workers.http.message import RequestMessage

HIGH_WATER = 65536  # bytes of messages that wait for the app before the socket is not read any more
LOW_WATER = 16384  # and before it is read again
SLICE = 4096  # bytes that are decoded at a time: compressed ones may become a thousand times as many, or 700 frames
TURN_FRAMES = 256  # and so many frames, or bytes of them, before the other connections get their turn: 2 ms
TURN_BYTES = 1 << 18
_MESSAGE_COST = 64  # bytes that an empty message counts for in what waits: a queue of empty ones has to end, too
OPEN = WebSocketState.OPEN
_logger = logging.getLogger("preforkd.websocket")  # the library tells it of each connection at level INFO
_logger.setLevel(logging.WARNING)


def _no_subprotocol(protocol: ServerProtocol, offered: Any) -> None:
    """The app chooses one when it accepts."""


class WebSocket(asyncio.Protocol):
    """A WebSocket: the `receive` and `send` of its app, and the receiver of its connection's bytes.

    Args:
        protocol: the HTTP connection that it comes by.
        message: the handshake, valid but for the value of its key.

    Raises:
        HttpProcessingError: the key is not valid.
    """

    __slots__ = (
        "_answer", "_closing", "_connect_was_received", "_counted", "_denial", "_disconnect", "_fed", "_fragments",
        "_has_failed", "_in_fragments", "_is_lost", "_is_text", "_keepalive", "_loop", "_message", "_owed",
        "_protocol", "_queue", "_queued", "_server", "_short_max", "_turn_is_due", "_unfed", "_wakeup", "_wire",
        "state",
    )  # fmt: skip

    def __init__(self, protocol: AsgiProtocol, message: RequestMessage) -> None:
        options = protocol.gateway.options
        self._protocol = protocol
        self._message = message
        self._loop = asyncio.get_running_loop()
        self._server = ServerProtocol(
            extensions=enable_server_permessage_deflate(None) if options.websocket_compression else None,
            select_subprotocol=_no_subprotocol,
            state=State.OPEN,  # the handshake's bytes are read and written by the HTTP protocol
            max_size=options.limit_websocket_message or None,
            logger=_logger,
        )
        self._answer = websocket_opening.check(self._server, message)
        self.state = WebSocketState.HANDSHAKE
        self._connect_was_received = False
        self._queue: deque[Message] = deque()
        self._queued = 0
        self._wakeup = Wakeup(self._loop)
        self._disconnect: Message | None = None
        self._denial: HttpExchange | None = None
        self._fragments = bytearray()  # one, whatever number they came in: an object each costs 60 times a byte
        self._is_text = self._counted = self._has_failed = self._is_lost = False
        self._unfed = b""  # what has come and is not decoded from the offset `_fed` on
        self._fed = 0
        self._turn_is_due = self._in_fragments = False
        self._owed = (
            0  # bytes that the library has and that belong to no frame yet; 0: the next is the first of a frame
        )
        self._short_max = min(SHORT_MAX, options.limit_websocket_message or SHORT_MAX)
        self._wire = Wire(protocol, self._server)
        self._closing = ClosingHandshake(self._wire, self._become_closed)
        self._keepalive = KeepAlive(self._wire, self._closing, options.websocket_ping, options.websocket_ping_timeout)

    # What the app calls.

    async def receive(self) -> Message:
        """The next event: `websocket.connect`, then messages, then `websocket.disconnect`.

        Raises:
            RuntimeError: another task is waiting in `receive()`.
        """
        if not self._connect_was_received:
            self._connect_was_received = True
            return {"type": "websocket.connect"}
        while not self._queue:
            if self._unfed:
                self._feed_soon()
            elif self._disconnect is not None:
                return dict(self._disconnect)
            if self._wakeup.callback is not None:
                raise RuntimeError("another task is waiting in receive() of this WebSocket")
            await self._wakeup
        message = self._queue.popleft()
        self._queued -= _size(message)
        if self._queued <= LOW_WATER and self._protocol._reading_paused and not self._protocol.writer.paused:
            self._go_on_reading()
        return message

    async def send(self, message: Message) -> None:
        """Take a message of the app.

        Raises:
            AsgiProtocolError: it is not one that can be sent now.
            ClientDisconnectedError: the client is gone, or the worker has closed the WebSocket.
            ValueError, TypeError: it has a wrong value in it.
        """
        kind = message["type"]
        if kind == "websocket.send" and self.state is OPEN:  # not by the table: every message passes here
            payload, is_text = payload_of(message)
            self._wire.send(payload, is_text)
            await self._protocol.writer.drain()
            return
        command = command_for(self.state, kind)
        if command is Command.CLOSE:
            self._close_by_app(message)
        elif command is Command.ACCEPT:
            await self._accept(message)
        elif command is Command.DENY:
            await self._deny({"type": "websocket.http.response.start", "status": 403})
            await self._deny({"type": "websocket.http.response.body"})
        else:
            await self._deny(message)

    async def _deny(self, message: Message) -> None:
        """Answer the handshake with an ordinary response: the extension `websocket.http.response`."""
        if self._denial is None:
            self._denial = HttpExchange(self._protocol, self._message, EMPTY_PAYLOAD)
        await self._denial.send({**message, "type": message["type"].removeprefix("websocket.")})
        self._follow(WebSocketEvent.RESPONDED)
        if not message.get("more_body", False) and message["type"].endswith(".body"):
            self._follow(WebSocketEvent.DENIED)
            self._become_closed()

    async def _accept(self, message: Message) -> None:
        protocol = self._protocol
        response = websocket_opening.response_to(protocol.writer, self._message, self._answer, message)
        response.send_headers()
        await response.write_eof()
        if protocol.transport is None or self.state is WebSocketState.DISCONNECTED:
            raise ClientDisconnectedError("the client is gone")
        self._follow(WebSocketEvent.ACCEPTED)
        gateway = protocol.gateway
        gateway.websockets.add(self)
        protocol.connections.active -= 1  # it may stay for days: it is no request that is being handled
        self._counted = True
        early = protocol.take_over(self)
        protocol.writer.flushed_by_caller = False  # frames pass it by: drain() must not think that they are kept back
        self._keepalive.start()
        if gateway.drained_by is not None:
            self._loop.call_soon(self.go_away)
        if early:
            self.data_received(early)

    def _close_by_app(self, message: Message) -> None:
        self._closing.begin(*close_of(message))
        self._follow(WebSocketEvent.CLOSED_BY_APP)
        self._become_closed()

    def _follow(self, event: WebSocketEvent) -> None:
        self.state = following(self.state, event)
        if self.state is not OPEN:
            self._keepalive.stop()

    # What the gateway calls.

    def app_has_failed(self, exc: BaseException) -> bool:
        """The app has raised, or was cancelled; whether the HTTP protocol has still to answer the handshake."""
        if self.state in (WebSocketState.HANDSHAKE, WebSocketState.DENIAL):
            return True
        # Whoever cuts a connection cancels its app: that says nothing of the app.
        if not is_disconnect(exc) and (isinstance(exc, Exception) or not self._is_closing):
            self._protocol._log_error("Error in the app for the WebSocket %s", self._message, exc=exc)
        self._close_for(1011)
        return False

    @property
    def _is_closing(self) -> bool:
        transport = self._protocol.transport
        return transport is None or transport.is_closing()

    def app_has_returned(self) -> None:
        """The app has returned: its WebSocket ends with it."""
        self._close_for(1000)

    def app_has_ended(self) -> None:
        """The app has no more to do with this."""
        if self._counted:
            self._counted = False
            self._protocol.connections.active += 1  # start() counts it down again

    def go_away(self) -> None:
        """The worker leaves: close with 1012. What the client has sent until it knows is still received."""
        if self.state is OPEN:
            self._close_for(1012, "service restart")
        else:
            self._closing.hurry()

    def _close_for(self, code: int, reason: str = "") -> None:
        if self.state is OPEN:
            self._closing.begin(code, reason)
            self._follow(WebSocketEvent.CLOSED_BY_SERVER)

    def lose(self) -> None:
        """The connection is gone; what has come by it is still received."""
        self._closing.stop()
        self._keepalive.stop()
        self._protocol.gateway.websockets.discard(self)
        if self._denial is not None:
            self._denial.lose()
        self._is_lost = True
        if self._unfed:
            self._wakeup.wake()
        else:
            self._become_closed()

    def _become_closed(self) -> None:
        """Have the app receive `websocket.disconnect` behind the messages that have come."""
        self._follow(WebSocketEvent.ENDED)
        if self._disconnect is None:
            self._disconnect = disconnected(outcome(self._server))
        self._wakeup.wake()

    # What the connection calls.

    def data_received(self, data: bytes) -> None:
        """Take bytes of frames."""
        if not self._owed and not self._unfed and not self._in_fragments and self._server.state is State.OPEN:
            message = short_message(data, self._short_max)
            if message is not None and self._disconnect is None:
                self._queue.append(message)
                self._queued += _size(message)
                if self._queued > HIGH_WATER:
                    self._protocol._pause_reading()
                self._wakeup.wake()
                return
        self._unfed = self._unfed[self._fed :] + data if self._unfed else data
        self._fed = 0
        if not self._turn_is_due:
            self._feed()
            if self._queue:
                self._wakeup.wake()

    def _feed(self) -> None:
        """Decode what has come: as far as the app keeps up, and no more than the loop has time for."""
        server = self._server
        data, at = self._unfed, self._fed
        end = len(data)
        frames = size = 0
        while at < end and self._queued <= HIGH_WATER and frames < TURN_FRAMES and size < TURN_BYTES:
            server.receive_data(data if end <= SLICE else data[at : at + SLICE])
            self._owed += min(SLICE, end - at)
            at += SLICE
            for frame in server.events_received():
                if isinstance(frame, Frame):  # there are no other events behind the handshake
                    frames += 1
                    size += len(frame.data)
                    if not server.extensions:  # they change sizes: behind one, short messages are the library's too
                        self._owed -= wire_size(frame)
                    self._take(frame)
            if server.writes:
                self._wire.flush()
            if server.eof_sent:
                at = end
        if at < end:
            self._unfed, self._fed = data, at
            self._protocol._pause_reading()
            if self._queued <= HIGH_WATER:
                self._feed_soon()
            return
        self._unfed, self._fed = b"", 0
        if server.eof_sent:
            self._closing.end(linger=True)
        elif self._queued > HIGH_WATER:
            self._protocol._pause_reading()
        elif self._protocol._reading_paused and not self._protocol.writer.paused:
            self._protocol._resume_reading()
        if self._is_lost:
            self._become_closed()

    def _feed_soon(self) -> None:
        """Decode more in the loop's next turn."""
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._feed_on)

    def _feed_on(self) -> None:
        self._turn_is_due = False
        self._feed()
        if self._queue:
            self._wakeup.wake()

    def _go_on_reading(self) -> None:
        """The app keeps up, and the client reads."""
        if self._unfed:
            self._feed_soon()
        else:
            self._protocol._resume_reading()

    def eof_received(self) -> bool:
        """The client ends without a Close: 1006."""
        return False

    def pause_writing(self) -> None:
        """The client does not read: its next messages would only make more for it to read."""
        self._protocol._pause_reading()

    def resume_writing(self) -> None:
        """The client has read."""
        if self._queued <= LOW_WATER:
            self._go_on_reading()

    def _take(self, frame: Frame) -> None:
        """Take a frame that the library has checked."""
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            self._is_text = opcode is Opcode.TEXT
            if frame.fin:
                self._put(frame.data)
            else:
                self._fragments = bytearray(frame.data)
                self._in_fragments = True
        elif opcode is Opcode.CONT:
            self._fragments += frame.data
            if frame.fin:
                self._put(self._fragments)
                self._fragments = bytearray()
                self._in_fragments = False
        elif opcode is Opcode.PONG:
            self._keepalive.take_pong(frame.data)

    def _put(self, data: Any) -> None:
        """Queue a message for the app."""
        try:
            message = received(data, self._is_text)
        except UnicodeDecodeError as exc:
            if self._server.state is State.OPEN:
                self._server.fail(1007, f"invalid UTF-8 at byte {exc.start}")
            self._has_failed = True
            return
        if self._disconnect is None and not self._has_failed:
            self._queue.append(message)
            self._queued += _size(message)


def _size(message: Message) -> int:
    return len(message["text"] or message["bytes"] or b"") + _MESSAGE_COST
