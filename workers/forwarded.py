"""Who the client is behind proxies: `X-Forwarded-*` and `Forwarded` (RFC 7239), as far as they are believed.

Each proxy appends to what it was sent, so the right end of a list is what our peer says, and the left end what anybody
has claimed. The list is walked from the right for as long as the addresses in it are those of proxies that are trusted;
the first that is not is the client, and what stands left of it is its own claim. Each proxy says one value at most, so
of `Proto`, `Host`, `Port` and `Prefix` as many values from the right count as there were proxies.

Pure: field values and networks in, a `Forwarded` out. Nothing here raises for what a client has sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING, Final

from preforkd.workers.http.message import Forwarded
from preforkd.workers.http.rules import is_valid_host

if TYPE_CHECKING:
    from ipaddress import IPv4Network

    from preforkd.workers.http.message import Address, Fields

IpAddress = tuple[str, bytes]
Values = dict[bytes, list[bytes]]
"""The elements of the lists that a request has, by the lower-case name of the field."""

FORMS: Final = ("none", "x-forwarded", "rfc7239")
UNIX: Final = "unix:"
EVERYBODY: Final = "*"
PORTS: Final = {"http": 80, "https": 443}
_MAPPED: Final = bytes(10) + b"\xff\xff"  # RFC 4291 section 2.5.5.2
_SCHEMES = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII).fullmatch
_OBFUSCATED_PORT = re.compile(r"_[A-Za-z0-9._\-]+", re.ASCII).fullmatch
# Segments of a path (RFC 3986 section 3.3), none of them empty: `//host` would be another site in a redirect.
_PREFIX = re.compile(rb"(?:/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})+)*").fullmatch
# An element of `Forwarded` (RFC 7239 section 4).
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_PAIR = rb"(%b)=(%b|%b)" % (_TOKEN, _TOKEN, _QUOTED)
_PAIRS = re.compile(_PAIR).finditer
# Possessive: white space between two semicolons can be divided in many ways, and none must be tried twice.
_ELEMENT = re.compile(rb"(?:%b)?+(?:[ \t]*+;[ \t]*+(?:%b)?+)*+" % (_PAIR, _PAIR)).fullmatch
_COMMAS_IN_ELEMENT: Final = 8  # at most, in quotes; else the search for the beginning of what is none takes long


class Networks:
    """Whom we believe.

    Args:
        texts: addresses, networks in CIDR notation, `unix:` for the peers of unix sockets, `*` for everybody.

    Attributes:
        unix: peers of unix sockets are among them.
        everybody: all are.

    Raises:
        ValueError: a text is none of these; the message says what would be right.
    """

    __slots__ = ("_hosts", "_networks", "everybody", "unix")

    def __init__(self, texts: Iterable[str]) -> None:
        texts = tuple(texts)
        self.everybody = EVERYBODY in texts
        self.unix = UNIX in texts or self.everybody
        networks = [network_of(text) for text in texts if text not in (UNIX, EVERYBODY)]
        self._hosts = {one.network_address.packed for one in networks if one.num_addresses == 1}
        # By the length of their addresses: mask and address as numbers.
        self._networks: dict[int, list[tuple[int, int]]] = {4: [], 16: []}
        for one in networks:
            if one.num_addresses > 1:
                size = one.max_prefixlen // 8
                self._networks[size].append((int(one.netmask), int(one.network_address)))

    def hold(self, packed: bytes) -> bool:
        """Whether an address is among them, as `ip_of()` has it."""
        if self.everybody or packed in self._hosts:
            return True
        number = int.from_bytes(packed, "big")
        return any(number & mask == network for mask, network in self._networks[len(packed)])

    def hold_peer(self, host: str | None) -> bool:
        """Whether the peer of a connection is.

        Args:
            host: its address; None: it has none, for the socket is a unix socket.
        """
        if host is None:
            return self.unix
        address = ip_of(host.partition("%")[0])
        return self.everybody if address is None else self.hold(address[1])


def network_of(text: str) -> IPv4Network | IPv6Network:
    """Return the network of a text.

    Raises:
        ValueError: it is neither an address nor a network.
    """
    try:
        return _plain_network(ip_network(text))
    except ValueError:
        pass
    try:
        right = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f'"{text}" is not an address or network: write 10.0.0.1, 10.0.0.0/8, 2001:db8::/32, unix: or *'
        ) from None
    raise ValueError(f'"{text}" has bits behind its prefix: write {right}')


def _plain_network(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """One of IPv4 addresses that are mapped into IPv6 as what it is."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < 96:
        return network
    return ip_network(f"{mapped}/{network.prefixlen - 96}")


