"""The parser by itself: whole, byte by byte, with bytes left over."""

from __future__ import annotations

import pytest

from preforkd.workers import RequestMessage
from preforkd.workers.http.errors import BadRequestError
from preforkd.workers.http.limits import DEFAULT_LIMITS, Limits
from preforkd.workers.http.parser import RequestParser
from tests.workers.http.wire import GET, byte_by_byte, talk

Event = tuple[object, ...]

COUNTED = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n"
REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /p?q HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: \t y \r\n\r\n",
    COUNTED,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: u\r\n\r\n",
    CHUNKED,
    b"POST /u HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 5\r\n\r\nhello",
    b"OPTIONS * HTTP/1.0\r\n\r\n",
    b"\r\nHEAD http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
]
JOINED = b"".join(data for data in REQUESTS if b"close" not in data and b"HTTP/1.0" not in data)
REFUSED = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    b"\x00",
]


def describe(message: RequestMessage) -> Event:
    return (
        message.method, message.path, tuple(message.version), message.raw_headers, message.should_close,
        message.chunked, message.content_length, message.compression, message.upgrade, message.expect_continue,
    )  # fmt: skip


def events(portions: list[bytes], limits: Limits = DEFAULT_LIMITS) -> list[Event]:
    """Feed portions and return what came of them: heads, bodies, and the error that ended it."""
    parser = RequestParser(limits)
    found: list[Event] = []
    body = b""
    try:
        for portion in portions:
            data = portion
            while data:
                if parser.in_body:
                    parser.feed_body(data)
                    body += b"".join(parser.body)
                    parser.body.clear()
                else:
                    message = parser.feed_head(data)
                    if message is not None:
                        found.append(describe(message))
                        body = b""
                assert 0 < parser.consumed <= len(data)
                data = data[parser.consumed :]
                if not parser.in_body and found and parser.partial is None and found[-1] and len(found[-1]) > 1:
                    found.append((body,))
    except BadRequestError as exc:
        found.append((exc.code,))
    return found


@pytest.mark.parametrize("data", [*REQUESTS, *REFUSED, JOINED, REQUESTS[0] * 3 + REFUSED[2]])
def test_the_division_into_portions_changes_nothing(data: bytes) -> None:
    whole = events([data])
    assert whole
    assert events([data[i : i + 1] for i in range(len(data))]) == whole
    for cut in range(1, len(data)):
        assert events([data[:cut], data[cut:]]) == whole
    for size in (2, 3, 5, 7):
        assert events([data[i : i + size] for i in range(0, len(data), size)]) == whole


@pytest.mark.parametrize("data", REQUESTS)
def test_bytes_left_over_are_not_taken(data: bytes) -> None:
    parser = RequestParser(DEFAULT_LIMITS)
    rest = b"GET /next"
    message = parser.feed_head(data + rest)
    assert message is not None
    left = (data + rest)[parser.consumed :]
    while parser.in_body:
        parser.feed_body(left)
        left = left[parser.consumed :]
    assert left == rest


def test_every_head_is_limited() -> None:
    data = b"GET /" + b"a" * 100 + b" HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n"
    assert len(events([data])) == 2
    assert events([data], Limits(limit_request_line=50)) == [(414,)]
    assert events([data], Limits(limit_headers=1)) == [(431,)]
    assert events([data], Limits(limit_header_size=100)) == [(431,)]
    assert events([COUNTED], Limits(limit_body=5)) == events([COUNTED])
    assert events([COUNTED], Limits(limit_body=4)) == [(413,)]


@pytest.mark.parametrize("behind", [REQUESTS[0], COUNTED, CHUNKED, REFUSED[0], b"\x00", b"\r\n" + REQUESTS[0]])
def test_a_body_that_is_only_counted_ends_where_it_does(behind: bytes) -> None:
    data = COUNTED + COUNTED + behind
    fresh = events([data])
    for cut in range(1, len(data)):
        assert events([data[:cut], data[cut:]]) == fresh
    assert events([data[i : i + 1] for i in range(len(data))]) == fresh


def test_messages_are_not_shared_between_requests() -> None:
    parser = RequestParser(DEFAULT_LIMITS)
    first, second = parser.feed_head(REQUESTS[0]), parser.feed_head(REQUESTS[0])
    assert first is not None
    assert first is not second


def test_the_rest_of_a_body_of_known_length_is_known() -> None:
    parser = RequestParser(DEFAULT_LIMITS)
    parser.feed_head(REQUESTS[2][:-5])
    parser.feed_body(b"he")
    assert parser.body_left() == 3
    parser.feed_body(b"llo")
    parser.feed_head(REQUESTS[3].partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    assert parser.body_left() is None


def test_a_trailer_that_does_not_end_is_bounded() -> None:
    body = b"10000\r\n" + b"x" * 65536 + b"\r\n"  # so much that the bound on the overhead of chunks is far away
    for name in (b"X: ", b""):  # in a value, and in a name
        parser = RequestParser(DEFAULT_LIMITS)
        parser.feed_head(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        parser.feed_body(body)
        parser.feed_body(b"0\r\n" + name)
        fed = 0
        code = 0
        while not code and fed < 600_000:
            try:
                parser.feed_body(b"y" * 10_000)
            except BadRequestError as exc:
                code = exc.code
            fed += 10_000
        assert code == 431
        assert 16384 < fed < 300_000


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("pipelined", [False, True])
def test_one_empty_line_is_accepted_before_every_request(pipelined: bool, bytewise: bool) -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"
    requests = [b"\r\n" + request for request in (GET, GET, post, GET)]
    portions = [b"".join(requests)] if pipelined else requests
    if bytewise:
        portions = byte_by_byte(b"".join(requests))
    result = talk(*portions)
    assert result.statuses == [200] * 4
    # Of two, the second is one too many, also behind requests that had one.
    assert talk(*portions, b"\r\n\r\n" + GET).statuses == [200] * 4 + [400]


@pytest.mark.parametrize("size", [262_144 + difference for difference in (-20, *range(-12, 4), 16_384, 40_000)])
def test_a_chunk_may_come_in_a_longer_piece_than_a_socket_gives(size: int) -> None:
    body = b"x" * size
    data = CHUNKED.replace(b"4\r\n\r\n\r\n\r\n", b"%x\r\n%b\r\n" % (size, body)) + GET
    whole = events([data])
    assert whole == events([data[start : start + 5000] for start in range(0, len(data), 5000)])
    assert whole[1:] == [(body,), *events([GET])]
