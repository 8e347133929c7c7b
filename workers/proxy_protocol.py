"""The PROXY protocol, versions 1 and 2: what a proxy says of a connection before its first byte.

The rules are those of `doc/proxy-protocol.txt` of HAProxy. A header that may be there or not would be anybody's word,
so with `--proxy-protocol` each connection begins with one, and is else closed without an answer (section 2).

No socket, clock or loop: bytes in, a header out. Not one byte behind the header is taken: what follows may be TLS.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

Address = tuple[str, int]

FORMS: Final = ("off", "v1", "v2", "auto")
_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V1: Final = b"PROXY "
_V1_SIZE_MAX: Final = 107  # with its CR LF, section 2.1
_V2_SIZE: Final = 16  # of the part whose size is known
_V1_LINE = re.compile(
    rb"PROXY (?:(TCP[46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) ([0-9]{1,5}) ([0-9]{1,5})|UNKNOWN(?: .*)?)"
)
_LOCAL, _PROXY = 0, 1
_AUTHORITY, _UNIQUE_ID = 0x02, 0x05
_UNIQUE_ID_MAX: Final = 128
# Transport and address family: how long the addresses are, and how they are laid out. Only those of TCP say something
# that a server can use: with the others the connection keeps the addresses of its socket.
_FAMILIES: Final = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
_TCP: Final = {0x11: ("!4s4sHH", IPv4Address), 0x21: ("!16s16sHH", IPv6Address)}


class ProxyError(Exception):
    """What has come is no header; the connection is to be closed."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a proxy says of a connection.

    Attributes:
        client, server: addresses and ports of both ends as the client sees them; None: those of the socket count, for
            the connection is the proxy's own (LOCAL), or the proxy does not know (UNKNOWN).
        authority: the host that the client has asked for (SNI, for TLS that the proxy has ended); None: not said.
        unique_id: what the proxy calls the connection; None: not said.
    """

    client: Address | None = None
    server: Address | None = None
    authority: str | None = None
    unique_id: bytes | None = None


class ProxyParser:
    """The header of one connection.

    Args:
        form: which versions are taken: "v1", "v2", "auto" (both).

    Attributes:
        header: None as long as it has not all come.
    """

    __slots__ = ("_starts", "_taken", "header")

    def __init__(self, form: str) -> None:
        self._starts = {"v1": (_V1,), "v2": (_SIGNATURE,), "auto": (_V1, _SIGNATURE)}[form]
        self._taken = bytearray()
        self.header: ProxyHeader | None = None

    def feed(self, data: bytes) -> int:
        """Take bytes of the header; return how many of these belong to it.

        Raises:
            ProxyError: it is none.
        """
        taken = self._taken
        before = len(taken)
        taken += data
        if not any(taken.startswith(start) or start.startswith(taken) for start in self._starts):
            raise ProxyError(f"it begins with {bytes(taken[:16])!r}")
        size = self._size()
        if size is None:
            return len(data)
        del taken[size:]
        self.header = _read_v1(bytes(taken[:-2])) if taken[:1] == b"P" else _read_v2(bytes(taken))
        return size - before

    def _size(self) -> int | None:
        """How long the header is; None: it has not all come."""
        taken = self._taken
        if taken[:1] == b"P":
            end = taken.find(b"\n", 0, _V1_SIZE_MAX)
            if end < 0 and len(taken) >= _V1_SIZE_MAX:
                raise ProxyError("a line of version 1 that does not end")
            if end >= 0 and taken[end - 1 : end] != b"\r":
                raise ProxyError("a line of version 1 that does not end with CR LF")
            return end + 1 or None
        if len(taken) < _V2_SIZE:
            return None
        size = _V2_SIZE + int.from_bytes(taken[14:16], "big")
        return size if len(taken) >= size else None


def _read_v1(line: bytes) -> ProxyHeader:
    match = _V1_LINE.fullmatch(line)
    if match is None:
        raise ProxyError(f"{line!r} is no line of version 1")
    if match[1] is None:
        return ProxyHeader()
    version = int(match[1][3:])
    try:
        hosts = [ip_address(text.decode("ascii")) for text in match.group(2, 3)]
    except ValueError as exc:
        raise ProxyError(f"{line!r}: {exc}") from None
    ports = [int(text) for text in match.group(4, 5)]
    if any(host.version != version for host in hosts) or max(ports) > 65535:
        raise ProxyError(f"{line!r} does not fit its family, or a port does not fit 16 bits")
    return ProxyHeader((str(hosts[0]), ports[0]), (str(hosts[1]), ports[1]))


def _read_v2(data: bytes) -> ProxyHeader:
    command, family = data[12], data[13]
    if command >> 4 != 2 or command & 15 not in (_LOCAL, _PROXY):
        raise ProxyError(f"version and command {command:#04x} are unknown")
    if family not in _FAMILIES:
        raise ProxyError(f"address family and transport {family:#04x} are unknown")
    if command & 15 == _LOCAL:
        return ProxyHeader()  # section 2.2: whatever else it says is to be discarded
    size = _FAMILIES[family]
    rest = data[_V2_SIZE:]
    if len(rest) < size:
        raise ProxyError(f"{len(rest)} bytes are too few for its addresses")
    values = _values(rest[size:]) if family else {}
    client = server = None
    if family in _TCP:
        layout, kind = _TCP[family]
        source, target, source_port, target_port = struct.unpack_from(layout, rest)
        client, server = (str(kind(source)), source_port), (str(kind(target)), target_port)
    return ProxyHeader(client, server, _text_of(values.get(_AUTHORITY)), values.get(_UNIQUE_ID) or None)


def _values(data: bytes) -> dict[int, bytes]:
    """The values behind the addresses (section 2.2.1), by their types."""
    values: dict[int, bytes] = {}
    while data:
        size = int.from_bytes(data[1:3], "big")
        if len(data) < 3 + size:
            raise ProxyError("a value that is longer than the header")
        values[data[0]] = data[3 : 3 + size]
        data = data[3 + size :]
    if len(values.get(_UNIQUE_ID, b"")) > _UNIQUE_ID_MAX:
        raise ProxyError(f"an id of more than {_UNIQUE_ID_MAX} bytes")
    return values


def _text_of(value: bytes | None) -> str | None:
    try:
        text = value.decode("utf-8") if value else None
    except UnicodeDecodeError:
        return None
    return text if text is not None and text.isprintable() else None