def ip_of(host: str) -> IpAddress | None:
    """Return an address as text in its shortest form, and packed; None: it is none.

    One of IPv4 that is mapped into IPv6 is what it is.
    """
    # Not `ipaddress`, which takes ten times as long.
    try:
        if ":" not in host:
            return host, inet_pton(AF_INET, host)
        packed = inet_pton(AF_INET6, host)
    except (OSError, ValueError):  # ValueError: NUL in it
        return None
    if packed[:12] == _MAPPED:
        return inet_ntop(AF_INET, packed[12:]), packed[12:]
    return inet_ntop(AF_INET6, packed), packed


def node_of(value: bytes) -> tuple[IpAddress, int] | None:
    """Return address and port of an element of `X-Forwarded-For`, or of a `for` of `Forwarded` (RFC 7239 section 6).

    Returns:
        The port is 0 where there is none, or a hidden one. None: `unknown`, `_hidden`, or anything else.
    """
    text = value.strip(b" \t").decode("latin-1")
    if ":" not in text and (plain := ip_of(text)) is not None:
        return plain, 0
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    host, port = text, ""
    if text[:1] == "[":
        host, _, port = text[1:].partition("]")
        if ":" not in host or (port and port[0] != ":"):
            return None
        port = port[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    address = ip_of(host) if host.isascii() else None
    if address is None or not port:
        return (address, 0) if address is not None else None
    if _PORT(port) and int(port) < 65536:
        return address, int(port)
    return (address, 0) if _OBFUSCATED_PORT(port) else None


def read(form: str, fields: Fields, peer: Address | None, trusted: Networks, scheme: str) -> tuple[Forwarded, Values]:
    """Return what a trusted peer says of a request, and what of its lists is to be seen by the app.

    Args:
        form: "x-forwarded" or "rfc7239".
        fields: of the request.
        peer: the peer's own address.
        trusted: whose word counts.
        scheme: of the connection.

    Returns:
        The lists are those that say more than they may, for what stands left of the client is the client's own; an
        empty one is not to be seen at all.
    """
    read_form = _x_forwarded if form == "x-forwarded" else _rfc7239
    return read_form(fields, peer, trusted, scheme)


def _x_forwarded(fields: Fields, peer: Address | None, trusted: Networks, scheme: str) -> tuple[Forwarded, Values]:
    # Flat, first of all: with one proxy in front every request has these two, with one value each.
    spoken = [field for field in fields if field[0] in _SPEAKING]
    said_once = dict(spoken)
    if len(spoken) == 2:
        chain_value, proto = said_once.get(b"x-forwarded-for"), said_once.get(b"x-forwarded-proto")
        if chain_value and b"," not in chain_value and proto in _SCHEMES:
            node = node_of(chain_value)
            return Forwarded(None if node is None else (node[0][0], node[1]), _SCHEMES[proto]), _NO_CLAIMS
    values = _lists_of(fields, _X_FORWARDED)
    client, hops = peer, 1
    chain = values.get(b"x-forwarded-for")
    if chain is not None:
        client, hops = _walk((node_of(one) for one in reversed(chain)), peer, trusted)
    claims = {name: elements[-hops:] for name, elements in values.items() if len(elements) > hops}
    values.update(claims)
    if b"forwarded" in said_once:  # a proxy of the one form passes on what its client has said in the other
        claims[b"forwarded"] = []
    # Of each what the proxy says that the client has spoken to, or the next one behind it that says something.
    said = _SCHEMES.get(values.get(b"x-forwarded-proto", _NONE)[0].lower(), "")
    host, port = values.get(b"x-forwarded-host", _NONE)[0], values.get(b"x-forwarded-port", _NONE)[0]
    authority, server = _asked_for(host, port, fields, said or scheme) if host or port else (b"", None)
    return Forwarded(client, said, authority, server, _prefix_of(values.get(b"x-forwarded-prefix", _NONE))), claims


_NONE = [b""]
_NO_CLAIMS: Values = {}
_X_FORWARDED = frozenset(
    b"x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port x-forwarded-prefix".split()
)

_SPEAKING = _X_FORWARDED | {b"forwarded"}


def _lists_of(fields: Fields, names: frozenset[bytes]) -> Values:
    """The elements of lists; several fields are one list, and empty elements are none (RFC 9110 section 5.6.1)."""
    values: Values = {}
    for name, value in fields:
        if name in names:
            elements = [one for part in value.split(b",") if (one := part.strip(b" \t"))]
            if elements:
                values[name] = values[name] + elements if name in values else elements
    return values


def _walk(
    nodes: Iterator[tuple[IpAddress, int] | None], peer: Address | None, trusted: Networks
) -> tuple[Address | None, int]:
    """Return the client, and how many proxies have had a say, our peer included.

    Args:
        nodes: from the one that our peer names to the left.
        peer: who it is if nothing is said.
        trusted: whose word counts.
    """
    client, hops = peer, 0
    for node in nodes:
        hops += 1
        client = None if node is None else (node[0][0], node[1])
        if node is None or not trusted.hold(node[0][1]):
            break
    return client, hops or 1


def _prefix_of(values: list[bytes]) -> str:
    """Proxies one behind the other have each stripped a part, the outer one first."""
    prefix = b"".join(values)
    if not prefix:
        return ""
    prefix = b"".join([one.rstrip(b"/") for one in values])
    return prefix.decode("ascii") if _PREFIX(prefix) and b"/." not in prefix else ""


def _rfc7239(fields: Fields, peer: Address | None, trusted: Networks, scheme: str) -> tuple[Forwarded, Values]:
    value = b",".join([value for name, value in fields if name == b"forwarded"])
    taken: list[tuple[bytes, dict[bytes, bytes]]] = []

    def nodes() -> Iterator[tuple[IpAddress, int] | None]:
        for text, parameters in _elements_from_right(value):
            taken.append((text, parameters))
            yield node_of(parameters.get(b"for", b""))

    client, _ = _walk(nodes(), peer, trusted)
    said: dict[bytes, bytes] = {}
    for _, parameters in taken:  # what is said nearest to the client counts
        said.update(parameters)
    proto, host = _SCHEMES.get(said.get(b"proto", b"").lower(), ""), said.get(b"host", b"")
    authority, server = _asked_for(host, b"", fields, proto or scheme) if host else (b"", None)
    seen = [text for text, _ in reversed(taken)]
    claims: Values = {name: [] for name, _ in fields if name.startswith(b"x-forwarded")}
    if len(b", ".join(seen)) < len(value.strip(b" \t,")):
        claims[b"forwarded"] = seen
    return Forwarded(client, proto, authority, server), claims


def _elements_from_right(value: bytes) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    """The elements of `Forwarded`, each with its parameters; from the right, for the left end may be anything.

    A quote that a client leaves open must not swallow what a proxy appends. What is no element has no parameters and is
    the last one.
    """
    end = len(value)
    while end > 0:
        start = comma = end
        for _ in range(_COMMAS_IN_ELEMENT):
            comma = value.rfind(b",", 0, comma)
            start = comma + 1
            if comma < 0 or _ELEMENT(value[start:end].strip(b" \t")):
                break
        text = value[start:end].strip(b" \t")
        if text:
            is_element = _ELEMENT(text) is not None
            yield text, _parameters(text) if is_element else {}
            if not is_element:
                return
        end = start - 1


def _parameters(element: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for match in _PAIRS(element):
        value = match[2]
        if value[:1] == b'"':
            value = re.sub(rb"\\(.)", rb"\1", value[1:-1])
        # RFC 7239 section 4: each parameter once; of a repeated one nobody knows which is meant.
        name = match[1].lower()
        found[name] = b"" if name in found else value
    return found


def _asked_for(host: bytes, port: bytes, fields: Fields, scheme: str) -> tuple[bytes, Address | None]:
    """Return the authority that the client has asked for, if it is another than was sent, and its host and port.

    A port within the host is the client's own word and counts; `Port` is for a host without one.
    """
    sent = next((value for name, value in fields if name == b"host"), b"")
    if not is_valid_host(host):
        host = b""
    number = int(port) if port.isdigit() and len(port) < 6 else 0
    if not host and not 0 < number < 65536:
        return b"", None
    authority = host or sent
    name, own = split_authority(authority)
    if not name:
        return b"", None
    number = own or (number if 0 < number < 65536 else 0) or PORTS[scheme]
    if not own and number != PORTS[scheme]:
        authority = b"%b:%d" % (authority.rstrip(b":"), number)
    return authority if authority != sent else b"", (name, number)


def split_authority(authority: bytes) -> tuple[str, int]:
    """Return host and port (0: none) of a valid `Host`; the brackets of an IPv6 address stay."""
    text = authority.decode("latin-1")
    host, colon, port = text.rpartition(":")
    if not colon or "]" in port:
        return text, 0
    return host, int(port) if port else 0
