"""What a client sends to a WebSocket, on its way to the app: no faster than the app receives it.

Two bounds, and a turn: above `HIGH_WATER` bytes of messages that wait for the app nothing is decoded and the socket is
not read; what was read and is not decoded is held back as it is, for compressed it may be a thousand times smaller; and
a client that floods us leaves the loop to the other connections after `TURN_FRAMES` or `TURN_BYTES`.

What the client has sent before its Close, or before it broke the protocol, reaches the app first, and the app may
answer it: the end waits until the app has received that and asks for more, `ANSWER_GRACE` seconds at most.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from websockets.protocol import State

from preforkd.workers.gateways.websocket.frames import CLOSE, PING, WebSocketFault
from preforkd.workers.gateways.websocket.messages import disconnected, size_of
from preforkd.workers.gateways.websocket.plain import plain_message, plain_size
from preforkd.workers.gateways.websocket.reader import Control, MessageReader
from preforkd.workers.http.waiter import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

    from preforkd.workers.gateways.asgi.scope import Message
    from preforkd.workers.gateways.websocket.closing import ClosingHandshake
    from preforkd.workers.gateways.websocket.keepalive import KeepAlive
    from preforkd.workers.gateways.websocket.outbound import Outbound

HIGH_WATER = 65536  # bytes of messages that wait for the app before the socket is not read any more
LOW_WATER = 16384  # and before it is read again
TURN_FRAMES = 256  # and so many frames, or bytes of them, before the other connections get their turn: 2 ms
TURN_BYTES = 1 << 18
ANSWER_GRACE = 1.0  # seconds that the app gets to answer what came right before a Close, or a fault
_PONG = 0x8A  # FIN, and the opcode
_MESSAGE_COST = 64  # bytes that an empty message counts for in what waits: a queue of empty ones has to end, too


class Inbound(asyncio.Protocol):
    """The `receive` of an app, and the receiver of its client's bytes.

    Args:
        outbound: the way out, for the Pongs.
        reader: makes messages of bytes.
        closing: ends the WebSocket when the client has closed it, or has broken the protocol.
        keepalive: gets the Pongs.
        ended: called when the connection is gone and all that had come by it is decoded.
        lost: called when the connection is gone.

    Attributes:
        disconnect: the event behind all messages; None while there may be more of them.
        queued: bytes of messages that wait for the app.
    """

    __slots__ = (
        "_closing", "_end", "_ended", "_grace", "_held", "_held_from", "_is_over", "_keepalive", "_loop",
        "_lost", "_outbound", "_pongs", "_queue", "_reader", "_tunnel", "_turn", "_wakeup", "disconnect", "queued",
    )  # fmt: skip

    def __init__(
        self,
        outbound: Outbound,
        reader: MessageReader,
        closing: ClosingHandshake,
        keepalive: KeepAlive,
        ended: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._outbound = outbound
        self._tunnel = outbound.tunnel
        self._reader = reader
        self._closing = closing
        self._keepalive = keepalive
        self._ended = ended
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._wakeup = Wakeup(self._loop)
        # Messages, and what they count for.
        self._queue: deque[tuple[Message, int]] = deque([({"type": "websocket.connect"}, 0)])
        self.queued = 0
        self.disconnect: Message | None = None
        self._held = b""  # what has come and is not decoded from the offset `_held_from` on
        self._held_from = 0
        self._turn: asyncio.Handle | None = None  # the next one, in which more of it is decoded
        self._pongs = bytearray()  # of a turn: one write, and not a system call each
        self._is_over = False  # a Close or a fault has come: nothing behind it is read
        self._end: Control | WebSocketFault | None = None  # which, while it waits for the app to answer what was before
        self._grace: asyncio.TimerHandle | None = None

    # What the app calls.

    async def receive(self) -> Message:
        """The next event: `websocket.connect`, then messages, then `websocket.disconnect`.

        Raises:
            RuntimeError: another task is waiting in `receive()`.
        """
        queue = self._queue
        while not queue:
            if self._end is not None:
                self.conclude()
                continue
            if self._held:
                self._decode_soon()
            elif self.disconnect is not None:
                return dict(self.disconnect)
            if self._wakeup.callback is not None:
                raise RuntimeError("another task is waiting in receive() of this WebSocket")
            await self._wakeup
        message, cost = queue.popleft()
        self.queued -= cost
        tunnel = self._tunnel
        if tunnel.reading_paused and self.queued <= LOW_WATER and not tunnel.paused:
            self._go_on_reading()
        return message

    # What the connection calls.

    def data_received(self, data: bytes) -> None:
        """Take bytes of frames."""
        # Flat: every message passes here.
        reader = self._reader
        if reader.between and not self._held and self.disconnect is None:
            message = plain_message(data, reader.limit)
            if message is not None:
                self._put(message, len(data))
                self._wakeup.wake()
                if self.queued > HIGH_WATER:  # the app does not wait for it
                    self._tunnel.pause_reading()
                return
        if self._is_over:
            return
        self._held = self._held[self._held_from :] + data if self._held else data
        self._held_from = 0
        if self._turn is None:
            self._decode()

    def eof_received(self) -> bool:
        """The client ends without a Close: 1006."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        """The connection is gone."""
        self._lost()

    def pause_writing(self) -> None:
        """The client does not read: its next messages would only make more for it to read."""
        self._tunnel.pause_reading()

    def resume_writing(self) -> None:
        """The client has read."""
        if self.queued <= LOW_WATER:
            self._go_on_reading()

    # What the WebSocket calls.

    def lose(self) -> None:
        """The connection is gone; what has come by it is still received."""
        if self._held:
            self._wakeup.wake()
            return
        self.conclude()
        self._ended()

    def refuse(self, message: Message) -> None:
        """Have the app receive a `websocket.disconnect` although it has not answered the handshake."""
        self.disconnect = message
        self._wakeup.wake()

    def begin(self) -> None:
        """The app has accepted: messages may come, whatever it was told before."""
        self.disconnect = None

    def end(self) -> None:
        """Have the app receive `websocket.disconnect` behind the messages that have come."""
        if self.disconnect is None:
            self.disconnect = disconnected(self._closing.outcome)
        self.conclude()
        self._wakeup.wake()

    def conclude(self) -> None:
        """Act on the client's Close, or its fault, if it still waits for the app."""
        end, self._end = self._end, None
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        if isinstance(end, Control):
            self._closing.take(end.payload)
        elif end is not None:
            self._closing.fail(end.code, end.reason)

    def _put(self, message: Message, size: int) -> None:
        cost = size + _MESSAGE_COST
        self._queue.append((message, cost))
        self.queued += cost

    # Decoding, as far as the app keeps up, and no more than the loop has time for.

    def _decode(self) -> None:
        all_read = self._decode_held()
        if self._pongs:
            self._tunnel.write(bytes(self._pongs))
            self._pongs.clear()
        if all_read:
            self._read_on()
        else:
            self._tunnel.pause_reading()
            if self.queued <= HIGH_WATER:
                self._decode_soon()
        if self._queue:
            self._wakeup.wake()

    def _decode_held(self) -> bool:
        """Decode what is held back; whether that was all, and not only what one turn has time for."""
        reader, is_open = self._reader, self.disconnect is None
        data, at = self._held, self._held_from
        end = len(data)
        frames, enough = 0, reader.made + TURN_BYTES
        while at < end and self.queued <= HIGH_WATER and frames < TURN_FRAMES and reader.made < enough:
            frames += 1
            if reader.between and is_open:
                size = plain_size(data, at, reader.limit)
                whole = plain_message(data[at : at + size], reader.limit) if 0 < size <= end - at else None
                if whole is not None:
                    self._put(whole, size)
                    reader.made += size
                    at += size
                    continue
            try:
                event, at = reader.read(data, at)
            except WebSocketFault as fault:
                self._end = fault.with_traceback(None)  # its frames would keep this alive
            else:
                if event is None:
                    continue
                if isinstance(event, Control):
                    self._take_control(event)
                elif is_open:
                    self._put(event, size_of(event))
            if self._end is not None:
                self._is_over = True
                reader.between = False
                at = end
        if at < end:
            self._held, self._held_from = data, at
            return False
        self._held, self._held_from = b"", 0
        return True

    def _take_control(self, frame: Control) -> None:
        if frame.opcode == CLOSE:
            self._end = frame
        elif frame.opcode == PING:
            self._pongs += bytes((_PONG, len(frame.payload)))
            self._pongs += frame.payload
        else:
            self._keepalive.take_pong(frame.payload)

    def _read_on(self) -> None:
        """All that has come is decoded: it has ended with it, or more may come."""
        tunnel = self._tunnel
        is_lost = tunnel.is_lost
        if self._end is not None:
            if self._queue and self.disconnect is None and not is_lost and self._outbound.server.state is State.OPEN:
                self._grace = self._loop.call_later(ANSWER_GRACE, self.conclude)
            else:
                self.conclude()
        elif self.queued > HIGH_WATER:
            tunnel.pause_reading()
        elif tunnel.reading_paused and not tunnel.paused:
            tunnel.resume_reading()
        if is_lost:
            self._ended()

    def _decode_soon(self) -> None:
        if self._turn is None:
            self._turn = self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._turn = None
        self._decode()

    def _go_on_reading(self) -> None:
        """The app keeps up, and the client reads."""
        if self._held:
            self._decode_soon()
        elif self._tunnel.is_open:  # before that, the socket is not ours
            self._tunnel.resume_reading()
