"""The framing of WebSockets on the real daemon: the cases of Autobahn's test suite that are about it.

Each is sent in one piece and byte by byte, without compression and with compressed messages.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest
from xprocess.xprocess import XProcess  # type: ignore[import-untyped] # pytest-xprocess has no type hints

from tests.e2e.conftest import shared_daemon
from tests.e2e.daemon import APPS, Daemon
from tests.e2e.websocket_client import DEFLATE, TAIL, RawWebSocket, Reply, frame

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
LIMIT = 100_000


@pytest.fixture(scope="module")
def daemon(xprocess: XProcess) -> Iterator[Daemon]:
    options = ["--limit-websocket-message", str(LIMIT)]
    app = f"{APPS / 'asgi_messages.py'}:app"
    with shared_daemon(xprocess, "websocket-frames", *options, app=app, tolerated="^$") as start:
        yield start.daemons[0]


def websocket(daemon: Daemon, compressed: bool = False, path: str = "/echo") -> RawWebSocket:
    client = RawWebSocket(daemon.port, path, *([DEFLATE] if compressed else []))
    assert (b"permessage-deflate" in client.head) == compressed
    return client


def deflated(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-12)
    return encoder.compress(data) + encoder.flush(zlib.Z_SYNC_FLUSH)


def text(data: bytes, compressed: bool) -> bytes:
    if not compressed:
        return frame(TEXT, data)
    return frame(TEXT, deflated(data).removesuffix(TAIL), rsv=4)


# By the numbers of Autobahn's cases: what is sent behind a "hello", and what the server does behind its echo.
CASES: dict[str, tuple[bytes, int]] = {
    "3.2": (frame(TEXT, b"x", rsv=2) + frame(PING, b""), 1002),
    "3.3": (frame(TEXT, b"x", rsv=3) + frame(PING, b""), 1002),
    "3.4": (frame(BINARY, b"x", rsv=1) + frame(PING, b""), 1002),
    "3.7": (frame(CLOSE, b"", rsv=7), 1002),
    "4.1.3": (frame(5, b"") + frame(PING, b""), 1002),
    "4.1.4": (frame(6, b"x") + frame(PING, b""), 1002),
    "4.1.5": (frame(7, b"x" * 10), 1002),
    "4.2.3": (frame(13, b"") + frame(PING, b""), 1002),
    "4.2.4": (frame(14, b"x") + frame(PING, b""), 1002),
    "4.2.5": (frame(15, b"x" * 10), 1002),
    "5.1": (frame(PING, b"frag", fin=False) + frame(CONT, b"ment"), 1002),
    "5.15": (frame(CONT, b"of nothing", fin=False) + frame(TEXT, b"x"), 1002),
    "5.18": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "2.5": (b"\x89\xfe\x00\x7e" + bytes(4 + 126), 1002),
    "6.3.1": (frame(TEXT, "κόσμε".encode() + b"\xed\xa0\x80edited"), 1007),
    "7.1.4": (frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"x"), 1000),
    "7.1.5": (frame(TEXT, b"x", fin=False) + frame(CLOSE, b"\x0f\xa0bye") + frame(CONT, b"y"), 4000),
    "7.3.1": (frame(CLOSE, b"") + frame(PING, b""), 1005),
    "7.3.2": (frame(CLOSE, b"\x03"), 1002),
    "7.5.1": (frame(CLOSE, b"\x03\xe8" + b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80"), 1007),
    "7.9.1": (frame(CLOSE, (999).to_bytes(2)), 1002),
    "7.9.4": (frame(CLOSE, (1005).to_bytes(2)), 1002),
    "7.9.6": (frame(CLOSE, (1015).to_bytes(2)), 1002),
    "7.9.9": (frame(CLOSE, (2999).to_bytes(2)), 1002),
    "not masked": (b"\x81\x01x", 1002),
    "a length of 2 bytes where 1 would do": (b"\x82\xfe\x00\x05" + bytes(4 + 5), 1002),
    "a length of 8 bytes where 2 would do": (b"\x82\xff" + (200).to_bytes(8) + bytes(4 + 200), 1002),
    "a length beyond 63 bits": (b"\x82\xff" + b"\xff" * 8 + bytes(4), 1002),
    "too long": (b"\x82\xff" + (LIMIT + 1).to_bytes(8) + bytes(4), 1009),
}


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "deflate"])
@pytest.mark.parametrize("by_the_byte", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("case", CASES)
def test_what_stands_before_a_fault_or_a_close_is_answered_and_nothing_behind_it(
    daemon: Daemon, case: str, by_the_byte: bool, compressed: bool
) -> None:
    data, code = CASES[case]
    with websocket(daemon, compressed) as client:
        client.send(text(b"hello", compressed) + data, by_the_byte=by_the_byte)
        echo, *rest = client.replies()
        assert echo == Reply(TEXT, b"hello")
        assert [(one.opcode, one.payload[0]) for one in rest] == [(CLOSE, code)]


# Cases 6.4.1 to 6.4.4: text that is none fails with the byte that makes it so, though more of it is to come.

GOOD, WRONG = "κόσμε".encode() + b"\xf4", b"\x90"


@pytest.mark.parametrize("way", ["fragments", "one frame", "compressed fragments", "one compressed frame"])
def test_bytes_that_can_be_no_text_fail_at_once(daemon: Daemon, way: str) -> None:
    compressed = "compressed" in way
    good, wrong = GOOD, WRONG
    if compressed:
        encoder = zlib.compressobj(wbits=-12)
        good = encoder.compress(good) + encoder.flush(zlib.Z_SYNC_FLUSH)
        wrong = encoder.compress(wrong) + encoder.flush(zlib.Z_SYNC_FLUSH)
    rsv = 4 if compressed else 0
    if "fragments" in way:
        parts = [frame(TEXT, good, fin=False, rsv=rsv), frame(CONT, wrong, fin=False)]
    else:
        whole = frame(TEXT, good + wrong + b"and more", rsv=rsv)
        parts = [whole[: 6 + len(good)], whole[6 + len(good) : 6 + len(good + wrong)]]
    with websocket(daemon, compressed) as client:
        client.send(text(b"hello", compressed) + parts[0])
        assert client.reply() == Reply(TEXT, b"hello")
        if "fragments" in way:
            client.send(frame(PING, b"still there?"))
            assert client.reply() == Reply(PONG, b"still there?"), "so far it may become text"
        client.send(parts[1])
        (close,) = client.replies()
        assert close.opcode == CLOSE
        assert close.payload[0] == 1007


# Compression


def final(data: bytes, window: bytes = b"", padded: bool = True) -> bytes:
    """A message that ends with a block that is marked as final (RFC 7692 section 7.2.3.4).

    Args:
        data: the message.
        window: what it may refer to.
        padded: it has the octet behind that block that it is to have.
    """
    encoder = zlib.compressobj(9, zlib.DEFLATED, -12, zdict=window)
    return encoder.compress(data) + encoder.flush(zlib.Z_FINISH) + b"\x00" * padded


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("by_the_byte", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("takeover", [True, False], ids=["context takeover", "no context takeover"])
def test_messages_behind_one_that_ends_with_a_final_block_are_not_lost(
    daemon: Daemon, takeover: bool, by_the_byte: bool, padded: bool
) -> None:
    extension = DEFLATE if takeover else (DEFLATE[0], DEFLATE[1] + "; client_no_context_takeover")
    words = [b"first, first, first", b"second, second", b"first, first, first and third"]
    with RawWebSocket(daemon.port, "/echo", extension) as client:
        assert (b"client_no_context_takeover" in client.head) != takeover
        sent = b""
        for word in words:
            data = final(word, sent if takeover else b"", padded)
            client.send(frame(TEXT, data, rsv=4), by_the_byte=by_the_byte)
            assert client.reply() == Reply(TEXT, word)
            data = final(word, sent + word if takeover else b"", padded)
            client.send(frame(BINARY, data[:4], fin=False, rsv=4) + frame(PING, b""), by_the_byte=by_the_byte)
            assert client.reply() == Reply(PONG, b"")
            client.send(frame(CONT, data[4:], fin=False) + frame(CONT, b""), by_the_byte=by_the_byte)
            assert client.reply() == Reply(BINARY, word), "in fragments"
            client.send(text(word, compressed=True))
            assert client.reply() == Reply(TEXT, word), "and one without"
            client.send(text(word, compressed=False))
            assert client.reply() == Reply(TEXT, word), "and one that is not compressed"
            sent += word * 3


def test_a_limit_holds_behind_final_blocks_and_across_them(daemon: Daemon) -> None:
    half = final(bytes(LIMIT // 2), padded=False)
    with websocket(daemon, compressed=True) as client:
        client.send(frame(BINARY, half + half + b"\x00", rsv=4))
        echo = client.reply()
        assert echo is not None
        assert echo.payload == bytes(LIMIT)
        client.send(frame(BINARY, half + half + final(b"x"), rsv=4))
        (close,) = client.replies()
        assert close.payload[0] == 1009
