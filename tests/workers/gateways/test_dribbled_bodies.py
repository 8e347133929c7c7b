"""What a client dribbles takes no more memory than what it sends at once, whatever number of reads it comes in."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from typing import Any

from websockets.frames import Frame, Opcode

from preforkd.workers.gateways.asgi import AsgiGateway
from preforkd.workers.gateways.wsgi import WsgiGateway
from preforkd.workers.http.protocol import ServerHttpProtocol
from tests.workers.http.wire import FakeTransport, run, turns

SIZE = 200_000
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def grown(protocol: ServerHttpProtocol, head: bytes, data: bytes) -> int:
    """Send a head and, two bytes a read, some data; return the bytes of memory that were held at most for these."""
    transport = FakeTransport(protocol)
    protocol.connection_made(transport)
    protocol.data_received(head)
    await turns()
    protocol.data_received(data[:100])
    tracemalloc.start()
    for at in range(100, len(data), 2):
        protocol.data_received(data[at : at + 2])
        await asyncio.sleep(0)  # the handler takes them as they come
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await turns()
    return most


def memory_of(make: Callable[[], ServerHttpProtocol], head: bytes, data: bytes) -> int:
    found = []

    async def main() -> None:
        protocol = make()
        found.append(await grown(protocol, head, data))
        protocol.connection_lost(None)
        await turns()

    run(main)
    return found[0]


def test_a_websocket_message() -> None:
    sizes: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            sizes.append(len(message["bytes"]))

    frame = Frame(Opcode.BINARY, bytes(SIZE)).serialize(mask=True)
    assert memory_of(AsgiGateway(app).handler, HANDSHAKE, frame) < 6 * SIZE
    assert sizes == [SIZE]


def test_a_body_that_is_collected_for_a_call_on_the_loop() -> None:
    sizes: list[int] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        sizes.append(len(environ["wsgi.input"].read()))
        start_response("204 No Content", [])
        return []

    head = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % SIZE
    assert memory_of(WsgiGateway(app, 0).handler, head, bytes(SIZE)) < 6 * SIZE
    assert sizes == [SIZE]
