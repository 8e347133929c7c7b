"""Heads, right and wrong, for the tests of the parser's forms; what is said of them."""

from __future__ import annotations

from hypothesis import strategies as st

from preforkd.workers import RequestMessage
from preforkd.workers.http.errors import BadRequestError
from preforkd.workers.http.limits import DEFAULT_LIMITS, Limits
from preforkd.workers.http.parsing import parse_head

Described = tuple[object, ...]


def describe(message: RequestMessage) -> Described:
    return (
        message.method, message.path, tuple(message.version), message.fields, message.raw_headers, message.should_close,
        message.chunked, message.content_length, message.compression, message.has_upgrade, message.upgrade,
        message.expect_continue, message.head_size, message.request_id, message.id_line, message.forwarded,
        message.noted,
    )  # fmt: skip


def parsed(head: bytes, limits: Limits = DEFAULT_LIMITS) -> Described | int:
    """Return what a head says, or the status that it is refused with."""
    try:
        return describe(parse_head(head, limits))
    except BadRequestError as exc:
        return exc.code


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
    b"X-Forwarded-For: a", b"x_forwarded_for: a", b"X-Forwarded-Whatever: a", b"Forwarded: for=a", b"x_real_ip: a",
    b"X-Forwarde: a", b"X-Correlation-ID: a", b"x_request_id: b",
]  # fmt: skip
heads = st.builds(
    lambda line, fields: b"\r\n".join([line, *fields, b"", b""]),
    st.sampled_from(LINES),
    st.lists(st.sampled_from(FIELDS), max_size=7),
)
mutations = st.tuples(st.integers(0, 400), st.binary(max_size=2), st.booleans())
