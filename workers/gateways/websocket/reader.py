"""From the bytes of a WebSocket to messages (RFC 6455 sections 5.4 and 5.6); no I/O, and no waiting.

A message is checked as its bytes come: text that can be none, or that becomes too long, fails with the byte that makes
it so, whatever frame and whatever read that is in.
"""

from __future__ import annotations

import codecs
import sys
from typing import TYPE_CHECKING, NamedTuple

from preforkd.workers.gateways.websocket.frames import (
    CLOSE,
    CONT,
    HEAD_MAX,
    INVALID_DATA,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    FrameHead,
    WebSocketFault,
    apply_mask,
    frame_head,
)
from preforkd.workers.gateways.websocket.messages import received

if TYPE_CHECKING:
    from preforkd.workers.gateways.asgi.scope import Message
    from preforkd.workers.gateways.websocket.deflate import Inflater

_SURROGATE, _BEHIND_SURROGATES = b"\xed\xa0", b"\xee"  # what half a surrogate begins with, which UTF-8 has not


class Control(NamedTuple):
    """A control frame (RFC 6455 section 5.5).

    Attributes:
        opcode: CLOSE, PING or PONG.
        payload: 125 bytes at most.
    """

    opcode: int
    payload: bytes


class TextCheck:
    """Whether bytes that come one after the other are UTF-8, said with the first byte that makes them none."""

    __slots__ = ("_checked", "_rest")

    def __init__(self) -> None:
        self._checked = 0
        self._rest = b""  # a character that has begun

    def feed(self, data: bytes, *, is_last: bool) -> None:
        """Check the next bytes.

        Raises:
            WebSocketFault: they make it no text.
        """
        data = self._rest + data
        try:
            _, used = codecs.utf_8_decode(data, "strict", is_last)
        except UnicodeDecodeError as exc:
            raise no_text(self._checked + exc.start) from None
        self._checked += used
        self._rest = rest = data[used:]
        if _SURROGATE <= rest < _BEHIND_SURROGATES:  # Python's decoder waits for the third byte
            raise no_text(self._checked)


def no_text(at: int) -> WebSocketFault:
    """Return the fault of text that is not UTF-8 (RFC 6455 section 8.1).

    Args:
        at: where in the message.
    """
    return WebSocketFault(INVALID_DATA, f"invalid UTF-8 at byte {at}")


class MessageReader:
    """The messages of one client.

    Args:
        limit: bytes that a message may have; 0: any number.
        inflater: for compressed ones; None: there are none.

    Attributes:
        limit: bytes of the longest message.
        between: the next byte is the first of a message, or of a control frame between two.
        made: bytes of payload since the start, inflated, and what else that has cost.
    """

    __slots__ = (
        "_compressed", "_control", "_fragments", "_frame", "_head", "_inflater", "_is_text", "_left", "_mask",
        "_open", "_text", "between", "limit", "made",
    )  # fmt: skip

    def __init__(self, limit: int, inflater: Inflater | None = None) -> None:
        self._inflater = inflater
        self.limit = limit or sys.maxsize - HEAD_MAX
        self.between = True
        self.made = 0
        # The frame.
        self._head = b""  # of a head that has not come to its end
        self._frame: FrameHead | None = None
        self._left = 0  # bytes of its payload
        self._mask = b""  # from the next byte on
        self._control = b""  # what has come of a control frame's payload
        # The message.
        self._open = False  # one has begun
        self._is_text = self._compressed = False
        self._fragments = bytearray()  # one, whatever number they came in: an object each costs 60 times a byte
        self._text = TextCheck()

    def read(self, data: bytes, at: int) -> tuple[Message | Control | None, int]:
        """Read on, not further than to the end of a frame.

        Args:
            data: what has come.
            at: where in it to read on.

        Returns:
            The message or the control frame that ends there, if one does; and the offset behind what was read.

        Raises:
            WebSocketFault: the client has broken the protocol; nothing may be read behind that.
        """
        frame = self._frame
        if frame is None:
            frame, at = self._take_head(data, at)
            if frame is None:
                self.between = False
                return None, at
        end = min(at + self._left, len(data))
        if self._compressed:
            end = min(end, at + self._inflater.slice)  # type: ignore[union-attr]  # no frame is compressed without it
        piece = apply_mask(data[at:end], self._mask)
        size = end - at
        self._left -= size
        if self._left:
            self._mask = self._mask[size % 4 :] + self._mask[: size % 4]
        else:
            self._frame = None
        event = self._take_control(piece, frame) if frame.opcode >= CLOSE else self._take_data(piece, frame)
        self.between = self._frame is None and not self._open
        return event, end

    def _take_head(self, data: bytes, at: int) -> tuple[FrameHead | None, int]:
        known = len(self._head)
        head = self._head + data[at : at + HEAD_MAX - known]
        frame = frame_head(head, may_compress=self._inflater is not None)
        if frame is None:
            self._head = head
            return None, at + len(head) - known
        self._head = b""
        self._begin(frame)
        self._frame, self._left, self._mask = frame, frame.size, frame.mask
        return frame, at + frame.length - known

    def _begin(self, frame: FrameHead) -> None:
        if frame.opcode >= CLOSE:
            return
        if (frame.opcode == CONT) != self._open:
            expected = "the next fragment of a message" if self._open else "the first frame of a message"
            raise WebSocketFault(PROTOCOL_ERROR, f"expected was {expected}")
        if not self._open:
            self._open = True
            self._is_text, self._compressed = frame.opcode == TEXT, frame.compressed
        if not self._compressed and frame.size > self.limit - len(self._fragments):
            raise WebSocketFault(TOO_BIG, f"a message has {self.limit} bytes at most")

    def _take_control(self, piece: bytes, frame: FrameHead) -> Control | None:
        payload = self._control + piece
        if self._left:
            self._control = payload
            return None
        self._control = b""
        return Control(frame.opcode, payload)

    def _take_data(self, piece: bytes, frame: FrameHead) -> Message | None:
        is_last = frame.fin and not self._left
        fragments = self._fragments
        if self._compressed:
            room = self.limit - len(fragments)
            piece = self._inflater.inflate(piece, fragments, room, is_last=is_last)  # type: ignore[union-attr]  # as above
            self.made += self._inflater.cost  # type: ignore[union-attr]  # as above
        else:
            self.made += len(piece)
        if is_last:
            self._open = False
            if not fragments:
                return self._message(piece)
        if self._is_text:
            self._text.feed(piece, is_last=is_last)
        fragments += piece
        if not is_last:
            return None
        self._fragments, self._text = bytearray(), TextCheck()
        return received(fragments, self._is_text)

    def _message(self, data: bytes) -> Message:
        """Return a message that has come in one piece."""
        try:
            return received(data, self._is_text)
        except UnicodeDecodeError as exc:
            raise no_text(exc.start) from None
