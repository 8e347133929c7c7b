"""What a request must be, on top of the parser: each fed whole, byte by byte and behind another request."""

from __future__ import annotations

import pytest

from tests.workers.http.wire import GET, WAYS, assert_refused, assert_served, feed, talk

ways = pytest.mark.parametrize("way", WAYS)


# 1. Upgrade and CONNECT: the parser skips the body.


@ways
@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "foo", "TLS/1.0"])
def test_a_body_behind_an_upgrade_is_not_the_next_request(way: str, upgrade: str) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    head = f"POST /u HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n"
    data = f"{head}Content-Length: {len(smuggled)}\r\n\r\n".encode() + smuggled
    assert_served(way, data + GET, ("POST", "/u", smuggled), ("GET", "/", b""))


@ways
def test_a_chunked_body_behind_an_upgrade_is_not_the_next_request(way: str) -> None:
    data = (
        b"POST /u HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1c\r\nGET /s HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n"
    )
    assert_served(way, data + GET, ("POST", "/u", b"GET /s HTTP/1.1\r\nHost: a\r\n\r\n"), ("GET", "/", b""))


@ways
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_upgrade_without_body_is_ignored_and_the_next_request_served(way: str, version: str) -> None:
    head = f"GET /u HTTP/{version}\r\nHost: a\r\nConnection: keep-alive, upgrade\r\nUpgrade: foo\r\n\r\n"
    assert_served(way, head.encode() + GET, ("GET", "/u", b""), ("GET", "/", b""))


@ways
def test_a_websocket_handshake_that_nobody_takes_over_stays_in_http(way: str) -> None:
    data = (
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    result = assert_served(way, data + GET, ("GET", "/ws", b""), ("GET", "/", b""))
    assert result.protocol.messages[-2].upgrade


@pytest.mark.parametrize(
    "change",
    [
        (b"GET", b"POST"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"Upgrade: websocket", b"Upgrade: foo"),
        (b"Version: 13", b"Version: 12"),
        (b"nonce==", b"short"),
        (b"Host: a\r\n", b"Host: a\r\nContent-Length: 1\r\n"),
        (b"Host: a\r\n", b"Host: a\r\nTransfer-Encoding: chunked\r\n"),
    ],
)
def test_only_a_valid_websocket_handshake_is_an_upgrade(change: tuple[bytes, bytes]) -> None:
    data = (
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"AAAAAAAAAAAAAAAAAnonce==")
    assert talk(data).protocol.messages[0].upgrade
    assert not talk(data.replace(*change)).protocol.messages[0].upgrade


@ways
def test_connect_is_not_implemented_and_nothing_behind_it_is_parsed(way: str) -> None:
    assert_refused(way, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501)


# 2. Host.


@ways
@pytest.mark.parametrize(
    "host",
    [
        "a b", "a/b", "a@b", "a:b", "a:99999", "a?b", "a#b", '"a"', "<a>", "a\\b", "[::1", "::1", "[::g]",
        "[::1%25eth0]", "a%zz", "http://a", "a,b c", ":80", "a:80:80", "a\x80",
    ],
)  # fmt: skip
def test_an_invalid_host_is_refused(way: str, host: str) -> None:
    data = b"GET /x HTTP/1.1\r\nHost: " + host.encode("latin-1") + b"\r\n\r\n"
    assert_refused(way, data, 400)
    assert_refused(way, data.replace(b"HTTP/1.1", b"HTTP/1.0"), 400)


@ways
def test_http_1_1_needs_exactly_one_host(way: str) -> None:
    assert_refused(way, b"GET / HTTP/1.1\r\nX: y\r\n\r\n", 400)
    assert_refused(way, b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400)
    assert_refused(way, b"GET / HTTP/1.0\r\nHost: a\r\nHOST: b\r\n\r\n", 400)


@ways
@pytest.mark.parametrize(
    "host", ["", "a", "a.b-c_d:80", "127.0.0.1:8080", "[::1]", "[::1]:443", "a:", "xn--bcher-kva.example"]
)
def test_a_valid_host_is_served(way: str, host: str) -> None:
    assert_served(way, f"GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), ("GET", "/x", b""))


def test_http_1_0_needs_no_host() -> None:
    assert talk(b"GET / HTTP/1.0\r\n\r\n").statuses == [200]


@ways
def test_the_authority_of_an_absolute_target_replaces_host(way: str) -> None:
    data = b"GET http://good.example:81/p?q HTTP/1.1\r\nX: 1\r\nHost: bad.example\r\n\r\n"
    result = assert_served(way, data, ("GET", "http://good.example:81/p?q", b""))
    message = result.protocol.messages[-1]
    assert message.headers.getall("Host") == ["good.example:81"]
    assert [value for name, value in message.raw_headers if name.lower() == b"host"] == [b"good.example:81"]


# 3. Version.


@ways
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /", 400),
        ("GET / ", 400),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/3.0", 505),
        ("GET / HTTP/0.9", 505),
        ("GET / HTTP/1.2", 505),
        ("GET / RTSP/1.0", 400),
        ("GET / ICE/1.0", 400),
        ("SOURCE / ICE/1.0", 400),
        ("DESCRIBE / RTSP/1.0", 400),
        ("GET / HTTP/1", 400),
        ("GET / HTTP/1.", 400),
        ("GET / HTTP/1.11", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET /  HTTP/1.1", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET\t/ HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("PRI * HTTP/2.0", 505),
    ],
)
def test_only_http_1_0_and_1_1_are_served(way: str, line: str, status: int) -> None:
    assert_refused(way, f"{line}\r\nHost: a\r\n\r\n".encode(), status)


# 4. Target.


@ways
@pytest.mark.parametrize(
    "target",
    [
        "/a#b", "*", "http://u:p@a/", "http:///", "http://", "a:80", "a", "//a\x7f", "/\xe9", "http://a b/", "ftp://a/",
        "http:a", "/a#", "http://a#b", "http://a:99999/", "/\x01",
    ],
)  # fmt: skip
def test_an_invalid_target_is_refused(way: str, target: str) -> None:
    assert_refused(way, f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode("latin-1"), 400)


@ways
@pytest.mark.parametrize(
    "target", ["/", "//a", "/%00?a=/../&b", '/a|b^c`{}"<>', "http://a", "http://a?q", "HTTP://a/b", "/?"]
)
def test_a_valid_target_reaches_the_handler_as_sent(way: str, target: str) -> None:
    assert_served(way, f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), ("GET", target, b""))


