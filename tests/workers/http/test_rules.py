"""The pure rules over bytes."""

from __future__ import annotations

import pytest

from preforkd.workers import HttpVersion10, HttpVersion11
from preforkd.workers.http import rules
from preforkd.workers.http.errors import BadRequestError


def test_hosts() -> None:
    for good in (b"a", b"A.B", b"1.2.3.4:0", b"a:65535", b"[::]", b"[v1.x]:1", b"a%20b", b"a_b", b"a!$&'()*+,;=b"):
        assert rules.is_valid_host(good), good
    for bad in (
        b"",
        b"[]",
        b"[v.x]",
        b"a:65536",
        b"a:123456",
        b"a:-1",
        b"a\n",
        b"a%2",
        b"[::1]a",
        b"\xc3\xa4",
        b"[1.2.3.4]",
    ):
        assert not rules.is_valid_host(bad), bad


def test_targets() -> None:
    assert rules.authority_of(b"/a", "GET") is None
    assert rules.authority_of(b"*", "OPTIONS") is None
    assert rules.authority_of(b"https://a:1/x?y", "GET") == b"a:1"
    for bad in (b"/a b", b"/\x7f", b"x", b"*", b"http://", b"http://@a", b"//#", b"a:1"):
        with pytest.raises(BadRequestError):
            rules.authority_of(bad, "GET")


def test_lengths() -> None:
    assert rules.content_length([b"0" * 18 + b"7"]) == 7
    for bad in ([b"1", b"1"], [b""], [b"+1"], [b"1 "], [b"9" * 20], [b"\xb2"], [b"1_0"]):
        with pytest.raises(BadRequestError):
            rules.content_length(bad)


def test_codings() -> None:
    rules.check_transfer_encoding([b" Chunked\t"], HttpVersion11, has_length=False)
    for values, version, has_length, code in (
        ([b"chunked"], HttpVersion10, False, 400),
        ([b"chunked"], HttpVersion11, True, 400),
        ([b"gzip", b"chunked"], HttpVersion11, False, 501),
        ([b"chunked", b"gzip"], HttpVersion11, False, 400),
        ([b"chunked", b""], HttpVersion11, False, 400),
    ):
        with pytest.raises(BadRequestError) as caught:
            rules.check_transfer_encoding(values, version, has_length)
        assert caught.value.code == code


def test_request_lines() -> None:
    assert rules.check_request_line(b"GET / HTTP/1.0") == ("GET", HttpVersion10)
    assert rules.check_request_line(b"M-SEARCH * HTTP/1.1") == ("M-SEARCH", HttpVersion11)
    for line, code in (
        (b"GET  / HTTP/1.1", 400), (b"GET / HTTP/1.1 ", 400), (b"GET /", 400), (b"GET / HTTP/2.1", 505),
        (b"GET / HTTP/1.2", 505), (b"GET /  HTTP/1.1", 400), (b"GET / HTTP/11", 400), (b"GET", 400), (b"", 400),
        (b"get / HTTP/1.1", 501), (b"PLAY / HTTP/1.1", 501), (b"PLAY / RTSP/1.0", 400), (b"PRI * HTTP/2.0", 505),
        (b"CONNECT a:1 HTTP/1.1", 501), (b"CONNECT / HTTP/1.0", 501),
    ):  # fmt: skip
        with pytest.raises(BadRequestError) as caught:
            rules.check_request_line(line)
        assert caught.value.code == code, line


def test_methods_are_judged_when_there_is_enough_of_them() -> None:
    for some in (b"", b"F", b"FOO", b"F" * 65536, b"GET ", b"PLAY /"):
        assert rules.fault_of_method(some) is None
    for head, code in ((b"FOO ", 501), (b"FOO\r", 400), (b"F(", 400), (b" ", 400), (b"F" * 65537, 400)):
        fault = rules.fault_of_method(head)
        assert fault is not None
        assert fault.code == code


HANDSHAKE = {
    b"connection": [b"Upgrade"],
    b"upgrade": [b"websocket"],
    b"sec-websocket-version": [b"13"],
    b"sec-websocket-key": [b"dGhlIHNhbXBsZSBub25jZQ=="],
}


@pytest.mark.parametrize(
    ("changed", "valid"),
    [
        ({}, True),
        ({b"connection": [b"keep-alive, UPGRADE"], b"upgrade": [b"h2c , WebSocket"]}, True),
        ({b"connection": [b"keep-alive", b"upgrade"], b"upgrade": [b"x", b"websocket"]}, True),
        ({b"connection": [b"keep-alive"]}, False),
        ({b"connection": [b"upgraded"]}, False),
        ({b"connection": [b"keep-alive upgrade"]}, False),
        ({b"upgrade": [b"websocket2"]}, False),
        ({b"upgrade": [b"x-websocket"]}, False),
        ({b"upgrade": [b"websocket/13"]}, False),
        ({b"upgrade": []}, False),
        ({b"sec-websocket-version": [b"8"]}, False),
        ({b"sec-websocket-version": [b"13", b"13"]}, False),
        ({b"sec-websocket-key": [b"short"]}, False),
        ({b"sec-websocket-key": [b"x" * 24] * 2}, False),
        ({b"content-length": [b"0"]}, False),
        ({b"transfer-encoding": [b"chunked"]}, False),
    ],
)
def test_a_websocket_handshake_is_known_by_whole_tokens(changed: dict[bytes, list[bytes]], valid: bool) -> None:
    fields = {**HANDSHAKE, **changed}
    assert rules.is_websocket_handshake("GET", HttpVersion11, fields) == valid
    assert not rules.is_websocket_handshake("POST", HttpVersion11, fields)
    assert not rules.is_websocket_handshake("GET", HttpVersion10, fields)


def test_tokens_are_lower_case_without_white_space() -> None:
    assert rules.tokens(b"A,\tb ,, C d") == [b"a", b"b", b"", b"c d"]
