"""A client that does not read is not written to without end."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from preforkd.workers import ConnectionState, Response
from preforkd.workers.http.connections import connections_of
from tests.workers.http.test_protocol import HANDSHAKE, Receiver, Switching
from tests.workers.http.wire import GET, Echo, FakeTransport, converse, run, turns


class Slow(FakeTransport):
    """Asks for a pause with every write, as a transport does whose client does not read."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(data)
        self.protocol.pause_writing()


class Careless(Echo):
    """Does not await write_eof()."""

    async def handle_request(self, message: Any, payload: Any) -> None:
        self.keep_alive(True)
        self.seen.append((message.method, message.path, b""))
        response = Response(self.writer, 200)
        response.add_header("Content-Length", "5")
        response.send_headers()
        response.write(b"hello")
        response.write_eof()


def connect(protocol: Any) -> Slow:
    transport = Slow(protocol)
    protocol.connection_made(transport)
    return transport


@pytest.mark.parametrize("portions", [[GET * 3], [GET, GET * 2], [GET, GET, GET]], ids=["whole", "two", "one by one"])
def test_the_next_request_waits_until_the_client_has_read(portions: list[bytes]) -> None:
    async def main() -> None:
        protocol = Careless()
        transport = connect(protocol)
        for portion in portions:
            protocol.data_received(portion)
        await turns()
        for number in (1, 2, 3):
            assert len(protocol.seen) == number
            assert protocol.state is ConnectionState.ACTIVE
            assert transport.paused == (number < 3)
            protocol.resume_writing()
            await turns()
        assert protocol.state is ConnectionState.IDLE
        assert connections_of(asyncio.get_running_loop()).active == 0
        protocol.connection_lost(None)

    run(main)


@pytest.mark.parametrize("way", ["the client goes", "request_timeout", "cancelled"])
def test_a_client_that_reads_nothing_and_ends_is_forgotten(way: str) -> None:
    async def main() -> None:
        protocol = Careless()
        transport = connect(protocol)
        protocol.data_received(GET * 3)
        await turns()
        if way == "the client goes":
            protocol.connection_lost(ConnectionResetError())
        elif way == "request_timeout":
            protocol.expire_request()
        else:
            assert protocol.handler_task is not None
            protocol.handler_task.cancel()
        await turns()
        assert transport.aborted == (way != "the client goes")
        assert protocol.state is ConnectionState.CLOSED
        assert protocol.handler_task is None
        assert len(protocol.seen) == 1
        connections = connections_of(asyncio.get_running_loop())
        assert (connections.active, connections.responses[2]) == (0, 1)

    run(main)


def test_the_end_of_a_wait_for_a_reader_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    test_a_client_that_reads_nothing_and_ends_is_forgotten("the client goes")
    test_a_client_that_reads_nothing_and_ends_is_forgotten("request_timeout")
    assert caplog.text == ""


@pytest.mark.parametrize("length", [True, False])
def test_write_eof_waits_when_the_client_does_not_read(length: bool) -> None:
    steps = []

    class Waiting(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            response = Response(self.writer, 200)
            if length:
                response.add_header("Content-Length", "6")
            response.send_headers()
            response.write(b"first ")
            self.writer.flush()  # now the client has too much to read
            await response.write_eof()
            steps.append("read")

    async def main() -> None:
        protocol = Waiting()
        connect(protocol)
        protocol.data_received(GET)
        await turns()
        assert steps == []
        protocol.resume_writing()
        await turns()
        assert steps == ["read"]
        protocol.connection_lost(None)

    run(main)


def test_drain_writes_above_128_kb_within_a_turn() -> None:
    written: list[int] = []

    class Draining(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            response = Response(self.writer, 200)
            response.add_header("Content-Length", "180000")
            response.send_headers()
            for _ in range(3):
                response.write(b"x" * 60000)
                await response.drain()
                written.append(len(self.transport.output))  # type: ignore[union-attr]  # the fake's

    async def main() -> None:
        result = await converse(Draining(), [GET])
        assert result.replies[0].complete

    run(main)
    assert written[:2] == [0, 0]
    assert written[2] > 180000


def test_a_pause_reaches_the_protocol_that_has_taken_over() -> None:
    class Told(Receiver):
        def pause_writing(self) -> None:
            self.calls.append("pause")

        def resume_writing(self) -> None:
            self.calls.append("resume")

    class Handler(Switching):
        async def handle_request(self, message: Any, payload: Any) -> None:
            await super().handle_request(message, payload)
            self._receiver = self.receiver = Told()

    async def main() -> None:
        result = await converse(Handler(), [HANDSHAKE], close=False)
        result.protocol.pause_writing()
        result.protocol.resume_writing()
        assert result.protocol.receiver.calls == ["pause", "resume"]
        result.protocol.connection_lost(None)

    run(main)


def test_a_pipeline_of_a_real_client_that_does_not_read_is_bounded() -> None:
    paused = asyncio.Event()

    class Large(Careless):
        def pause_writing(self) -> None:
            super().pause_writing()
            paused.set()

        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            self.seen.append((message.method, message.path, b""))
            response = Response(self.writer, 200)
            response.add_header("Content-Length", "1000000")
            response.send_headers()
            response.write(b"x" * 1000000)
            response.write_eof()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocols: list[Large] = []

        def make() -> Large:
            protocols.append(Large())
            return protocols[-1]

        server = await loop.create_server(make, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.sendall(GET * 50)
            async with asyncio.timeout(10):
                await paused.wait()
            taken = len(protocols[0].seen)
            for _ in range(200):  # turns of the loop in which nothing more may be taken
                await asyncio.sleep(0)
            assert len(protocols[0].seen) == taken < 50
            assert protocols[0].writer.unsent() <= 2_000_000
        async with asyncio.timeout(10):
            await connections_of(loop).wait_closed()
        server.close()

    run(main)
