"""Plain messages that are taken without the library: the same as with it, and only where a frame begins."""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from preforkd.workers.gateways.asgi import AsgiGateway, AsgiOptions
from preforkd.workers.gateways.websocket.plain import message_frame, plain_message, plain_size
from tests.e2e.client import HANDSHAKE
from tests.workers.gateways.asgi.serving import Receive, Scope, Send
from tests.workers.http.wire import converse

HEAD = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE)
OPENING = f"GET / HTTP/1.1\r\nHost: a\r\n{HEAD}\r\n".encode()


def frame(opcode: Opcode, data: bytes, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


SIZES = [0, 1, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537, 70000]


@pytest.mark.parametrize("size", SIZES)
def test_one_whole_plain_frame_is_a_message(size: int) -> None:
    text, data = "é" * (size // 2), (bytes(range(256)) * 300)[:size]
    assert plain_message(frame(Opcode.TEXT, text.encode()), sys.maxsize) == {
        "type": "websocket.receive", "text": text
    }  # fmt: skip
    assert plain_message(frame(Opcode.BINARY, data), sys.maxsize) == {
        "type": "websocket.receive", "bytes": data
    }  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        b"",
        frame(Opcode.TEXT, b"abc")[:-1],
        frame(Opcode.TEXT, b"abc") + b"\x81",
        frame(Opcode.TEXT, b"abc") * 2,
        frame(Opcode.TEXT, bytes(126))[:-1],
        frame(Opcode.TEXT, bytes(65535)) + b"\x81",
        frame(Opcode.BINARY, bytes(65536))[:-1],
        b"\x82\xfe\x00\x7d" + bytes(4 + 125),  # a length that takes more bytes than it needs
        b"\x82\xff" + (65535).to_bytes(8) + bytes(4 + 65535),
        b"\x82\xff" + b"\xff" * 8 + bytes(70000),
        frame(Opcode.TEXT, b"abc", fin=False),
        frame(Opcode.CONT, b"abc"),
        frame(Opcode.PING, b"abc"),
        frame(Opcode.CLOSE, b""),
        frame(Opcode.TEXT, b"\xff"),
        Frame(Opcode.TEXT, b"abcdef").serialize(mask=False),
        bytes([0xC1]) + frame(Opcode.TEXT, b"abc")[1:],  # compressed
        bytes([0x83]) + frame(Opcode.TEXT, b"abc")[1:],  # an unknown opcode
    ],
)
def test_everything_else_is_left_to_the_reader(data: bytes) -> None:
    assert plain_message(data, sys.maxsize) is None


def test_the_limit_of_a_message_holds_for_plain_ones() -> None:
    data = frame(Opcode.TEXT, b"12345")
    assert plain_message(data, 5) is not None
    assert plain_message(data, 4) is None


@pytest.mark.parametrize("size", SIZES)
def test_the_size_on_the_wire_is_that_of_the_frame(size: int) -> None:
    sent = Frame(Opcode.BINARY, bytes(size))
    wire = sent.serialize(mask=True)
    assert plain_size(b"before" + wire + b"behind", 6, size) == len(wire)
    assert plain_size(wire, 0, size - 1) == 0
    known = 2 if size < 126 else 8 if size < 65536 else 14
    assert [plain_size(wire[:cut], 0, size) for cut in range(known)] == [0] * known, "not known"
    assert plain_size(wire[:known], 0, size) == len(wire)


@pytest.mark.parametrize("size", SIZES)
def test_a_frame_that_is_sent_is_the_library_s(size: int) -> None:
    data = bytes(size)
    assert message_frame(data, True) == Frame(Opcode.TEXT, data).serialize(mask=False)
    assert message_frame(data, False) == Frame(Opcode.BINARY, data).serialize(mask=False)


