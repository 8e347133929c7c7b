"""The header of the PROXY protocol, whole and byte by byte: nothing behind it is taken, nothing else is one."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from preforkd.workers.proxy_protocol import ProxyError, ProxyHeader, ProxyParser

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
IPV4 = socket.inet_aton("203.0.113.9") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 4711, 443)
IPV6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") + bytes(15) + b"\1" + struct.pack("!HH", 1, 65535)
TCP4 = ProxyHeader(("203.0.113.9", 4711), ("10.0.0.1", 443))
NAMED = ProxyHeader(TCP4.client, TCP4.server, "shop.example", b"id-1")


def v2(rest: bytes, command: int = 0x21, family: int = 0x11, size: int | None = None) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(rest) if size is None else size) + rest


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + struct.pack("!H", len(value)) + value


def dribble(data: bytes) -> ProxyParser:
    parser = ProxyParser("auto")
    for number in range(len(data)):
        parser.feed(data[number : number + 1])
    return parser


def header_of(data: bytes, form: str = "auto") -> ProxyHeader | None:
    """What it says; all of it is taken, whole and byte by byte, and nothing behind it."""
    whole = ProxyParser(form)
    size = whole.feed(data + b"GET / HTTP/1.1\r\n")
    if whole.header is None:
        return None
    assert size == len(data)
    dribbled = ProxyParser(form)
    for number in range(len(data)):
        assert dribbled.header is None
        assert dribbled.feed(data[number : number + 1]) == 1
    assert dribbled.header == whole.header
    return whole.header


@pytest.mark.parametrize(
    ("line", "header"),
    [
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n", TCP4),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n",
         ProxyHeader(("255.255.255.255", 65535), ("255.255.255.255", 0))),
        (b"PROXY TCP6 2001:DB8::1 ::1 1 65535\r\n", ProxyHeader(("2001:db8::1", 1), ("::1", 65535))),
        (b"PROXY UNKNOWN\r\n", ProxyHeader()),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", ProxyHeader()),
        (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", ProxyHeader()),
    ],
)  # fmt: skip
def test_lines_of_version_1(line: bytes, header: ProxyHeader) -> None:
    assert header_of(line) == header_of(line, "v1") == header
    with pytest.raises(ProxyError, match="begins with"):
        header_of(line, "v2")


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (v2(IPV4), TCP4),
        (v2(IPV6, family=0x21), ProxyHeader(("2001:db8::1", 1), ("::1", 65535))),
        (v2(b"", command=0x20, family=0), ProxyHeader()),
        (v2(IPV4 + b"anything", command=0x20), ProxyHeader()),
        (v2(b"", family=0), ProxyHeader()),
        (v2(b"ignored", family=0), ProxyHeader()),
        (v2(bytes(216), family=0x31), ProxyHeader()),
        (v2(IPV4, family=0x12), ProxyHeader()),
        (v2(IPV4 + tlv(0x02, b"shop.example") + tlv(0x04, b"noop") + tlv(0x05, b"id-1") + tlv(0xEA, b"\xff")), NAMED),
        (v2(IPV4 + tlv(0x02, b"\xff") + tlv(0x05, b"")), TCP4),
        (v2(IPV4 + tlv(0x02, b"a\nb")), TCP4),
        (v2(IPV4 + tlv(0x20, b"\x01" * 9000)), TCP4),
    ],
)  # fmt: skip
def test_headers_of_version_2(data: bytes, header: ProxyHeader) -> None:
    assert header_of(data) == header_of(data, "v2") == header
    with pytest.raises(ProxyError, match="begins with"):
        header_of(data, "v1")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"PROXX", b"proxy TCP4", b"\r\n\r\n\0\r\nQUIX", b"\r\nGET", b"\0",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n", b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443 \r\n",
        b"PROXY TCP4  203.0.113.9 10.0.0.1 4711 443\r\n", b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 70000\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n", b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n", b"PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n",
        b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY \r\n", b"PROXY UNKNOWNX\r\n", b"PROXY UNKNOWN\n", b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        b"PROXY " + b"x" * 101,
        v2(IPV4, command=0x11), v2(IPV4, command=0x22), v2(IPV4, family=0x13), v2(IPV4, family=0x41), v2(IPV4[:-1]),
        v2(b"", family=0x11), v2(IPV4 + b"\1"), v2(IPV4 + b"\1\0"), v2(IPV4 + b"\1\0\5abcd"),
        v2(IPV4 + tlv(5, bytes(129))),
        v2(bytes(215), family=0x31),
    ],
)  # fmt: skip
def test_everything_else_is_none(data: bytes) -> None:
    with pytest.raises(ProxyError):
        header_of(data)
    with pytest.raises(ProxyError):
        dribble(data)


GOOD = st.sampled_from(
    [b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n", b"PROXY UNKNOWN\r\n", v2(IPV4), v2(IPV6, family=0x21)]
)


@given(
    st.binary(max_size=40) | GOOD, st.binary(max_size=40), st.integers(0, 60), st.lists(st.integers(1, 20), max_size=30)
)
@example(v2(IPV4), tlv(5, b"a"), 60, [])
def test_no_bytes_confuse_it_however_they_are_divided(good: bytes, noise: bytes, place: int, sizes: list[int]) -> None:
    data = good[:place] + noise + good[place:]

    def run(parts: list[bytes]) -> tuple[ProxyHeader | None, int, bool]:
        parser, taken = ProxyParser("auto"), 0
        for part in parts:
            try:
                taken += parser.feed(part)
            except ProxyError:
                return None, 0, True
            if parser.header is not None:
                break
        return parser.header, taken, False

    pieces, rest = [], data
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert run([data]) == run([piece for piece in [*pieces, rest] if piece])
