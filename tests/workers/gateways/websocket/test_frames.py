"""The head of a frame: what it says, and what is wrong with it, as soon as that has come."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from preforkd.workers.gateways.websocket.frames import HEAD_MAX, WebSocketFault, frame_head


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
@pytest.mark.parametrize(("opcode", "fin"), [(Opcode.TEXT, True), (Opcode.CONT, False), (Opcode.BINARY, False)])
def test_a_head_is_known_with_its_last_byte(size: int, opcode: Opcode, fin: bool) -> None:
    wire = Frame(opcode, bytes(size), fin=fin).serialize(mask=True)
    head = frame_head(wire[:HEAD_MAX], may_compress=False)
    assert head is not None
    assert (head.opcode, head.fin, head.compressed, head.size) == (int(opcode), fin, False, size)
    assert head.length == len(wire) - size
    assert head.mask == wire[head.length - 4 : head.length]
    assert [frame_head(wire[:cut], may_compress=False) for cut in range(head.length)] == [None] * head.length


@pytest.mark.parametrize("opcode", [0, 1, 2, 8, 9, 10])
def test_the_first_reserved_bit_is_for_the_first_frame_of_a_compressed_message_alone(opcode: int) -> None:
    data = bytes([0xC0 | opcode, 0x80, 1, 2, 3, 4])
    if opcode in (1, 2):
        head = frame_head(data, may_compress=True)
        assert head is not None
        assert head.compressed
    else:
        with pytest.raises(WebSocketFault, match="reserved bit"):
            frame_head(data, may_compress=True)
    with pytest.raises(WebSocketFault, match="reserved bit"):
        frame_head(data, may_compress=False)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        *[(bytes([0x80 | opcode]), f"opcode {opcode} is reserved") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
        (b"\xa1", "a reserved bit is set"),
        (b"\x91", "a reserved bit is set"),
        (b"\xb9", "a reserved bit is set"),
        (b"\x08", "a control frame is fragmented"),
        (b"\x09", "a control frame is fragmented"),
        (b"\x81\x05", "a client has to mask its frames"),
        (b"\x89\x00", "a client has to mask its frames"),
        (b"\x89\xfe", "a control frame has 125 bytes at most"),
        (b"\x88\xff", "a control frame has 125 bytes at most"),
        (b"\x82\xfe\x00\x7d", "the length of a frame takes more bytes than it needs"),
        (b"\x82\xff" + (65535).to_bytes(8), "the length of a frame takes more bytes than it needs"),
        (b"\x82\xff" + (1 << 63).to_bytes(8), "the length of a frame has its highest bit set"),
    ],
)
def test_what_no_frame_begins_with_is_refused_with_its_last_byte(data: bytes, reason: str) -> None:
    assert frame_head(data[:-1], may_compress=True) is None
    with pytest.raises(WebSocketFault) as raised:
        frame_head(data, may_compress=True)
    assert (raised.value.code, raised.value.reason) == (1002, reason)
