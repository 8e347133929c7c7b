"""A connection does the same in both forms, whatever is said on it and whatever its handlers do."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preforkd.workers import ServerHttpProtocol
from preforkd.workers.http import compiled
from preforkd.workers.http.connection import HttpConnection
from tests.workers.http.conversations import DEEDS, HEADS, KINDS, Handler, have, portions
from tests.workers.http.responses import running
from tests.workers.http.wire import FakeTransport, run, talk, turns

pytestmark = pytest.mark.skipif(compiled.MISSING != "", reason=f"nothing was compiled here: {compiled.MISSING}")

PLAIN = b"GET /answer HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("kind", KINDS)
@given(number=st.integers(0, 1 << 32))
def test_conversations(kind: str, number: int) -> None:
    said = portions(Random(number))
    assert have("compiled", kind, said, number) == have("pure", kind, said, number)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("deed", sorted(set(DEEDS)))
def test_each_deed_with_each_head(kind: str, deed: str) -> None:
    for number, head in enumerate(HEADS):
        for line, body in (
            (b"GET /%b HTTP/1.1", b""),
            (b"POST /%b HTTP/1.1\r\nContent-Length: 3", b"abc"),
            (b"HEAD /%b HTTP/1.1", b""),
        ):
            one = line % deed.encode() + b"\r\n" + head + b"\r\n\r\n" + body
            for said in ([one, PLAIN, one], [one + PLAIN + one]):
                assert have("compiled", kind, said, number) == have("pure", kind, said, number)


class AllowsByProperty(Handler):
    """An attribute of the base class is a property here."""

    @property
    def allowed_methods(self) -> frozenset[str]:
        return frozenset({"GET"})

    @allowed_methods.setter
    def allowed_methods(self, value: frozenset[str]) -> None:
        vars(ServerHttpProtocol)["allowed_methods"].__set__(self, value)


class ClosesByProperty(Handler):
    """Likewise."""

    @property
    def persistent(self) -> bool:
        return self.requests < 2

    @persistent.setter
    def persistent(self, value: bool) -> None:
        vars(HttpConnection)["persistent"].__set__(self, value)


@pytest.mark.parametrize("form", ["pure", "compiled"])
def test_attributes_may_be_properties_of_a_subclass(form: str) -> None:
    with running(form):
        delete = PLAIN.replace(b"GET", b"DELETE")
        assert talk(PLAIN, delete, handler=AllowsByProperty).statuses == [200, 405]
        assert talk(PLAIN, PLAIN, PLAIN, handler=ClosesByProperty).statuses == [200, 200]


@pytest.mark.parametrize("form", ["pure", "compiled"])
def test_who_calls_in_while_it_handles_an_exception_goes_on_with_its_own(form: str) -> None:
    found: list[BaseException | None] = []

    def calls_in(protocol: Handler) -> Iterator[BaseException | None]:
        yield None
        protocol.data_received(PLAIN.replace(b"answer", b"raise"))
        yield sys.exc_info()[1]
        yield sys.exc_info()[1]

    async def main() -> None:
        protocol = Handler()
        protocol.connection_made(FakeTransport(protocol))
        asyncio.get_running_loop().call_soon(protocol.data_received, PLAIN)
        await turns()
        steps = calls_in(protocol)
        next(steps)

        def call() -> None:
            try:
                raise KeyError("outer")
            except KeyError:
                found.append(next(steps))
            found.append(next(steps))

        asyncio.get_running_loop().call_soon(call)
        await turns()

    with running(form):
        run(main)
    assert [type(one) for one in found] == [KeyError, type(None)]


FINALIZERS = """
import asyncio, gc
from preforkd.workers import ConnectionState
from preforkd.workers.http import compiled
from tests.workers.http.conversations import Handler
from tests.workers.http.responses import running
from tests.workers.http.wire import FakeTransport, turns

class Trash:
    def __init__(self, protocol):
        self.itself, self.protocol = self, protocol
    def __del__(self):
        self.protocol.close()

async def main(threshold):
    protocol = Handler()
    transport = FakeTransport(protocol)
    protocol.connection_made(transport)
    loop = asyncio.get_running_loop()
    loop.call_soon(protocol.data_received, b"GET /answer HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    await turns()
    def collecting():
        gc.collect()
        Trash(protocol)
        gc.set_threshold(threshold)
        gc.enable()
        protocol.data_received(b"GET /answer?" + b"x" * 99 + b" HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
        gc.disable()
    gc.disable()
    loop.call_soon(collecting)
    await turns()
    gc.collect()
    await turns()
    assert protocol.state in (ConnectionState.CLOSING, ConnectionState.CLOSED), protocol.state

compiled.choose("compiled")
for threshold in range(1, 40):
    asyncio.run(main(threshold))
"""


def test_the_collector_may_close_the_connection_at_any_allocation() -> None:
    environ = {**os.environ, "PYTHONMALLOC": "debug"}
    subprocess.run([sys.executable, "-c", FINALIZERS], check=True, env=environ)
