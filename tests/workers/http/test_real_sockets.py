"""The class on real loops and sockets: asyncio and uvloop, with and without TLS."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar

import pytest
import uvloop

from preforkd.workers import (
    Response,
    ServerHttpProtocol,
)
from preforkd.workers.http.connections import connections_of
from preforkd.workers.http.errors import ClientDisconnectedError
from tests.workers.http.test_protocol import Hello, HelloKeptBefore
from tests.workers.http.wire import GET

CERTIFICATE = Path(__file__).parent / "localhost.pem"  # made for these tests; it opens nothing


async def ask(port: int, data: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None
    )
    writer.write(data)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


RUNNERS: dict[str, Callable[..., None]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}


@pytest.mark.parametrize("loop", RUNNERS)
@pytest.mark.parametrize("tls", [False, True])
def test_the_class_works_without_the_daemon(loop: str, tls: bool) -> None:
    async def main() -> None:
        context = client = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            client = ssl.create_default_context(cafile=str(CERTIFICATE))
        server = await asyncio.get_running_loop().create_server(
            lambda: Hello(debug=True, keep_alive=75), "127.0.0.1", 0, ssl=context
        )
        async with asyncio.timeout(10):
            answer = await ask(port_of(server), GET, client)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\n<h1>It Works!</h1>")
            server.close()
            await connections_of(asyncio.get_running_loop()).wait_closed()

    RUNNERS[loop](main())


@pytest.mark.parametrize("loop", RUNNERS)
def test_a_client_that_only_half_closes_reads_its_answer(loop: str) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(HelloKeptBefore, "127.0.0.1", 0)
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(GET)
            writer.write_eof()
            assert (await reader.read()).endswith(b"It Works!</h1>")
            writer.close()
            server.close()
            await connections_of(asyncio.get_running_loop()).wait_closed()

    RUNNERS[loop](main())


@pytest.mark.parametrize("loop", RUNNERS)
def test_the_answer_to_a_refused_upload_is_not_destroyed_by_a_reset(loop: str) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Hello(limit_body=10), "127.0.0.1", 0)
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n")
            for _ in range(40):  # as a client that reads only when it has sent everything
                writer.write(b"x" * 100000)
                await writer.drain()
            assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
            writer.close()
            server.close()
            await connections_of(asyncio.get_running_loop()).wait_closed()

    RUNNERS[loop](main())


@pytest.mark.parametrize("loop", RUNNERS)
def test_an_upload_larger_than_the_buffers_streams_with_bounded_memory(loop: str) -> None:
    size = 20 << 20
    most = 0

    class Counting(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            nonlocal most
            total = 0
            async for chunk in payload:
                total += len(chunk)
                most = max(most, len(chunk))
                if total % 7 == 0:
                    await asyncio.sleep(0)
            response = Response(self.writer, 200)
            response.send_headers()
            response.write(str(total).encode())
            await response.write_eof()

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Counting, "127.0.0.1", 0)
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(f"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n".encode())
            for _ in range(size >> 16):
                writer.write(b"x" * 65536)
                await writer.drain()
            assert str(size).encode() in await reader.read()
            writer.close()
            server.close()
            await connections_of(asyncio.get_running_loop()).wait_closed()

    RUNNERS[loop](main())
    assert most <= 65536 + 262144


@pytest.mark.parametrize("loop", RUNNERS)
def test_a_client_that_does_not_read_pauses_the_handler_in_drain(loop: str) -> None:
    class Endless(ServerHttpProtocol):
        written: ClassVar[int] = 0

        async def handle_request(self, message: Any, payload: Any) -> None:
            response = Response(self.writer, 200)
            response.send_headers()
            while True:
                response.write(b"x" * 65536)
                type(self).written += 65536
                await response.drain()

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Endless, "127.0.0.1", 0)
        async with asyncio.timeout(20):
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(server), limit=65536)
            writer.write(GET)
            before = -1
            while before != Endless.written or not before:  # until it stands still
                before = Endless.written
                await asyncio.sleep(0.2)
            assert Endless.written < 32 << 20  # what the kernel's buffers take, and no more
            writer.transport.abort()
            server.close()
            await connections_of(asyncio.get_running_loop()).wait_closed()

    RUNNERS[loop](main())


class Large(ServerHttpProtocol):
    """Answers with more than the buffers of the kernel take."""

    size: ClassVar[int] = 24 << 20

    async def handle_request(self, message: Any, payload: Any) -> None:
        response = Response(self.writer, 200)
        response.add_header("Content-Length", str(self.size))
        response.send_headers()
        for _ in range(self.size >> 16):
            response.write(b"x" * 65536)
            await response.drain()
        await response.write_eof()


@pytest.mark.parametrize("name", RUNNERS)
def test_a_client_that_reads_slowly_but_steadily_gets_its_response(name: str) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Large(write_timeout=0.5), "127.0.0.1", 0)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.connect(("127.0.0.1", port_of(server)))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        with sock, closing(server):
            async with asyncio.timeout(30):
                await loop.sock_sendall(sock, GET)
                received = 0
                for _ in range(50):  # 0.5 MB/s: with megabytes in it a socket does not become writable in time
                    received += len(await loop.sock_recv(sock, 25000))
                    await asyncio.sleep(0.05)
                while data := await loop.sock_recv(sock, 1 << 20):
                    received += len(data)
        assert received > Large.size
        await connections_of(loop).wait_closed()

    RUNNERS[name](main())


@pytest.mark.parametrize("loop", RUNNERS)
def test_a_tls_client_that_does_not_answer_our_close_does_not_hold_up_a_drain(loop: str) -> None:
    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        client = ssl.create_default_context(cafile=str(CERTIFICATE))
        server = await asyncio.get_running_loop().create_server(Hello, "127.0.0.1", 0, ssl=context)
        connections = connections_of(asyncio.get_running_loop())

        def connect() -> ssl.SSLSocket:
            # A socket that nobody reads; the loop's own client would answer.
            return client.wrap_socket(
                socket.create_connection(("127.0.0.1", port_of(server))), server_hostname="localhost"
            )

        async with asyncio.timeout(10):
            with closing(server), await asyncio.to_thread(connect):
                assert len(connections) == 1
                connections.closing(0.1)
                begin = monotonic()
                await connections.wait_closed()
                assert monotonic() - begin < 1.9  # the next look at the deadlines, not the linger after that

    RUNNERS[loop](main())


@pytest.mark.parametrize("name", RUNNERS)
def test_closing_cuts_a_request_at_its_time_and_not_with_the_next_sweep(name: str) -> None:
    class Slow(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            begun.set()
            await asyncio.sleep(0.3)
            response = Response(self.writer, 200)
            response.send_headers()
            await response.write_eof()

    begun = asyncio.Event()

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Slow, "127.0.0.1", 0)
        with closing(server):
            async with asyncio.timeout(10):
                asking = asyncio.ensure_future(ask(port_of(server), GET))
                await begun.wait()
                for connection in connections_of(asyncio.get_running_loop()):
                    connection.closing(timeout=0.05)
                assert await asking == b"", "the handler takes longer than that"

    RUNNERS[name](main())


@pytest.mark.parametrize("name", RUNNERS)
def test_a_response_that_only_the_close_would_end_is_reset_when_it_is_cut(name: str) -> None:
    class Endless(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            response = Response(self.writer, 200, http_version=message.version)
            response.send_headers()
            response.write(b"begun")
            await response.drain()
            await asyncio.Event().wait()

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Endless, "127.0.0.1", 0)
        with closing(server):
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                await reader.readuntil(b"begun")
                connections_of(asyncio.get_running_loop()).closing(0.05)
                with pytest.raises(ConnectionResetError):
                    await reader.read()
                writer.close()

    RUNNERS[name](main())


@pytest.mark.parametrize("loop", RUNNERS)
@pytest.mark.parametrize("size", [100, 100_000])
def test_a_fast_reader_of_an_endless_response_neither_stops_the_loop_nor_is_served_when_it_has_gone(
    loop: str, size: int
) -> None:
    ended = asyncio.Event()
    turns = 0

    class Endless(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            response = Response(self.writer, 200)
            response.send_headers()
            end = monotonic() + 20  # or this test would hang with the loop
            try:
                while monotonic() < end:
                    response.write(bytes(size))
                    await response.drain()
            except (ClientDisconnectedError, asyncio.CancelledError):
                ended.set()
                raise

    def read_for_a_while(port: int) -> None:
        with closing(socket.create_connection(("127.0.0.1", port))) as client:
            client.sendall(GET)
            left = 5_000_000
            while left > 0:
                left -= len(client.recv(1 << 20))

    async def main() -> None:
        nonlocal turns
        server = await asyncio.get_running_loop().create_server(Endless, "127.0.0.1", 0)
        async with asyncio.timeout(60):
            reading = asyncio.ensure_future(asyncio.to_thread(read_for_a_while, port_of(server)))
            while not reading.done():
                turns += 1
                await asyncio.sleep(0)
            await reading
            server.close()
            await connections_of(asyncio.get_running_loop()).wait_closed()
            await ended.wait()

    RUNNERS[loop](main())
    assert turns > 10, "the loop has turned while the client was reading"


@pytest.mark.parametrize("loop", RUNNERS)
def test_a_body_that_the_close_ends_and_that_is_cut_is_seen_as_a_reset(loop: str) -> None:
    class Cut(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            response = Response(self.writer, 200, http_version=message.version)
            response.send_headers()
            response.write(b"begun")
            await response.drain()
            await received.wait()
            if message.path == "/cut":
                raise ValueError("in the middle")
            response.write(b" and done")
            await response.write_eof()

    received = asyncio.Event()

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Cut, "127.0.0.1", 0)
        async with asyncio.timeout(10):
            for path in ("/cut", "/whole"):
                received.clear()
                reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
                writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                assert (await reader.readuntil(b"begun")).endswith(b"\r\n\r\nbegun")
                received.set()
                if path == "/cut":
                    with pytest.raises(ConnectionResetError):
                        await reader.read()
                else:
                    assert await reader.read() == b" and done"
                writer.close()
            await connections_of(asyncio.get_running_loop()).wait_closed()
        server.close()

    RUNNERS[loop](main())


@pytest.mark.parametrize("loop", RUNNERS)
def test_a_client_on_a_unix_socket_has_no_address_in_the_log(
    loop: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "socket")
    log = logging.getLogger("access")
    caplog.set_level(logging.INFO, logger="access")

    async def main() -> None:
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: Hello(access_log=log, access_log_format="%(h)s %(s)s"), path
        )
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(GET)
            await reader.read()
            writer.close()
            await connections_of(asyncio.get_running_loop()).wait_closed()
        server.close()

    RUNNERS[loop](main())
    assert caplog.messages == ["- 200"]
