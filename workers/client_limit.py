"""How many connections one client may hold in a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from preforkd.workers.forwarded import ip_of

if TYPE_CHECKING:
    from preforkd.workers.forwarded import Networks

IPV6_NETWORK: Final = 64
"""Bits of an IPv6 address that stand for a client: the rest is a client's own to choose."""


class ClientLimit:
    """Counts the connections of each client.

    Args:
        most: connections of one client.
        exempt: proxies, which open connections for many.

    Attributes:
        most: as given.
    """

    __slots__ = ("_exempt", "_held", "most")

    def __init__(self, most: int, exempt: Networks) -> None:
        self.most = most
        self._exempt = exempt
        self._held: dict[bytes, int] = {}

    def key_of(self, host: str) -> bytes | None:
        """Return what a client is counted by; None: it is not counted."""
        address = ip_of(host.partition("%")[0])
        if address is None or self._exempt.hold(address[1]):
            return None
        packed = address[1]
        return packed if len(packed) == 4 else packed[: IPV6_NETWORK // 8]

    def admits(self, key: bytes) -> bool:
        """Count a connection, unless there are too many."""
        held = self._held.get(key, 0)
        if held >= self.most:
            return False
        self._held[key] = held + 1
        return True

    def ended(self, key: bytes) -> None:
        """A counted connection has ended."""
        held = self._held[key] - 1
        if held:
            self._held[key] = held
        else:
            del self._held[key]
