"""What connections to one address share says nothing of their clients, and is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from preforkd.workers.gateways.asgi import gateway as asgi
from preforkd.workers.gateways.wsgi import gateway as wsgi
from preforkd.workers.proxy_protocol import ProxyHeader
from tests.workers.http.wire import GET, FakeTransport

Told = dict[str, Any]


class Served:
    """A gateway whose app keeps what it is told.

    Attributes:
        told: scopes or environs.
        gateway: the gateway.
    """

    def __init__(self, interface: str) -> None:
        self.told: list[Told] = []
        self.was_told = asyncio.Event()
        self.gateway: Any = asgi.AsgiGateway(self.asgi) if interface == "asgi" else wsgi.WsgiGateway(self.wsgi, 0)
        self.is_asgi = interface == "asgi"

    def _take(self, told: Told) -> None:
        self.told.append(told)
        self.was_told.set()

    async def asgi(self, scope: Told, receive: Any, send: Callable[..., Any]) -> None:
        self._take(scope)
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    def wsgi(self, environ: Told, start_response: Callable[..., Any]) -> list[bytes]:
        self._take(environ)
        start_response("204 No Content", [])
        return []

    def client(self, number: int) -> object:
        told = self.told[number]
        return told["client"] if self.is_asgi else (told.get("REMOTE_ADDR"), int(told.get("REMOTE_PORT", 0)))

    def server(self, number: int) -> object:
        told = self.told[number]
        return told["server"] if self.is_asgi else (told["SERVER_NAME"], int(told["SERVER_PORT"]))

    @property
    def shared(self) -> list[object]:
        kept = self.gateway._templates if self.is_asgi else self.gateway._environs
        return list(kept.values())

    async def connect(self, server: Any, client: Any, proxied: ProxyHeader | None = None, requests: int = 1) -> None:
        protocol = self.gateway.handler()
        protocol.proxy_header = proxied
        if proxied is not None:
            protocol.remember_client(proxied.client)
        transport = FakeTransport(protocol, {"sockname": server, "peername": client})
        protocol.connection_made(transport)
        for _ in range(requests):
            self.was_told.clear()
            protocol.data_received(GET)
            await self.was_told.wait()
        transport.abort()
        await transport.lost.wait()


@pytest.fixture(params=["asgi", "wsgi"])
def served(request: pytest.FixtureRequest) -> Served:
    return Served(request.param)


A, B = ("10.0.0.1", 80), ("10.0.0.1", 81)


def test_connections_to_one_address_share_all_but_their_clients(served: Served) -> None:
    async def main() -> None:
        for number in range(5):
            await served.connect(A, ("192.0.2.1", number), requests=2)
        await served.connect(B, ("192.0.2.2", 9))

    asyncio.run(main())
    assert [served.client(number) for number in range(11)] == [
        *(("192.0.2.1", number // 2) for number in range(10)), ("192.0.2.2", 9),
    ]  # fmt: skip
    assert [served.server(number) for number in range(11)] == 10 * [A] + [B]
    assert len(served.shared) == 2


def test_what_a_proxy_has_said_of_one_connection_is_not_told_of_another(served: Served) -> None:
    said = ProxyHeader(("192.0.2.9", 1), ("198.51.100.1", 443), "shop.example", b"id")

    async def main() -> None:
        for proxied in (None, said, None):
            await served.connect(A, ("192.0.2.1", 5), proxied)

    asyncio.run(main())
    assert [served.client(number) for number in range(3)] == [("192.0.2.1", 5), ("192.0.2.9", 1), ("192.0.2.1", 5)]
    assert [served.server(number) for number in range(3)] == [A, ("198.51.100.1", 443), A]
    places = [one["extensions"] if served.is_asgi else one for one in served.told]
    assert ["preforkd.proxy" in one for one in places] == [False, True, False]
    assert len(served.shared) == 1


def test_a_socket_bound_to_many_addresses_keeps_few(served: Served) -> None:
    async def main() -> None:
        for number in range(100):
            await served.connect((f"10.0.0.{number}", 80), ("192.0.2.1", 5))

    asyncio.run(main())
    assert [served.server(number) for number in range(100)] == [(f"10.0.0.{number}", 80) for number in range(100)]
    assert len(served.shared) == asgi.TEMPLATES_MAX == wsgi.SHARED_MAX == 64


def test_the_error_stream_is_the_one_that_is_there_now(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served("wsgi")
    streams = [object(), object()]

    async def main() -> None:
        for stream in streams:
            monkeypatch.setattr("sys.stderr", stream)
            await served.connect(A, ("192.0.2.1", 5))

    asyncio.run(main())
    monkeypatch.undo()
    assert [one["wsgi.errors"] for one in served.told] == streams
    assert len(served.shared) == 1