@ways
def test_the_asterisk_is_for_options(way: str) -> None:
    assert_served(way, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", ("OPTIONS", "*", b""))


# 5. Values and lengths.


@ways
@pytest.mark.parametrize(
    "length",
    ["+5", "5_0", "-5", "0x5", "5 5", "5,5", "5, 5", "", "5.0", "\xb2", "5\x0b", "5;", "99999999999999999999", "\x0c5"],
)
def test_a_length_is_digits_only(way: str, length: str) -> None:
    data = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nhello".encode("latin-1")
    assert_refused(way, data, 400)


@ways
def test_leading_zeros_and_white_space_around_a_length_are_accepted(way: str) -> None:
    zeros = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"0" * 5000 + b"5\r\n\r\nhello"
    assert_served(way, zeros + GET, ("POST", "/", b"hello"), ("GET", "/", b""))
    assert_served(way, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \t005 \t\r\n\r\nhello", ("POST", "/", b"hello"))


@ways
def test_lengths_given_twice_are_refused(way: str) -> None:
    data = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"
    assert_refused(way, data, 400)


def test_values_are_stripped_of_space_and_tab_only() -> None:
    result = talk(b"GET / HTTP/1.1\r\nHost: \t a \t\r\nX: \t\xc2\xa0v\xc2\xa0 \r\n\r\n")
    message = result.protocol.messages[0]
    assert message.headers["X"] == "\xa0v\xa0"
    assert message.headers["Host"] == "a"
    assert (b"x", b"\xc2\xa0v\xc2\xa0") in message.fields


# 6. Trailers.


@ways
def test_trailers_never_reach_the_headers(way: str) -> None:
    data = (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\nHost: b\r\nAuthorization: x\r\nConnection: close\r\nX-Forwarded-For: y\r\n\r\n"
    )
    result = assert_served(way, data + GET, ("POST", "/", b"hello"), ("GET", "/", b""))
    for message in result.protocol.messages:
        assert set(message.headers) <= {"Host", "Transfer-Encoding"}
        assert message.headers["Host"] == "a"


def test_trailers_count_against_the_limits() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
    assert talk(head + b"A: b\r\n" * 101 + b"\r\n").statuses == [431]
    big = talk(head + b"A: ", *[b"x" * 65536] * 20)
    assert big.statuses[0] in (400, 431)
    assert big.seen == [("POST", "/", "BadRequestError")]


def test_trailers_behind_a_large_body_are_limited_as_a_head_is() -> None:
    body = b"20000\r\n" + b"x" * 0x20000 + b"\r\n0\r\nA: " + b"b" * 1000 + b"\r\n\r\n"
    data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    assert talk(data).statuses == [200]
    assert talk(data, limit_header_size=1000).statuses == [431]


# 7. Transfer-Encoding.


@ways
@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("gzip", 501), ("gzip, chunked", 501), ("identity", 501), ("xchunked", 501), ("chunked, gzip", 400),
        ("chunked, chunked", 400), (", chunked", 400), ('"chunked"', 400), ("chunked\x0b", 400), ("", 400),
        ("chunked;a=b", 501),
    ],
)  # fmt: skip
def test_the_only_transfer_coding_is_chunked(way: str, value: str, status: int) -> None:
    data = f"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {value}\r\n\r\n0\r\n\r\n".encode()
    assert_refused(way, data, status)


