"""From the bytes of a WebSocket to messages (RFC 6455 sections 5.4 and 5.6); no I/O, and no waiting.

The library `websockets` makes frames of bytes and checks them; here fragments become messages, and it is known whether
the next byte is the first of a message: only there may a plain one be taken without the library.

The states: BETWEEN two messages; in a TEXT or a BINARY message that came in fragments so far; FAILED: the client has
sent text that is none, and none of what follows is for the app.
"""

from __future__ import annotations

import enum
import sys
from typing import TYPE_CHECKING, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import State

from preforkd.workers.gateways.websocket_messages import received
from preforkd.workers.gateways.websocket_plain import wire_size

if TYPE_CHECKING:
    from websockets.server import ServerProtocol

    from preforkd.workers.gateways.asgi_scope import Message


class Reading(enum.IntEnum):
    """Where in a message a reader is."""

    BETWEEN = 0
    TEXT = 1
    BINARY = 2
    FAILED = 3


# Looked up once: a member of an enum costs 0.04 us each time in Python 3.11, and every frame asks for several.
_TEXT, _BINARY, _CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
_FAILED = Reading.FAILED


class MessageReader:
    """The messages of one client.

    Args:
        server: the library's protocol, for the bytes behind the handshake.
        limit: bytes that a message may have; 0: any number.

    Attributes:
        limit: bytes of the longest message.
        owed: bytes that the library has and that belong to no frame yet; 0: the next is the first of a frame.
        state: see above.
    """

    __slots__ = ("_fragments", "_server", "limit", "owed", "state")

    def __init__(self, server: ServerProtocol, limit: int) -> None:
        self._server = server
        self._fragments = bytearray()  # one, whatever number they came in: an object each costs 60 times a byte
        self.owed = 0
        self.limit = limit or sys.maxsize
        self.state = Reading.BETWEEN

    def frames(self, data: bytes) -> list[Frame]:
        """Return the frames that end in `data`, each to be given to `take()`. What the library answers is to be sent.

        Args:
            data: the next bytes of the client.
        """
        server = self._server
        server.receive_data(data)
        self.owed += len(data)
        frames = cast("list[Frame]", server.events_received())  # there are no other events behind the handshake
        if not server.extensions:  # they change sizes: behind one, plain messages are the library's too
            self.owed -= sum(map(wire_size, frames))
        return frames

    def take(self, frame: Frame) -> Message | None:
        """Take a frame that the library has checked; return the message that ends with it, if one does."""
        opcode = frame.opcode
        if self.state is _FAILED:
            return None
        if opcode is _TEXT or opcode is _BINARY:
            state = Reading.TEXT if opcode is _TEXT else Reading.BINARY
            if frame.fin:
                return self._message(frame.data, state)
            self.state = state
            self._fragments = bytearray(frame.data)
        elif opcode is _CONT:
            self._fragments += frame.data
            if frame.fin:
                data, self._fragments = self._fragments, bytearray()
                state, self.state = self.state, Reading.BETWEEN
                return self._message(data, state)
        return None

    def _message(self, data: bytes | bytearray | memoryview, state: Reading) -> Message | None:
        try:
            return received(data, state is Reading.TEXT)
        except UnicodeDecodeError as exc:
            self.state = Reading.FAILED
            if self._server.state is State.OPEN:
                self._server.fail(1007, f"invalid UTF-8 at byte {exc.start}")
            return None
