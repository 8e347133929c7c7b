"""Request bodies in a content coding: decoded, and never more than the limits."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest

from preforkd.workers import Response
from preforkd.workers.http.decoding import FREE_BYTES, MAX_RATIO, Inflater
from preforkd.workers.http.errors import BadRequestError
from tests.workers.http.wire import GET, WAYS, Echo, byte_by_byte, talk

TEXT = b"The quick brown fox jumps over the lazy dog. " * 50


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


BODIES = [
    ("gzip", gzip.compress(TEXT, mtime=0)),
    ("x-gzip", gzip.compress(TEXT, mtime=0)),
    ("GZIP", gzip.compress(TEXT[:100], mtime=0) + gzip.compress(TEXT[100:], mtime=0)),
    ("deflate", zlib.compress(TEXT)),
    ("deflate", raw_deflate(TEXT)),
]


def post(coding: str, body: bytes, length: int | None = None) -> bytes:
    head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: {coding}\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("coding", "body"), BODIES)
def test_a_body_is_decoded(way: str, coding: str, body: bytes) -> None:
    portions, before = WAYS[way](post(coding, body) + GET)
    result = talk(*portions)
    assert result.seen[before:] == [("POST", "/", TEXT), ("GET", "/", b"")]
    assert result.protocol.messages[before].compression in ("gzip", "deflate")


def test_an_unknown_coding_reaches_the_handler_as_it_is() -> None:
    assert talk(post("br", b"whatever")).seen == [("POST", "/", b"whatever")]


def test_a_gateway_can_have_the_bytes_of_the_wire() -> None:
    class Raw(Echo):
        decodes_bodies = False

    body = gzip.compress(TEXT, mtime=0)
    assert talk(post("gzip", body), handler=Raw).seen == [("POST", "/", body)]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_is_413(coding: str) -> None:
    packed = gzip.compress(bytes(50 << 20)) if coding == "gzip" else zlib.compress(bytes(50 << 20))
    result = talk(post(coding, packed), GET)
    assert result.statuses == [413]
    assert result.seen == [("POST", "/", "BadRequestError")]
    assert result.ended


def test_a_bomb_is_never_unfolded_at_once() -> None:
    inflater = Inflater("gzip", 0)
    data = gzip.compress(bytes(50 << 20))
    produced = 0

    def unfold_all() -> None:
        nonlocal produced, data
        while data or inflater.has_more:
            out = inflater.decode(data)
            assert len(out) <= 65536
            produced += len(out)
            data = b""

    with pytest.raises(BadRequestError) as caught:
        unfold_all()
    assert caught.value.code == 413
    assert produced <= max(FREE_BYTES, MAX_RATIO * 51000) + 65536


def test_the_body_limit_holds_for_the_decoded_body() -> None:
    packed = gzip.compress(bytes(10001))
    assert len(packed) < 10000
    assert talk(post("gzip", packed), limit_body=10000).statuses == [413]
    assert talk(post("gzip", gzip.compress(bytes(10000))), limit_body=10000).statuses == [200]


def test_what_folds_well_is_served() -> None:
    words = b" ".join(b"%d" % (n * n % 9973) for n in range(600000))  # 3 MB
    assert talk(post("gzip", gzip.compress(words))).seen == [("POST", "/", words)]
    small = b"x" * 100000  # any ratio is fine for little
    assert talk(post("gzip", gzip.compress(small))).seen == [("POST", "/", small)]


@pytest.mark.parametrize("body", [b"garbage!", gzip.compress(TEXT, mtime=0)[:-9], gzip.compress(TEXT) + b"tail"])
def test_invalid_compressed_data_is_400(body: bytes) -> None:
    for portions in ([post("gzip", body)], byte_by_byte(post("gzip", body))):
        result = talk(*portions)
        assert result.statuses == [400]
        assert result.seen == [("POST", "/", "BadRequestError")]


def test_bytes_behind_deflate_data_are_400() -> None:
    assert talk(post("deflate", zlib.compress(TEXT) + b"tail")).statuses == [400]


@pytest.mark.parametrize("tail", [zlib.compress(b"second"), zlib.compress(b"second")[2:-4]], ids=["zlib", "raw"])
def test_a_second_deflate_stream_is_not_read_as_a_part_of_the_body(tail: bytes) -> None:
    for portions in (
        [post("deflate", zlib.compress(TEXT) + tail)],
        byte_by_byte(post("deflate", zlib.compress(b"first") + tail)),
    ):
        result = talk(*portions)
        assert result.statuses == [400]
        assert result.seen == [("POST", "/", "BadRequestError")]


def test_a_compressed_body_cut_by_eof_raises_to_the_handler() -> None:
    body = gzip.compress(TEXT, mtime=0)
    result = talk(post("gzip", body[:20], length=len(body)), eof=True)
    assert result.seen == [("POST", "/", "ClientDisconnectedError")]
    assert result.output == b""


def test_a_compressed_body_is_read_in_every_way() -> None:
    class Lines(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            first = await payload.readline()
            four = await payload.readexactly(4)
            rest = b"".join([part async for part in payload])
            self.seen.append((message.method, message.path, b"|".join([first, four, rest])))
            response = Response(self.writer, 204)
            response.send_headers()
            await response.write_eof()

    for portions in (
        [post("gzip", gzip.compress(b"one\ntwo\nthree"))],
        byte_by_byte(post("gzip", gzip.compress(b"one\ntwo\nthree"))),
    ):
        assert talk(*portions, handler=Lines).seen == [("POST", "/", b"one\n|two\n|three")]


def test_a_body_of_many_tiny_members_is_400() -> None:
    assert talk(post("gzip", gzip.compress(b"") * 1000)).statuses == [400]
    lines = gzip.compress(TEXT, mtime=0) * 60
    assert talk(post("gzip", lines)).seen == [("POST", "/", TEXT * 60)]


def test_a_body_in_two_codings_reaches_the_handler_as_it_is() -> None:
    body = gzip.compress(gzip.compress(TEXT, mtime=0))
    for codings in ("gzip, gzip", "gzip\r\nContent-Encoding: gzip"):
        result = talk(post(codings, body))
        assert result.seen == [("POST", "/", body)]
        assert result.protocol.messages[0].compression is None
