"""The head of a client's WebSocket frame (RFC 6455 section 5.2), and what a client may do wrong.

What is wrong with a frame is known from its head, and is said as soon as the byte has come that is wrong: whoever would
wait for the rest of it may wait for ever.
"""

from __future__ import annotations

from typing import Final, NamedTuple

try:
    from websockets.speedups import apply_mask as apply_mask
except ImportError:  # websockets is installed without its C extension
    from websockets.utils import apply_mask as apply_mask

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
HEAD_MAX: Final = 14
"""Bytes of the longest head: two, eight of the length, four of the mask."""

_OPCODES = frozenset((CONT, TEXT, BINARY, CLOSE, PING, PONG))
_FIN, _RSV1, _RSV = 0x80, 0x40, 0x70
_MASKED = 0x80
CONTROL_MAX = SHORT_MAX = 125
MEDIUM_MAX = 65535
_MEDIUM = 126

PROTOCOL_ERROR, INVALID_DATA, TOO_BIG = 1002, 1007, 1009
"""Close codes (RFC 6455 section 7.4.1)."""


class WebSocketFault(Exception):  # noqa: N818 -- whose fault it is says its name
    """The client has broken the protocol: the WebSocket is failed (RFC 6455 section 7.1.7).

    Args:
        code: that of the Close that says so (RFC 6455 section 7.4).
        reason: what is wrong, 123 bytes at most.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class FrameHead(NamedTuple):
    """The head of a frame.

    Attributes:
        opcode: what it carries.
        fin: it is the last frame of its message.
        compressed: RSV1 is set (RFC 7692 section 6).
        size: bytes of its payload.
        mask: the four bytes that it is masked with.
        length: bytes of the head itself.
    """

    opcode: int
    fin: bool
    compressed: bool
    size: int
    mask: bytes
    length: int


def frame_head(data: bytes, *, may_compress: bool) -> FrameHead | None:
    """Return the head that bytes begin with; None: it has not come to its end.

    Args:
        data: the first bytes of a frame.
        may_compress: permessage-deflate is agreed upon: the first frame of a message may have RSV1.

    Raises:
        WebSocketFault: no frame may begin so.
    """
    if not data:
        return None
    opcode = _checked_opcode(data[0], may_compress=may_compress)
    if len(data) < 2:
        return None
    size = data[1] - _MASKED
    if size < 0:
        raise WebSocketFault(PROTOCOL_ERROR, "a client has to mask its frames")
    if opcode >= CLOSE and size > CONTROL_MAX:
        raise WebSocketFault(PROTOCOL_ERROR, "a control frame has 125 bytes at most")
    at = 2
    if size > SHORT_MAX:
        at, most = (4, SHORT_MAX) if size == _MEDIUM else (10, MEDIUM_MAX)
        if len(data) < at:
            return None
        size = _checked_size(int.from_bytes(data[2:at]), most)
    if len(data) < at + 4:
        return None
    first = data[0]
    return FrameHead(opcode, first >= _FIN, bool(first & _RSV1), size, data[at : at + 4], at + 4)


def _checked_opcode(first: int, *, may_compress: bool) -> int:
    opcode = first & 0x0F
    if opcode not in _OPCODES:
        raise WebSocketFault(PROTOCOL_ERROR, f"opcode {opcode} is reserved")
    allowed = _RSV1 if may_compress and opcode in (TEXT, BINARY) else 0
    if first & _RSV & ~allowed:
        raise WebSocketFault(PROTOCOL_ERROR, "a reserved bit is set")
    if opcode >= CLOSE and first < _FIN:
        raise WebSocketFault(PROTOCOL_ERROR, "a control frame is fragmented")
    return opcode


def _checked_size(size: int, most: int) -> int:
    """Check a length that has bytes of its own.

    Args:
        size: what they say.
        most: what would have had its place in fewer.
    """
    if size <= most:
        raise WebSocketFault(PROTOCOL_ERROR, "the length of a frame takes more bytes than it needs")
    if size >> 63:
        raise WebSocketFault(PROTOCOL_ERROR, "the length of a frame has its highest bit set")
    return size
