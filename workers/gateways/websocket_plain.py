"""Plain WebSocket messages, as most are: one unfragmented frame without an extension; received, and sent.

The library's parser takes 6 us for a frame, and 30 more for 64 kB, which it is given in slices; this takes 0.5 and 15.
What is not exactly that, valid or not, is left to the library, which goes on where it was: at the start of a frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from websockets.speedups import apply_mask
except ImportError:  # websockets is installed without its C extension
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    from websockets.frames import Frame

# Payloads up to these sizes have their length in the frame's second byte, in two bytes more, in eight (RFC 6455
# section 5.2).
_SHORT_MAX = 125
_MEDIUM_MAX = 65535
_TEXT, _BINARY = 0x81, 0x82  # FIN, no extension, and the opcode
_MASKED = 0x80
_MEDIUM, _LONG = 126, 127


def plain_message(data: bytes, limit: int) -> dict[str, Any] | None:
    """Return the ASGI message of `data`, if it is one whole, unfragmented, masked data frame; None: it is not.

    Args:
        data: what was read, from the start of a frame on.
        limit: bytes that a message may have.
    """
    start = 6  # two bytes, and four of the mask
    size = len(data) - 6
    if size <= _SHORT_MAX:
        if size < 0 or size > limit or data[1] != _MASKED | size:
            return None
    else:
        start = 8 if size <= _MEDIUM_MAX + 2 else 14
        if plain_size(data, 0, limit) != len(data):
            return None
    kind = data[0]
    if kind != _TEXT and kind != _BINARY:
        return None
    payload = bytes(apply_mask(data[start:], data[start - 4 : start]))
    if kind == _BINARY:
        return {"type": "websocket.receive", "bytes": payload, "text": None}
    try:
        return {"type": "websocket.receive", "text": payload.decode(), "bytes": None}
    except UnicodeDecodeError:
        return None  # the library's way says what is wrong with it


def plain_size(data: bytes, at: int, limit: int) -> int:
    """Return the bytes that the frame at an offset has on the wire, come or not; 0: it is no plain one, or not known.

    Args:
        data: what was read.
        at: where a frame begins in it.
        limit: bytes that a message may have.
    """
    if len(data) - at < 2:
        return 0
    kind = data[at]
    if kind != _TEXT and kind != _BINARY:
        return 0
    mark = data[at + 1]
    if mark < _MASKED:
        return 0
    size = mark - _MASKED
    start = 6
    if size == _MEDIUM:
        start = 8
        size = int.from_bytes(data[at + 2 : at + 4])
        if size <= _SHORT_MAX or len(data) - at < start:
            return 0
    elif size == _LONG:
        start = 14
        size = int.from_bytes(data[at + 2 : at + 10])
        if size <= _MEDIUM_MAX or len(data) - at < start:
            return 0
    return start + size if size <= limit else 0


def plain_frame(payload: bytes, is_text: bool) -> bytes:
    """Return the one frame of a message, as a server sends it: not masked, and without extensions.

    It is what the library makes of it, in 0.3 us instead of 3.

    Args:
        payload: any number of bytes.
        is_text: it is UTF-8, not binary.
    """
    kind = _TEXT if is_text else _BINARY
    size = len(payload)
    if size <= _SHORT_MAX:
        return bytes((kind, size)) + payload
    if size <= _MEDIUM_MAX:
        return bytes((kind, _MEDIUM, size >> 8, size & 0xFF)) + payload
    return bytes((kind, _LONG)) + size.to_bytes(8) + payload


def wire_size(frame: Frame) -> int:
    """Return the bytes that a client's frame has taken on the wire, if its length is as short as can be."""
    size = len(frame.data)
    return 6 + size + (0 if size <= _SHORT_MAX else 2 if size <= _MEDIUM_MAX else 8)
