"""What stands between the client and the app: whom a worker believes, and what of a head the app gets to see.

The app sees one truth, whatever its interface. What a trusted proxy says of the client is `message.forwarded`; what
anybody else says like that is taken out of the head, and never mixed with it.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Protocol

from preforkd.workers import forwarded
from preforkd.workers.http import compiled
from preforkd.workers.http.names import ODDLY, TELLS, is_forwarding

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from preforkd.workers.http.message import RequestMessage
    from preforkd.workers.request_id import RequestIds


class Peer(Protocol):
    """A connection as it matters whom it comes from.

    Attributes:
        peer_is_trusted: whether the peer's word on its clients counts; None: nobody has asked yet.
        speaks_for_others: the peer has spoken for a client of its own.
    """

    peer_is_trusted: bool | None
    speaks_for_others: bool

    @property
    def transport(self) -> asyncio.Transport | None:
        """None when it is gone."""

    @property
    def peer_address(self) -> tuple[str, int] | None:
        """Address and port of whoever has opened the connection; None: it has none."""

    @property
    def peer_scheme(self) -> str:
        """How the client speaks to us, "http" or "https"."""

    def client_is(self, client: tuple[str, int] | None) -> None:
        """Take the address of the current request's client."""


@compiled.in_both_forms
class Edge:
    """What a worker does with each head before the app sees it.

    Args:
        form: by which fields trusted proxies tell who the client is: "x-forwarded", "rfc7239"; "none": the fields are
            left to the app.
        trusted: whose word counts; see `forwarded.Networks`.
        ids: gives requests their ids; None: they have none.
    """

    __slots__ = ("_form", "_ids", "trusted")

    def __init__(self, form: str, trusted: Iterable[str], ids: RequestIds | None = None) -> None:
        self._form = form
        self._ids = ids
        self.trusted = forwarded.Networks(trusted)

    def take(self, connection: Peer, message: RequestMessage) -> None:
        """Take in a head. Flat: every request passes here."""
        if message.noted & TELLS:
            self._take_told(connection, message)
        elif connection.speaks_for_others:
            connection.client_is(connection.peer_address)
        ids = self._ids
        if ids is None:
            return
        trusts = connection.peer_is_trusted
        if trusts is None:
            trusts = self.trusts(connection)
        if not ids.take_usual(message, trusts):
            ids.take_unusual(message, trusts)

    def trusts(self, connection: Peer) -> bool:
        """Whether the peer of a connection is a trusted proxy; decided once for each."""
        trusts = connection.peer_is_trusted
        if trusts is None:
            client = connection.peer_address
            if client is not None:
                trusts = self.trusted.hold_peer(client[0])
            else:
                trusts = self.trusted.unix and _is_unix(connection)
            connection.peer_is_trusted = trusts
        return trusts

    def _take_told(self, connection: Peer, message: RequestMessage) -> None:
        if self._form == "none":
            return
        if self.trusts(connection):
            self._believe(connection, message)
        else:
            message.take_out(is_forwarding)

    def _believe(self, connection: Peer, message: RequestMessage) -> None:
        said, claims = forwarded.read(
            self._form, message.fields, connection.peer_address, self.trusted, connection.peer_scheme
        )
        if message.noted & ODDLY:
            message.take_out(_is_odd)
        for name, elements in claims.items():
            message.replace_list(name, elements)
        if said.authority:
            message.replace_host(said.authority)
        message.forwarded = said
        connection.speaks_for_others = True
        connection.client_is(said.client)


def _is_unix(connection: Peer) -> bool:
    transport = connection.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    return sock is not None and sock.family == socket.AF_UNIX


def _is_odd(name: bytes) -> bool:
    return b"_" in name and is_forwarding(name)
