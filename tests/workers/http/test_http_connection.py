"""What becomes of the connection: keep-alive, pipelines, errors, EOF, Expect, unread bodies, lingering."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from preforkd.workers import Response
from tests.workers.http.wire import (
    GET,
    WAYS,
    Echo,
    FakeTransport,
    assert_refused,
    assert_served,
    byte_by_byte,
    feed,
    parse_replies,
    talk,
    turns,
)

ways = pytest.mark.parametrize("way", WAYS)


class Unread(Echo):
    async def handle_request(self, message: Any, payload: Any) -> None:
        self.seen.append((message.method, message.path, b""))
        self.keep_alive(True)
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Length", "2")
        response.send_headers()
        response.write(b"ok")
        await response.write_eof()


# 8. Keep-alive.


@ways
@pytest.mark.parametrize(
    ("version", "connection", "stays"),
    [
        ("1.1", None, True), ("1.1", "close", False), ("1.1", "Close", False), ("1.1", "keep-alive", True),
        ("1.1", "close, keep-alive", False), ("1.1", "keep-alive, close", False), ("1.1", "foo,\tclose", False),
        ("1.1", "closed", True), ("1.0", None, False), ("1.0", "keep-alive", True), ("1.0", "Keep-Alive", True),
        ("1.0", "close, keep-alive", False), ("1.0", "keep-alive, close", False), ("1.0", "foo", False),
    ],
)  # fmt: skip
def test_the_connection_stays_when_both_sides_want_it(
    way: str, version: str, connection: str | None, stays: bool
) -> None:
    field = f"Connection: {connection}\r\n" if connection else ""
    data = f"GET /1 HTTP/{version}\r\nHost: a\r\n{field}\r\n".encode()
    result, before = feed(way, data + GET)
    assert result.seen[before:] == [("GET", "/1", b""), *([("GET", "/", b"")] if stays else [])]
    assert result.ended is not stays
    assert result.replies[before].headers["Connection"] == ("keep-alive" if stays else "close")


@ways
def test_connection_close_in_one_of_several_fields_counts(way: str) -> None:
    data = b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n"
    result, before = feed(way, data + GET)
    assert len(result.seen) == before + 1


@ways
def test_bytes_behind_a_request_that_closes_are_ignored(way: str) -> None:
    result, before = feed(way, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n\x00garbage" + GET)
    assert result.statuses == [200] * (before + 1)
    assert result.ended


@ways
@pytest.mark.parametrize("body", [b"\r\n", b"Content-Length: 0\r\n\r\n", b"Content-Length: 2\r\n\r\nhi"])
@pytest.mark.parametrize("option", [b"close", b"close, keep-alive", b"upgrade\r\nUpgrade: foo"])
def test_proxy_connection_means_nothing(way: str, option: bytes, body: bytes) -> None:
    data = b"POST /p HTTP/1.1\r\nHost: a\r\nProxy-Connection: " + option + b"\r\n" + body
    result, before = feed(way, data + GET.replace(b"Host", b"X: 1\r\nHost"))
    assert result.statuses == [200] * (before + 2)


# 10. Pipelining.


def test_pipelined_requests_are_answered_in_order_and_bounded() -> None:
    requests = b"".join(f"GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for n in range(500))
    result = talk(requests, GET)
    # The conversation ends before all turns have passed: what was answered was answered in order.
    assert [path for _, path, _ in result.seen] == [f"/{n}" for n in range(len(result.seen))]
    assert len(result.seen) >= 5


def test_a_pipeline_is_not_read_further_than_one_request_ahead() -> None:
    class Slow(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.seen.append((message.method, message.path, b""))
            await asyncio.Event().wait()

    result = talk(GET * 10, GET * 10, GET * 10, handler=Slow)
    assert len(result.seen) == 1
    assert result.transport.paused


# 11. Errors.


@ways
@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nHo st: a\r\n\r\n", b"}{\r\n\r\n"])
def test_complete_requests_before_an_error_are_answered_then_one_400(way: str, garbage: bytes) -> None:
    assert_refused(way, garbage, 400)


# 12. EOF.


@pytest.mark.parametrize(
    "cut", [b"Content-Length: 10\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]
)
@pytest.mark.parametrize("bytewise", [False, True])
def test_a_body_that_is_cut_never_looks_whole(cut: bytes, bytewise: bool) -> None:
    data = b"POST / HTTP/1.1\r\nHost: a\r\n" + cut
    result = talk(*(byte_by_byte(data) if bytewise else [data]), eof=True)
    assert result.seen == [("POST", "/", "ClientDisconnectedError")]
    assert result.output == b""
    assert result.transport.closed


def test_a_head_that_is_cut_is_not_answered() -> None:
    result = talk(b"GET / HT", eof=True)
    assert result.output == b""
    assert result.transport.closed


def test_a_half_close_behind_complete_requests_is_answered_first() -> None:
    class Later(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            await super().handle_request(message, payload)

    result = talk(GET, handler=Later, eof=True)
    assert result.statuses == [200]
    assert result.transport.closed


def test_a_half_closed_client_is_told_that_the_connection_ends() -> None:
    async def main() -> None:
        for data, connections in ((GET, ["close"]), (GET * 2, ["keep-alive", "close"])):
            protocol = Echo()
            transport = FakeTransport(protocol)
            protocol.connection_made(transport)
            protocol.data_received(data)
            assert protocol.eof_received()
            await turns()
            assert [reply.headers["Connection"] for reply in parse_replies(bytes(transport.output))] == connections
            assert transport.closed

    asyncio.run(main())


@pytest.mark.parametrize("before", [b"", GET])
def test_the_answer_to_an_invalid_body_is_sent_to_a_client_that_has_half_closed_in_the_same_turn(before: bytes) -> None:
    async def main() -> None:
        protocol = Echo()
        transport = FakeTransport(protocol)
        protocol.connection_made(transport)
        if before:
            protocol.data_received(before)
            await turns()
        protocol.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n")
        assert protocol.eof_received()
        await turns()
        assert parse_replies(bytes(transport.output))[-1].status == 400
        assert transport.closed

    asyncio.run(main())


# 14. Expect: 100-continue.

EXPECT = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n"


@ways
def test_continue_is_sent_once_when_the_body_is_read(way: str) -> None:
    portions, before = WAYS[way](EXPECT)
    result = talk(*portions, b"hello" + GET)
    assert result.output.count(b"HTTP/1.1 100 Continue\r\n\r\n") == 1
    assert result.seen[before:] == [("POST", "/", b"hello"), ("GET", "/", b"")]


def test_no_continue_when_the_body_is_there_already() -> None:
    result = talk(EXPECT + b"hello")
    assert result.statuses == [200]


def test_no_continue_towards_http_1_0_or_without_a_body() -> None:
    old = EXPECT.replace(b"HTTP/1.1", b"HTTP/1.0")
    assert talk(old, b"hello").statuses == [200]
    assert talk(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n").statuses == [200]


@ways
def test_another_expectation_fails(way: str) -> None:
    assert_refused(way, b"GET / HTTP/1.1\r\nHost: a\r\nExpect: something\r\n\r\n", 417)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [b"", b" ", b" \t "])
def test_an_empty_expectation_is_none(value: bytes, way: str) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect:" + value + b"\r\n\r\n"
    result = assert_served(way, head + b"abc", ("POST", "/", b"abc"))
    assert b"100 Continue" not in result.output


@pytest.mark.parametrize("drain", [False, True])
def test_no_continue_behind_the_beginning_of_the_final_response(drain: bool) -> None:
    class Begun(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            response = Response(self.writer, 200)
            response.send_headers()
            if drain:
                response.write(b"begun ")
                await response.drain()
            response.write(await payload.read())
            await response.write_eof()

    result = talk(EXPECT, b"hello", handler=Begun)
    assert [(reply.status, reply.body) for reply in result.replies] == [(200, b"begun hello" if drain else b"hello")]


def test_an_answer_without_reading_needs_no_continue_and_closes() -> None:
    result = talk(EXPECT, handler=Unread)
    assert result.statuses == [200]
    assert result.replies[0].headers["Connection"] == "close"
    assert result.ended


# 15. Unread body.


@ways
@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"Content-Length: 27\r\n\r\n" + GET, True),
        (b"Transfer-Encoding: chunked\r\n\r\n1b\r\n" + GET + b"\r\n0\r\n\r\n", False),
    ],
)
def test_an_unread_body_is_never_the_next_request(way: str, body: bytes, kept: bool) -> None:
    assert len(GET) == 27
    data = b"POST /p HTTP/1.1\r\nHost: a\r\n" + body
    portions, before = WAYS[way](data + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
    result = talk(*portions, handler=Unread)
    # Where the end of a body is not known and has not come, the first response says close.
    kept = kept or "byte by byte" not in way
    assert [path for _, path, _ in result.seen[before:]] == (["/p", "/next"] if kept else ["/p"])


def test_a_large_unread_body_closes_instead() -> None:
    result = talk(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n", handler=Unread)
    assert result.statuses == [200]
    assert result.replies[0].headers["Connection"] == "close"
    assert result.ended
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    endless = talk(chunked, *[b"1000\r\n" + b"x" * 4096 + b"\r\n"] * 30, handler=Unread)
    assert endless.ended


def test_a_long_body_that_has_come_almost_whole_keeps_the_connection() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
    result = talk(head + b"x" * 50000, b"x" * 50000 + GET, handler=Unread)
    assert [reply.headers["Connection"] for reply in result.replies] == ["keep-alive", "keep-alive"]


# 16. Lingering close.


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET,
    ],
)
def test_an_early_or_error_response_is_followed_by_a_half_close(data: bytes) -> None:
    result = talk(data, b"more" * 1000, handler=Unread, limit_body=1000)
    assert result.transport.half_closed
    assert not result.transport.aborted
    assert len(result.replies) == 1


def test_what_is_discarded_in_a_lingering_close_is_bounded() -> None:
    result = talk(b"GET / HTTP/9.9\r\n\r\n", *[b"x" * (1 << 20)] * 17)
    assert result.transport.aborted


def test_tls_has_no_half_close_and_keeps_reading_instead() -> None:
    result = talk(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n", b"x" * 10, handler=Unread, tls=True)
    assert result.statuses == [200]
    assert not result.transport.half_closed


UPLOAD = b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
OTHER = b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    "between",
    [
        [GET],
        [GET[:7], GET[7:]],
        [GET[:-1], GET[-1:]],
        [b"\r\n", GET],
        [b"\r\n" + GET],
        [UPLOAD],
        [UPLOAD[:-1], UPLOAD[-1:]],
        [OTHER],
        [OTHER, OTHER, OTHER],
        [GET + GET],
        [GET + GET[:9], GET[9:]],
        [GET[:3], GET[3:] + GET + UPLOAD + GET],
    ],
    ids=lambda portions: "|".join(part.decode()[:4].strip() or "-" for part in portions),
)
def test_a_head_that_comes_again_is_served_like_the_first_whatever_comes_between(between: list[bytes]) -> None:
    result = talk(*[GET] * 4, *between, *[GET] * 3)
    seen = [(method, path) for method, path, _ in result.seen]
    asked = [line.split(b" ") for line in b"".join([GET * 4, *between, GET * 3]).split(b"\r\n") if b" HTTP/" in line]
    assert seen == [(words[0].decode().removeprefix("abc"), words[1].decode()) for words in asked]
    assert result.statuses == [200] * len(seen)
    assert len({id(message) for message in result.protocol.messages}) == len(seen), "each has a message of its own"


def test_what_begins_like_the_last_head_is_not_taken_for_it() -> None:
    longer = GET[:-2] + b"X-More: 1\r\n\r\n"
    result = talk(*[GET] * 4, GET[:-2], b"X-More: 1\r\n\r\n", longer, GET)
    assert [("X-More" in message.headers) for message in result.protocol.messages] == [False] * 4 + [True, True, False]
    result = talk(*[GET] * 4, GET[:10], GET)  # a head that has begun goes on with whatever comes
    assert result.statuses == [200] * 4 + [400]
