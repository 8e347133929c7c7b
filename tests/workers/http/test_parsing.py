"""A head becomes a request: beside llhttp as another opinion, which is never the stricter one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from hypothesis import example, given

from preforkd.workers.http.limits import DEFAULT_LIMITS
from preforkd.workers.http.names import LOWER, MEANT, METHODS, PLAIN
from preforkd.workers.http.parsing import parse_head
from tests.workers.http.heads import heads, mutations, parsed


def taken_by_llhttp(head: bytes) -> tuple[str, bytes, list[tuple[bytes, bytes]]] | None:
    target: list[bytes] = []
    fields: list[tuple[bytes, bytes]] = []
    parser = HttpRequestParser(SimpleNamespace(on_url=target.append, on_header=lambda *field: fields.append(field)))
    try:
        parser.feed_data(head)
    except HttpParserUpgrade:
        pass
    except HttpParserError:
        return None
    return parser.get_method().decode(), b"".join(target), fields


def test_a_request_says_what_its_head_says() -> None:
    head = (
        b"POST /p%20q?x=1 HTTP/1.1\r\nHost: example.com:80\r\nX-Odd_Name: \t a b \t\r\ncontent-length:5\r\n"
        b"ACCEPT:\r\nConnection: Keep-Alive\r\nContent-Encoding: GZIP\r\nExpect: 100-Continue\r\n"
        b"Cookie: a=\xff\r\nCookie: b\r\n\r\n"
    )
    message = parse_head(head, DEFAULT_LIMITS)
    assert (message.method, message.path, message.version) == ("POST", "/p%20q?x=1", (1, 1))
    assert message.fields == [
        (b"host", b"example.com:80"), (b"x-odd_name", b"a b"), (b"content-length", b"5"), (b"accept", b""),
        (b"connection", b"Keep-Alive"), (b"content-encoding", b"GZIP"), (b"expect", b"100-Continue"),
        (b"cookie", b"a=\xff"), (b"cookie", b"b"),
    ]  # fmt: skip
    assert [name for name, _ in message.raw_headers][1:4] == [b"X-Odd_Name", b"content-length", b"ACCEPT"]
    assert (message.content_length, message.chunked, message.should_close) == (5, False, False)
    assert (message.compression, message.expect_continue, message.upgrade) == ("gzip", True, False)


@pytest.mark.parametrize(
    ("version", "value", "closes"),
    [
        (b"1.1", None, False), (b"1.1", b"keep-alive", False), (b"1.1", b"close", True), (b"1.1", b"Close", True),
        (b"1.1", b"CLOSE", True), (b"1.1", b"x, close", True), (b"1.1", b"keep-alive, close", True),
        (b"1.1", b"closed", False),
        (b"1.1", b"", False), (b"1.0", None, True), (b"1.0", b"keep-alive", False),
        (b"1.0", b"close, keep-alive", True),
        (b"1.0", b"x", True), (b"1.1", b"keep-alive\r\nConnection: close", True),
    ],
)  # fmt: skip
def test_connection_says_whether_it_ends(version: bytes, value: bytes | None, closes: bool) -> None:
    field = b"" if value is None else b"Connection: %b\r\n" % value
    message = parse_head(b"GET / HTTP/%b\r\nHost: a\r\n%b\r\n" % (version, field), DEFAULT_LIMITS)
    assert message.should_close == closes


def test_the_names_that_are_known_are_names_in_lower_case() -> None:
    assert not MEANT & set(PLAIN)
    assert len(set(PLAIN)) == len(PLAIN)
    assert all(name == name.lower() for name in (*MEANT, *PLAIN))
    assert all(spelling.lower() == name for spelling, name in LOWER.items())
    for name in PLAIN:
        assert taken_by_llhttp(b"GET / HTTP/1.1\r\n%b: 1\r\n\r\n" % name) is not None, name


def test_llhttp_knows_all_methods_that_we_serve() -> None:
    for method in METHODS:
        found = taken_by_llhttp(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert found == (method.decode(), b"/", [(b"Host", b"a")])


@pytest.mark.parametrize(
    "name", [b"", b" a", b"a ", b"a b", b"a\tb", b"a(b", b"\xe9", b"a\x00", b"Host\x0b", b"a/b", b"[a]"]
)
def test_what_is_no_field_name_is_refused(name: bytes) -> None:
    assert parsed(b"GET / HTTP/1.1\r\nHost: a\r\n" + name + b": x\r\n\r\n") == 400


@pytest.mark.parametrize("byte", [*range(9), *range(10, 32), 127])
@pytest.mark.parametrize(
    "place", [b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nAccept: b%bc\r\n\r\n"]
)
def test_a_control_character_is_refused_wherever_it_stands(place: bytes, byte: int) -> None:
    assert parsed(place % bytes([byte])) == 400


def test_bytes_beyond_ascii_are_for_values_alone() -> None:
    assert parsed(b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n") == 400
    assert parsed(b"GET / HTTP/1.1\r\nHost: \xe9\r\n\r\n") == 400
    assert isinstance(parsed(b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe9\x80\xff\r\n\r\n"), tuple)


@given(heads, mutations)
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", (0, b"", False))
def test_what_we_take_is_taken_by_llhttp_and_says_the_same(head: bytes, mutation: tuple[int, bytes, bool]) -> None:
    place, other, mutates = mutation
    if mutates:
        place %= len(head)
        head = head[:place] + other + head[place + 1 :]
        head = head[: head.find(b"\r\n\r\n") + 4]
    if head[-4:] != b"\r\n\r\n":
        return
    ours = parsed(head)
    if isinstance(ours, int):
        return
    theirs = taken_by_llhttp(head)
    assert theirs is not None, head
    method, target, fields = theirs
    assert ours[0] == method
    assert str(ours[1]).encode() == target
    sent = [(name, value.strip(b" \t")) for name, value in fields]
    if target[:1] in b"/*":  # else Host was replaced
        assert ours[4] == tuple(sent)
        assert ours[3] == [(name.lower(), value) for name, value in sent]
