"""From frames to messages, and where a message begins."""

from __future__ import annotations

import logging

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from preforkd.workers.gateways.websocket_reader import MessageReader, Reading


def protocol(state: State = State.OPEN) -> ServerProtocol:
    return ServerProtocol(state=state, logger=logging.getLogger("preforkd.test"))


def frame(opcode: Opcode, data: bytes, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


def read(reader: MessageReader, data: bytes) -> list[str | bytes]:
    messages = [reader.take(one) for one in reader.frames(data)]
    return [message["text"] or message["bytes"] for message in messages if message is not None]


FRAGMENTS = [frame(Opcode.TEXT, b"fr", False), frame(Opcode.PING, b"x"), frame(Opcode.CONT, b"a", False),
             frame(Opcode.CONT, b"g")]  # fmt: skip
DATA = frame(Opcode.TEXT, "é".encode()) + frame(Opcode.BINARY, b"\xff" * 200) + b"".join(FRAGMENTS)


@pytest.mark.parametrize("step", [1, 2, 7, len(DATA)])
def test_frames_are_the_same_messages_however_they_are_divided(step: int) -> None:
    reader = MessageReader(protocol(), 0)
    messages = [one for at in range(0, len(DATA), step) for one in read(reader, DATA[at : at + step])]
    assert messages == ["é", b"\xff" * 200, "frag"]
    assert (reader.owed, reader.state) == (0, Reading.BETWEEN)


def test_it_is_known_where_a_message_begins() -> None:
    reader = MessageReader(protocol(), 0)
    whole = frame(Opcode.TEXT, b"abc")
    for at in range(1, len(whole)):
        assert read(reader, whole[at - 1 : at]) == []
        assert reader.owed == at
    assert read(reader, whole[-1:]) == ["abc"]
    assert reader.owed == 0
    seen = []
    for part in FRAGMENTS:
        read(reader, part)
        seen.append((reader.owed, reader.state))
    assert seen == [(0, Reading.TEXT)] * 3 + [(0, Reading.BETWEEN)]
    read(reader, frame(Opcode.BINARY, b"a", False))
    assert reader.state is Reading.BINARY


def test_behind_an_extension_that_changes_sizes_nothing_is_plain() -> None:
    server = protocol()
    server.extensions = [PerMessageDeflate(True, True, 15, 15)]
    reader = MessageReader(server, 0)
    assert read(reader, frame(Opcode.TEXT, b"not compressed")) == ["not compressed"]
    assert reader.owed > 0


@pytest.mark.parametrize("parts", [[b"\xff"], [b"\xc3", b"x"]], ids=["whole", "fragments"])
def test_text_that_is_none_ends_all_messages(parts: list[bytes]) -> None:
    server = protocol()
    reader = MessageReader(server, 0)
    data = frame(Opcode.TEXT, parts[0], len(parts) == 1)
    data += b"".join(frame(Opcode.CONT, part) for part in parts[1:])
    assert read(reader, data + frame(Opcode.TEXT, b"next")) == []
    assert reader.state is Reading.FAILED
    assert server.close_sent is not None
    assert server.close_sent.code == 1007


def test_text_that_is_none_behind_our_close_is_not_for_the_app_either_and_is_no_second_close() -> None:
    server = protocol()
    server.send_close(1012, "service restart")
    reader = MessageReader(server, 0)
    assert read(reader, frame(Opcode.TEXT, b"on its way")) == ["on its way"]
    assert read(reader, frame(Opcode.TEXT, b"\xff") + frame(Opcode.TEXT, b"next")) == []
    assert server.close_sent is not None
    assert server.close_sent.code == 1012
