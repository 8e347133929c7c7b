"""A head becomes a request: beside llhttp as another opinion, which is never the stricter one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from hypothesis import example, given
from hypothesis import strategies as st

from preforkd.workers import RequestMessage
from preforkd.workers.http.errors import BadRequestError
from preforkd.workers.http.limits import DEFAULT_LIMITS, Limits
from preforkd.workers.http.names import LOWER, MEANT, METHODS, PLAIN
from preforkd.workers.http.parsing import parse_head

Described = tuple[object, ...]


def describe(message: RequestMessage) -> Described:
    return (
        message.method, message.path, tuple(message.version), message.fields, message.raw_headers, message.should_close,
        message.chunked, message.content_length, message.compression, message.has_upgrade, message.upgrade,
        message.expect_continue,
    )  # fmt: skip


def parsed(head: bytes, limits: Limits = DEFAULT_LIMITS) -> Described | int:
    """Return what a head says, or the status that it is refused with."""
    try:
        return describe(parse_head(head, limits))
    except BadRequestError as exc:
        return exc.code


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
        target = b"a:1" if method == b"CONNECT" else b"/"
        found = taken_by_llhttp(method + b" " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        assert found == (method.decode(), target, [(b"Host", b"a")])


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


# What heads are made of, right and wrong.
LINES = [
    b"GET / HTTP/1.1", b"POST /a?b=c%20 HTTP/1.1", b"HEAD http://b:8/x HTTP/1.1", b"OPTIONS * HTTP/1.0",
    b"GET /a#b HTTP/1.1",
    b"get / HTTP/1.1", b"GET / HTTP/1.2", b"GET  / HTTP/1.1", b"GET / HTTP/1.1 ", b"GET /\x7f HTTP/1.1",
    b"CONNECT a:1 HTTP/1.1",
    b"M-SEARCH /~{}| HTTP/1.1", b"GET", b"", b"GET /a b HTTP/1.1", b'PUT /"<> HTTP/1.1', b"DELETE //x HTTP/1.1",
]  # fmt: skip
FIELDS = [
    b"Host: a", b"Host: a.example:8080", b"host: [::1]", b"HOST:", b"Host: a b", b"Host: a:70000", b"Host:a:59999",
    b"Content-Length: 5", b"content-length: 0", b"Content-Length: +5", b"Content-Length: 5, 5", b"Content-Length:",
    b"Content-Length: 0005", b"Content-Length: 99999999999999999999", b"Content-Length: 999999999999999999",
    b"Content-Length: 9999999999999999999", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked",
    b"transfer-encoding: Chunked ", b"Connection: close", b"Connection: keep-alive", b"Connection: upgrade, x",
    b"Connection:", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Expect: 100-continue", b"Expect: x", b"Content-Encoding: gzip", b"Accept: */*", b"accept-encoding:\tgzip \t",
    b"User-Agent: x (y; z) \xe9", b"X-Request-Id: 7f1c", b"X-Odd: a\x00", b"X Y: a", b" folded", b"A", b": b",
    b"Cookie: a=b; c",
    b"Proxy-Connection: close", b"x-" + b"y" * 70 + b": z", b"X-A: b\rc", b"X-A: b\nc", b"Accept", b"\xe9: a",
]  # fmt: skip
heads = st.builds(
    lambda line, fields: b"\r\n".join([line, *fields, b"", b""]),
    st.sampled_from(LINES),
    st.lists(st.sampled_from(FIELDS), max_size=7),
)


@given(heads, st.integers(0, 400), st.binary(max_size=2), st.booleans())
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, b"", False)
def test_what_we_take_is_taken_by_llhttp_and_says_the_same(
    head: bytes, place: int, bytes_: bytes, mutates: bool
) -> None:
    if mutates:
        place %= len(head)
        head = head[:place] + bytes_ + head[place + 1 :]
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
