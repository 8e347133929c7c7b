"""Which certificate answers which name (RFC 6066 section 3, RFC 9525 section 6.3). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table_of(names: Sequence[Iterable[str]]) -> dict[str, int]:
    """Return by name the index of the certificate for it; the first that has a name gets it.

    Args:
        names: of each certificate: host names, or `*.` and a domain.
    """
    table: dict[str, int] = {}
    for index, own in enumerate(names):
        for name in own:
            table.setdefault(name.lower().rstrip("."), index)
    return table


def certificate_for(requested: str | None, table: Mapping[str, int]) -> int:
    """Return the index of the certificate for a client: the exact name, the wildcard of its domain, else the first.

    Args:
        requested: the name that the client has asked for (SNI), None when it has not.
        table: from `table_of`.
    """
    if not requested:
        return 0
    name = requested.lower().rstrip(".")
    index = table.get(name)
    if index is None:
        # A wildcard stands for one label, the leftmost (RFC 9525 section 6.3).
        index = table.get("*." + name.partition(".")[2], 0)
    return index


def names_in(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the host names of a certificate, as `ssl.SSLSocket.getpeercert()` describes it.

    The subject's common name counts only where there are no others, as with the oldest of tools.
    """
    names = tuple(value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")
    if names or certificate.get("subjectAltName"):
        return names
    return tuple(value for part in certificate.get("subject", ()) for key, value in part if key == "commonName")
