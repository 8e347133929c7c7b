"""Compressed messages: with and without context takeover, and behind blocks that are marked as final."""

from __future__ import annotations

import contextlib
import random
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from preforkd.workers.gateways.websocket.deflate import Deflater, Inflater
from preforkd.workers.gateways.websocket.frames import WebSocketFault
from preforkd.workers.gateways.websocket.plain import COMPRESSED, message_frame

HELLO_FINAL = bytes.fromhex("f3 48 cd c9 c9 07 00 00")  # RFC 7692 section 7.2.3.4
HELLO = bytes.fromhex("f2 48 cd c9 c9 07 00")  # section 7.2.3.1
HELLO_AGAIN = bytes.fromhex("f2 00 11 00 00")  # section 7.2.3.2: refers to the message before
TWO_BLOCKS = bytes.fromhex("f2 48 05 00 00 00 ff ff ca c9 c9 07 00")  # section 7.2.3.5
STORED = bytes.fromhex("00 05 00 fa ff 48 65 6c 6c 6f 00")  # section 7.2.3.3


def inflate(inflater: Inflater, wire: bytes, limit: int = 1 << 20, step: int = 1 << 20) -> bytes:
    """One message, given in pieces."""
    made = bytearray()
    for at in range(0, len(wire) or 1, step):
        piece = wire[at : at + step]
        made += inflater.inflate(piece, made, limit - len(made), is_last=at + step >= len(wire))
    return bytes(made)