@ways
def test_transfer_encoding_given_twice_is_refused(way: str) -> None:
    data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert_refused(way, data, 400)


@ways
@pytest.mark.parametrize("swap", [False, True])
def test_transfer_encoding_with_a_length_is_refused(way: str, swap: bool) -> None:
    fields = [b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n"]
    if swap:
        fields.reverse()
    assert_refused(way, b"POST / HTTP/1.1\r\nHost: a\r\n" + b"".join(fields) + b"\r\n0\r\n\r\n", 400)


@ways
def test_transfer_encoding_in_http_1_0_is_refused(way: str) -> None:
    assert_refused(way, b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400)


@ways
def test_chunked_in_any_case_is_served(way: str) -> None:
    data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \tCHunked \r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    assert_served(way, data + GET, ("POST", "/", b"hello"), ("GET", "/", b""))


# 13. Methods.


@ways
@pytest.mark.parametrize("method", ["FOO", "get", "Get", "G", "BREW", "DESCRIBE", "X-Y~!", "GETT"])
def test_an_unknown_method_is_not_implemented(way: str, method: str) -> None:
    assert_refused(way, f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 501)


@ways
@pytest.mark.parametrize("method", ["G[T", "GE(T", "\xe9", "GET,", "@", "GE:T"])
def test_an_invalid_method_is_refused(way: str, method: str) -> None:
    assert_refused(way, f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode("latin-1"), 400)


@ways
@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH", "M-SEARCH", "PROPFIND", "QUERY"])
def test_methods_are_passed_on_as_sent(way: str, method: str) -> None:
    assert_served(way, f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode(), (method, "/", b""))


@ways
def test_an_unknown_method_of_any_length_is_answered_alike(way: str) -> None:
    assert_refused(way, b"X" * 1000 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", 501)
    assert_refused(way, b"X" * 9000 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", 414)


# Contested points, decided.


@ways
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA\r\n\r\n",
    ],
)
def test_contested_heads_are_refused(way: str, data: bytes) -> None:
    assert_refused(way, data, 400)


@ways
@pytest.mark.parametrize(
    "body",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"ffffffffffffffffff\r\nhello",
        b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        b"5\r\nhello\r\n0\r\nA : b\r\n\r\n",
        b"-1\r\n\r\n",
    ],
)
def test_contested_chunks_are_refused(way: str, body: bytes) -> None:
    data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    result, before = feed(way, data + GET)
    assert result.statuses == [200] * before + [400]
    assert result.seen[before:] in ([], [("POST", "/", "BadRequestError")])
    assert result.ended
