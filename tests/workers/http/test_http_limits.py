"""Limits count bytes per message, across reads."""

from __future__ import annotations

import pytest

from tests.workers.http.wire import GET, WAYS, assert_refused, assert_served, feed, talk

ways = pytest.mark.parametrize("way", WAYS)


# 9. Limits.


@ways
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /" + b"a" * 3000, 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 20 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 1200 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b" " * 1200 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 5000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a" * 1200 + b": b\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n" + b"x" * 101, 413),
    ],
)
def test_heads_and_bodies_are_limited(way: str, data: bytes, status: int) -> None:
    limits = {"limit_request_line": 200, "limit_headers": 20, "limit_header_size": 1000, "limit_body": 100}
    assert_refused(way, data, status, **limits)


@ways
def test_what_is_exactly_at_the_limits_is_served(way: str) -> None:
    line = b"GET /" + b"a" * 186 + b" HTTP/1.1"
    assert len(line) == 200
    head = line + b"\r\nHost: a\r\n" + b"A: b\r\n" * 18 + b"B: "
    head += b"c" * (1000 - len(head) - 4) + b"\r\n\r\n"
    limits = {"limit_request_line": 200, "limit_headers": 20, "limit_header_size": 1000, "limit_body": 100}
    result, before = feed(way, head + GET, **limits)
    assert result.statuses == [200] * (before + 2)
    assert_refused(way, head.replace(b"B: c", b"B: cc"), 431, **limits)
    assert_refused(way, head.replace(b"GET /a", b"GET /aa").replace(b"B: c", b"B: "), 414, **limits)


@ways
def test_a_chunked_body_is_limited(way: str) -> None:
    data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"32\r\n" + b"x" * 50 + b"\r\n"
    result, before = feed(way, data + b"33\r\n" + b"x" * 51 + b"\r\n0\r\n\r\n" + GET, limit_body=100)
    assert result.statuses == [200] * before + [413]
    assert result.ended


def test_chunk_extensions_are_limited() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    result = talk(head + b"5;", *[b"a" * 4096] * 64)
    assert result.statuses == [400]
    assert result.ended
    many = talk(head, *[b"1;" + b"a" * 1000 + b"\r\nx\r\n"] * 100, b"0\r\n\r\n")
    assert many.statuses == [400]


def test_a_body_of_one_byte_chunks_is_served() -> None:
    body = b"1\r\nx\r\n" * 20000 + b"0\r\n\r\n"
    result = talk(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert result.seen == [("POST", "/", b"x" * 20000)]


@ways
def test_one_empty_line_before_a_request_is_accepted_and_no_more(way: str) -> None:
    assert_served(way, b"\r\n" + GET, ("GET", "/", b""))
    assert_refused(way, b"\r\n\r\n", 400)
    assert_refused(way, b"\n", 400)
    assert_refused(way, b"\r\r\n", 400)
    assert_refused(way, b"\r\n" * 10000, 400)
