"""The chunked transfer coding by itself: whole, byte by byte, with bytes left over, and beside another decoder."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from httptools import HttpParserError, HttpRequestParser
from hypothesis import example, given
from hypothesis import strategies as st

from preforkd.workers.http.chunked import COMPLETE, ChunkedBody
from preforkd.workers.http.errors import BadRequestError
from preforkd.workers.http.limits import DEFAULT_LIMITS, Limits


def decode(portions: list[bytes], limits: Limits = DEFAULT_LIMITS) -> tuple[bytes, bytes] | int | None:
    """Return the body and what is left over; the status of a refused one; None for one that has not ended."""
    decoder = ChunkedBody(limits)
    body: list[bytes] = []
    for number, portion in enumerate(portions):
        try:
            taken = decoder.feed(portion, body)
        except BadRequestError as exc:
            return exc.code
        if decoder.state == COMPLETE:
            assert decoder.received == len(b"".join(body))
            return b"".join(body), portion[taken:] + b"".join(portions[number + 1 :])
        assert taken == len(portion)
    return None


def divided(data: bytes) -> list[list[bytes]]:
    ways = [[data], [data[i : i + 1] for i in range(len(data))]]
    return ways + [[data[:cut], data[cut:]] for cut in range(1, len(data))]


@pytest.mark.parametrize(
    ("data", "body", "left"),
    [
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello", b""),
        (b"5\r\nhello\r\n0\r\n\r\nGET /", b"hello", b"GET /"),
        (b"0\r\n\r\n\r\n", b"", b"\r\n"),
        (b"0005\r\nhello\r\n000\r\n\r\n", b"hello", b""),
        (b"A\r\n0123456789\r\na\r\n" + b"\r\n" * 6 + b"0\r\n\r\n", b"0123456789" + b"\r\n" * 5, b""),
        (b"1;a\r\nx\r\n0;b=c\r\n\r\n", b"x", b""),
        (b'1;a="b;\\"\r";c\r\nx\r\n0\r\n\r\n', b"", b""),
        (b'1;a=" ;\\" \xff\t";c=d;e\r\nx\r\n0\r\n\r\n', b"x", b""),
        # White space that recipients take (RFC 9112 section 7.1.1, "BWS").
        (b"1 ; a\t=\t b ;c\r\nx\r\n0\t;d\r\n\r\n", b"x", b""),
        (b"0\r\nA: b\r\nHost: evil\r\nX:\r\n\r\nrest", b"", b"rest"),
    ],
)
def test_a_body_is_decoded_however_it_is_divided(data: bytes, body: bytes, left: bytes) -> None:
    expected = 400 if b'\r"' in data else (body, left)
    for portions in divided(data):
        assert decode(portions) == expected, portions


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n", b"\n", b"x\r\n", b"-1\r\n", b"+1\r\nx", b"0x1\r\nx", b" 1\r\nx", b"1 \r\nx", b"1\t\r\nx", b"1\nx",
        b"1\r\rx", b"1_0\r\n", b"11111111111111111\r\n", b"1;\r\nx", b"1; \r\nx", b"1;=b\r\nx", b"1;a=\r\nx",
        b"1;a= \r\nx", b"1;a b\r\nx", b"1;a=b c\r\nx", b"1;a;\r\nx", b"1;a=b;\r\nx", b'1;a="b\r\nx', b'1;"a"\r\nx',
        b'1;a="\x00"\r\nx', b"1;a\x00\r\nx", b"1;a\rb\r\nx", b"1,a\r\nx", b"1 a\r\nx", b"1=a\r\nx", b"\xb2\r\n",
        b"1\r\nxy", b"1\r\nx\n", b"1\r\nx\r\r", b"1\r\nx0\r\n",
        b"0\r\n A: b\r\n\r\n", b"0\r\nA : b\r\n\r\n", b"0\r\nA\r\n\r\n", b"0\r\n: b\r\n\r\n", b"0\r\nA: b\n\r\n",
        b"0\r\nA: b\r\n c\r\n\r\n", b"0\r\nA: \x00\r\n\r\n", b"0\r\nContent-Length: 1\r\n\r\n",
        b"0\r\ntransfer-encoding: chunked\r\n\r\n", b"0\r\n\n", b"0\r\n\rx",
    ],
)  # fmt: skip
def test_what_is_no_chunk_is_refused_however_it_is_divided(data: bytes) -> None:
    for portions in divided(data):
        assert decode(portions) == 400, portions


def test_a_chunk_that_would_pass_the_limit_is_refused_before_its_bytes_come() -> None:
    assert decode([b"5\r\n"], Limits(limit_body=5)) is None
    assert decode([b"6\r\n"], Limits(limit_body=5)) == 413
    assert decode([b"3\r\nabc\r\n3\r\n"], Limits(limit_body=5)) == 413
    assert decode([b"ffffffffffffffff\r\n"], Limits(limit_body=5)) == 413
    assert decode([b"ffffffffffffffff\r\n"]) is None


def test_what_comes_besides_the_body_is_bounded() -> None:
    assert decode([b"1" + b";a" * 9000]) == 400  # its line has no end
    assert decode([b"1;" + b"a" * 1000 + b"\r\nx\r\n"] * 17) == 400
    assert decode([b"0\r\n" + b"A: b\r\n" * 3], Limits(limit_headers=2)) == 431
    assert decode([b"0\r\n", b"A: " + b"b" * 1000], Limits(limit_header_size=1000)) == 431
    assert (
        decode([b"0\r\n", *[b"A: " + b"b" * 1000 + b"\r\n"] * 300], Limits(limit_header_size=0, limit_headers=0)) == 431
    )


PIECES = [
    b"0", b"1", b"2", b"a", b"F", b"\r\n", b"\r", b"\n", b";", b"=", b'"', b"\\", b" ", b"\t", b"x", b"ab", b"A: b",
    b":", b"0\r\n\r\n", b"1\r\nx\r\n", b"\x00", b"\xff",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join), st.integers(1, 9))
@example(b"1\r\nx\r\n0\r\n\r\n", 3)
def test_llhttp_agrees_with_what_is_taken_and_division_changes_nothing(data: bytes, size: int) -> None:
    ours = decode([data])
    assert decode([data[i : i + size] for i in range(0, len(data), size)] or [b""]) == ours
    if not isinstance(ours, tuple):
        return
    body, left = ours
    taken = data[: len(data) - len(left)]
    if b" ;" in taken or b"\t;" in taken or b" =" in taken or b"\t=" in taken or b"= " in taken or b"=\t" in taken:
        return  # white space that llhttp does not take
    theirs: list[bytes] = []
    ended: list[bool] = []
    parser = HttpRequestParser(SimpleNamespace(on_body=theirs.append, on_message_complete=lambda: ended.append(True)))
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        parser.feed_data(taken)
    except HttpParserError:
        # It takes no `;` with white space behind it either, and no quoted pairs of some characters.
        assert b"; " in taken or b";\t" in taken or b"\\" in taken, taken
        return
    assert ended, taken
    assert b"".join(theirs) == body
