"""The last response of a connection is told to be one to a transport that has an end of its own to send."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.workers.http.wire import GET, Echo, FakeTransport, run, turns

LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Holding(FakeTransport):
    """Notes in which turn of the loop it is told what."""

    def __init__(self, protocol: asyncio.Protocol, **arguments: Any) -> None:
        super().__init__(protocol, **arguments)
        self.told: list[str] = []

    def hold_back(self) -> None:
        self.told.append("hold back")
        asyncio.get_running_loop().call_soon(self.told.append, "next turn")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(data)
        self.told.append("write")

    def write_eof(self) -> None:
        super().write_eof()
        self.told.append("end")

    def close(self) -> None:
        super().close()
        self.told.append("end")


class Waiting(Echo):
    """Has to wait for something before it answers."""

    async def handle_request(self, message: Any, payload: Any) -> None:
        await asyncio.sleep(0)
        await super().handle_request(message, payload)


class Later(Echo):
    """Has something to do behind its response."""

    def __init__(self) -> None:
        super().__init__()
        self.may_end = asyncio.Event()

    async def handle_request(self, message: Any, payload: Any) -> None:
        await super().handle_request(message, payload)
        await self.may_end.wait()


async def told(protocol: Any, *portions: bytes) -> list[str]:
    transport = Holding(protocol)
    protocol.connection_made(transport)
    for data in portions:
        protocol.data_received(data)
        await turns()
    return transport.told


@pytest.mark.parametrize("kind", [Echo, Waiting])
@pytest.mark.parametrize("before", [(), (GET,)], ids=["first", "later"])
def test_the_end_follows_the_last_response_in_the_same_turn(before: tuple[bytes, ...], kind: type[Echo]) -> None:
    async def main() -> None:
        assert await told(kind(), *before, LAST) == ["write"] * len(before) + ["hold back", "write", "end", "next turn"]

    run(main)


def test_a_response_that_is_not_the_last_goes_out_at_once() -> None:
    async def main() -> None:
        assert await told(Echo(), GET, GET) == ["write", "write"]

    run(main)


def test_the_last_response_does_not_wait_for_what_its_handler_does_behind_it() -> None:
    async def main() -> None:
        protocol = Later()
        words = await told(protocol, LAST)
        assert words == ["write"]
        protocol.may_end.set()
        await turns()
        assert words == ["write", "end"]

    run(main)