def deflated(messages: list[bytes], final: list[bool], *, keeps_context: bool) -> Iterator[bytes]:
    """What a client sends that ends some messages with a final block (one of zlib's, with what was before it)."""
    window = b""
    for message, is_final in zip(messages, final, strict=True):
        encoder = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=window[-32768:])
        if is_final:
            yield encoder.compress(message) + encoder.flush(zlib.Z_FINISH) + b"\x00"
        else:
            yield (encoder.compress(message) + encoder.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")
        window = window + message if keeps_context else b""


@pytest.mark.parametrize("step", [1, 3, 100])
@pytest.mark.parametrize("keeps_context", [True, False])
@pytest.mark.parametrize("wire", [HELLO, TWO_BLOCKS, STORED, HELLO_FINAL, HELLO_FINAL[:-1]], ids=bytes.hex)
def test_the_examples_of_the_rfc_one_behind_the_other(wire: bytes, keeps_context: bool, step: int) -> None:
    inflater = Inflater(15, keeps_context=keeps_context)
    for _ in range(3):
        assert inflate(inflater, wire, step=step) == b"Hello"
        assert inflate(inflater, b"\x00", step=step) == b"", "an empty message"
        assert inflate(inflater, b"", step=step) == b"", "and one without the block that it is to have"
        assert inflate(inflater, HELLO, step=step) == b"Hello"


@pytest.mark.parametrize("first", [HELLO, HELLO_FINAL, HELLO_FINAL[:-1]], ids=bytes.hex)
def test_context_takeover_is_for_those_who_have_agreed_on_it(first: bytes) -> None:
    inflater = Inflater(15, keeps_context=True)
    assert [inflate(inflater, first), inflate(inflater, HELLO_AGAIN)] == [b"Hello", b"Hello"]
    inflater = Inflater(15, keeps_context=False)
    assert inflate(inflater, first) == b"Hello"
    with pytest.raises(WebSocketFault) as raised:
        inflate(inflater, HELLO_AGAIN)
    assert raised.value.code == 1002


WORDS = st.lists(st.sampled_from([b"alpha ", b"beta ", b"gamma ", bytes(300), b"\xff"]), max_size=40).map(b"".join)


@settings(max_examples=60, deadline=None)
@given(
    messages=st.lists(WORDS, min_size=1, max_size=8), final=st.lists(st.booleans(), min_size=8, max_size=8),
    step=st.integers(1, 50), keeps_context=st.booleans(),
)  # fmt: skip
def test_final_blocks_change_nothing(messages: list[bytes], final: list[bool], step: int, keeps_context: bool) -> None:
    final[0] = True  # clients have them from the beginning
    inflater = Inflater(15, keeps_context=keeps_context)
    for message, wire in zip(
        messages, deflated(messages, final[: len(messages)], keeps_context=keeps_context), strict=True
    ):
        assert inflate(inflater, wire, step=step) == message


@pytest.mark.parametrize("bits", [9, 12, 15])
def test_a_window_of_any_size_is_kept_across_final_blocks(bits: int) -> None:
    random.seed(1)
    inflater = Inflater(bits, keeps_context=True)
    window = b""
    for _ in range(12):
        message = random.randbytes((1 << bits) // 3) + window[-100:]
        encoder = zlib.compressobj(9, zlib.DEFLATED, -bits, zdict=window)
        wire = encoder.compress(message) + encoder.flush(zlib.Z_FINISH) + b"\x00"
        assert inflate(inflater, wire, step=1000) == message
        window = (window + message)[-(1 << bits) :]


def test_several_final_blocks_in_one_message() -> None:
    inflater = Inflater(15, keeps_context=True)
    assert inflate(inflater, HELLO_FINAL[:-1] * 3 + b"\x00") == b"Hello" * 3
    assert inflate(inflater, HELLO) == b"Hello"


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("wire", [HELLO, HELLO_FINAL, HELLO_FINAL[:-1] + HELLO], ids=bytes.hex)
def test_a_limit_is_kept_to_the_byte(wire: bytes, step: int) -> None:
    size = len(inflate(Inflater(15, keeps_context=True), wire))
    for limit in range(size + 3):
        inflater = Inflater(15, keeps_context=True)
        if limit >= size:
            assert len(inflate(inflater, wire, limit, step)) == size
            continue
        with pytest.raises(WebSocketFault) as raised:
            inflate(inflater, wire, limit, step)
        assert raised.value.code == 1009


def test_a_bomb_is_stopped_before_it_is_inflated() -> None:
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    wire = encoder.compress(bytes(100_000_000)) + encoder.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(WebSocketFault) as raised:
        inflate(Inflater(15, keeps_context=True), wire, limit=1000, step=4096)
    assert raised.value.code == 1009


@settings(max_examples=100, deadline=None)
@given(wire=st.binary(max_size=60), step=st.integers(1, 20))
def test_what_is_not_compressed_is_a_fault_and_nothing_else(wire: bytes, step: int) -> None:
    inflater = Inflater(15, keeps_context=True)
    with contextlib.suppress(WebSocketFault):
        assert len(inflate(inflater, wire, 10_000, step)) <= 10_000


def test_many_final_blocks_cost_what_they_are_worth() -> None:
    inflater = Inflater(15, keeps_context=True)
    assert inflate(inflater, HELLO) == b"Hello"
    assert (inflater.slice, inflater.cost) == (4096, 5)
    inflater.inflate(b"\x03\x00" * 100, bytearray(), 1000, is_last=False)
    assert inflater.slice == 256
    assert inflater.cost == 100 * 4096, "a new decoder for each"


# What we send


@pytest.mark.parametrize("bits", [9, 12, 15])
@pytest.mark.parametrize("keeps_context", [True, False])
def test_what_we_compress_is_read_by_the_library(keeps_context: bool, bits: int) -> None:
    deflater = Deflater(bits, keeps_context=keeps_context)
    theirs = PerMessageDeflate(not keeps_context, True, bits, 15)
    sizes = []
    for message in [b"hello hello", b"", b"hello hello", bytes(range(256)) * 300, b"hello hello"]:
        wire = deflater.deflate(message)
        sizes.append(len(wire))
        assert theirs.decode(Frame(Opcode.BINARY, wire, rsv1=True)).data == message
    assert (sizes[2] < sizes[0]) == keeps_context, "it refers back"


def test_compressed_frames_are_those_of_the_library() -> None:
    deflater = Deflater(12, keeps_context=True)
    theirs = PerMessageDeflate(False, False, 15, 12, {"memLevel": 5})
    for message in (b"hello", b"", b"hello", bytes(200_000), bytes(range(256)) * 300):
        expected = Frame(Opcode.TEXT, message).serialize(mask=False, extensions=[theirs])
        assert message_frame(deflater.deflate(message), True, COMPRESSED) == expected