def events(portions: list[bytes], limit: int = 1000) -> list[dict[str, Any]]:
    """What an app receives when these bytes come behind the handshake, each portion in a read of its own."""
    received: list[dict[str, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while not received or received[-1]["type"] != "websocket.disconnect":
            received.append(dict(await receive()))

    async def main() -> None:
        gateway = AsgiGateway(app, AsgiOptions(limit_websocket_message=limit, websocket_ping=0))
        await converse(gateway.handler(), [OPENING, *portions])

    asyncio.run(main())
    return received


FRAMES = st.one_of(
    st.builds(frame, st.just(Opcode.TEXT), st.text(max_size=30).map(str.encode)),
    st.builds(frame, st.just(Opcode.BINARY), st.binary(max_size=130)),
    st.builds(frame, st.just(Opcode.BINARY), st.sampled_from([126, 500, 1000]).map(bytes)),
    st.builds(frame, st.just(Opcode.PING), st.binary(max_size=20)),
    st.builds(
        lambda first, between, rest: frame(Opcode.TEXT, first, False) + between + frame(Opcode.CONT, rest),
        st.just(b"a"), st.sampled_from([b"", frame(Opcode.PING, b"x")]), st.just(b"b"),
    ),
    st.sampled_from([
        frame(Opcode.TEXT, b"\xff"), frame(Opcode.CONT, b"of nothing"), frame(Opcode.CLOSE, b"\x03\xe8"),
        frame(Opcode.TEXT, b"begun", False), Frame(Opcode.TEXT, b"plain").serialize(mask=False),
        b"\x82\xfe\x00\x03\x00\x00\x00\x00abc",  # its length is longer than needed
        frame(Opcode.BINARY, bytes(1001)),
    ]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(frames=st.lists(FRAMES, max_size=8), cuts=st.lists(st.integers(1, 1200), max_size=6))
def test_how_frames_are_divided_into_reads_changes_nothing(frames: list[bytes], cuts: list[int]) -> None:
    data = b"".join(frames)
    edges = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    whole = events([data] if data else [])
    for portions in (frames, [data[start:end] for start, end in itertools.pairwise(edges) if start < end]):
        assert events(portions) == whole, "what ends it, too"


@pytest.mark.parametrize("step", [100, 4096, 30_000, 65536, 10**6])
def test_long_messages_are_whole_however_they_are_divided_and_what_is_between_them_too(step: int) -> None:
    data, text = bytes(range(256)) * 300, "é" * 40_000
    frames = [
        frame(Opcode.BINARY, data), frame(Opcode.TEXT, b"short"), frame(Opcode.TEXT, text.encode()),
        frame(Opcode.PING, b"x"), frame(Opcode.BINARY, data), frame(Opcode.CLOSE, b"\x0f\xa0bye"),
    ]  # fmt: skip
    sent = b"".join(frames)
    received = events([sent[at : at + step] for at in range(0, len(sent), step)], limit=100_000)
    assert [event.get("bytes") or event.get("text") for event in received[:-1]] == [data, "short", text, data]
    assert received[-1] == {"type": "websocket.disconnect", "code": 4000, "reason": "bye"}


@pytest.mark.parametrize("wrong", [bytes(100_001), b"\xff" * 70_000], ids=["too long", "no text"])
def test_a_long_message_that_is_wrong_ends_the_websocket(wrong: bytes) -> None:
    sent = frame(Opcode.TEXT, wrong)
    received = events([sent[:20_000], sent[20_000:], frame(Opcode.TEXT, b"behind")], limit=100_000)
    assert [event["type"] for event in received] == ["websocket.disconnect"]
    assert received[0]["code"] == (1009 if len(wrong) > 100_000 else 1007)


def test_a_short_frame_in_the_middle_of_another_is_part_of_it() -> None:
    short = frame(Opcode.TEXT, b"not a message")
    outer = frame(Opcode.BINARY, b"x" * 20 + short + b"y" * 20)
    # The second read looks like a whole short frame, as the mask of the outer one does not change it.
    outer = bytes([0x82, 0x80 | (len(outer) - 6), 0, 0, 0, 0]) + b"x" * 20 + short + b"y" * 20
    at = outer.index(short)
    received = events([frame(Opcode.TEXT, b"before"), outer[:at], short, outer[at + len(short) :]])
    assert [event.get("bytes") or event.get("text") for event in received[:2]] == [
        "before", b"x" * 20 + short + b"y" * 20
    ]  # fmt: skip
