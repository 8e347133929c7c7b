"""The compression of messages (permessage-deflate, RFC 7692), in both directions.

The library `websockets` negotiates it. Its inflating takes whole frames, and ends for good with the first block that is
marked as final (RFC 7692 section 7.2.3.4): whatever comes behind that is an empty message.
"""

from __future__ import annotations

import zlib
from typing import Final

from preforkd.workers.gateways.websocket.frames import PROTOCOL_ERROR, TOO_BIG, WebSocketFault

SLICE: Final = 4096
"""Bytes that are inflated at a time: they may become a thousand times as many."""

SLICE_OF_FINAL_BLOCKS: Final = 256
"""And for a client that has final blocks: each may have two bytes, and takes a new decoder."""

_DECODER_COST: Final = 4096
_TAIL: Final = b"\x00\x00\xff\xff"
"""What the sender has cut off the end of a message (RFC 7692 section 7.2.2)."""


_MEMORY_LEVEL: Final = 5  # of 9: 16 kB for each client, as in the library


class Deflater:
    """Compresses the messages for one client.

    Args:
        window_bits: base-two logarithm of the bytes that we may refer back, 9 to 15.
        keeps_context: also across the end of a message (context takeover).
    """

    __slots__ = ("_encoder", "_keeps_context", "_window_bits")

    def __init__(self, window_bits: int, *, keeps_context: bool) -> None:
        self._window_bits = window_bits
        self._keeps_context = keeps_context
        self._encoder = self._new() if keeps_context else None

    def _new(self) -> zlib._Compress:
        return zlib.compressobj(wbits=-self._window_bits, memLevel=_MEMORY_LEVEL)

    def deflate(self, data: bytes) -> bytes:
        """Return what a whole message is compressed to (RFC 7692 section 7.2.1)."""
        encoder = self._encoder or self._new()
        return (encoder.compress(data) + encoder.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]


class Inflater:
    """Inflates the messages of one client.

    Behind a final block a new decoder begins. It is given what the client may refer to: what was inflated before, back
    to the start of the first message that had such a block. Clients have them in every message, or in none; one that
    refers to what was before that gets an error, not a wrong message.

    Args:
        window_bits: base-two logarithm of the bytes that the client refers back, 8 to 15.
        keeps_context: also across the end of a message (context takeover).

    Attributes:
        slice: bytes that `inflate()` should be given at a time, at most.
        cost: of its last call, as bytes that were made.
    """

    __slots__ = ("_between", "_decoder", "_keeps_context", "_recent", "_window_bits", "cost", "slice")

    def __init__(self, window_bits: int, *, keeps_context: bool) -> None:
        self._window_bits = window_bits
        self._keeps_context = keeps_context
        self._decoder: zlib._Decompress | None = None  # 10 kB: not between messages that do not refer to each other
        self._between = True  # the next byte is the first of a message, or the first behind a final block
        self.slice = SLICE
        self.cost = 0
        self._recent = b""  # the end of the messages before this one, if that is asked for

    def inflate(self, data: bytes, before: bytearray, room: int, *, is_last: bool) -> bytes:
        """Return what the next bytes of a message become.

        Args:
            data: the bytes.
            before: what those before have become.
            room: bytes that the message may still have.
            is_last: the message ends with them.

        Raises:
            WebSocketFault: they are not compressed so, or become too many.
        """
        if is_last and (data or not self._between):
            data += _TAIL
        decoder = self._decoder or zlib.decompressobj(-self._window_bits)
        made = self._decoded(decoder, data, room)
        decoders = 0
        while decoder.eof:
            rest = decoder.unused_data
            decoders += 1
            self._between = True
            self.slice = SLICE_OF_FINAL_BLOCKS
            decoder = zlib.decompressobj(-self._window_bits, zdict=self._window(before, made))
            if not rest or (is_last and rest == _TAIL):  # without the octet that is to stand behind a final block
                break
            made += self._decoded(decoder, rest, room - len(made))
        self._decoder = decoder
        if is_last:
            self._end(before, made)
        self.cost = len(made) + decoders * _DECODER_COST
        return made

    def _decoded(self, decoder: zlib._Decompress, data: bytes, room: int) -> bytes:
        if data:
            self._between = False
        try:
            made = decoder.decompress(data, room + 1)
        except zlib.error:
            raise WebSocketFault(PROTOCOL_ERROR, "a compressed message cannot be inflated") from None
        if len(made) > room:
            raise WebSocketFault(TOO_BIG, "a compressed message is too big")
        return made

    def _window(self, before: bytearray, made: bytes) -> bytes:
        """What may be referred to behind `made`."""
        size = 1 << self._window_bits
        return (self._recent + before[-size:] + made[-size:])[-size:]

    def _end(self, before: bytearray, made: bytes) -> None:
        if not self._keeps_context:
            self._decoder = None
        elif self.slice != SLICE:  # there are final blocks
            self._recent = self._window(before, made)
        self._between = True
