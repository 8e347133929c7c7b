"""Slow clients cost little, harm nobody, and are cut at their limits.

300 dribble a head, 100 a body, 100 do not read; 8 normal clients go on meanwhile. A server of its own, so that its
memory can be looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

LIMIT = 3  # seconds that slow clients are borne
SERVER = (
    f"""
LIMIT = {LIMIT}
"""
    + """
import asyncio, sys
import uvloop
from preforkd.workers import Response, ServerHttpProtocol

class Handler(ServerHttpProtocol):
    async def handle_request(self, message, payload):
        self.keep_alive(True)
        size = 0
        async for part in payload:
            size += len(part)
        response = Response(self.writer, 200, http_version=message.version)
        if message.path == "/large":
            response.send_headers()
            for _ in range(2000):
                response.write(bytes(65536))
                await response.drain()
        else:
            response.add_header("Content-Length", "2")
            response.send_headers()
            response.write(b"ok")
        await response.write_eof()

async def main():
    limits = dict(timeout=LIMIT, body_timeout=LIMIT, write_timeout=LIMIT, keep_alive=30)
    server = await asyncio.get_running_loop().create_server(lambda: Handler(**limits), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

uvloop.run(main())
"""
)


@pytest.fixture
def server() -> Iterator[tuple[int, psutil.Process]]:
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def dribble(port: int, begin: bytes, byte: bytes) -> tuple[bytes, float]:
    """Send a byte now and then until the server has had enough; return its answer and how long that took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    begun = time.monotonic()
    writer.write(begin)
    answer = asyncio.ensure_future(reader.read())
    while not answer.done():
        await asyncio.wait([answer], timeout=0.4)
        with contextlib.suppress(ConnectionError):
            writer.write(byte)
            await writer.drain()
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        return answer.result(), time.monotonic() - begun
    return b"", time.monotonic() - begun


async def not_read(port: int) -> float:
    """Ask for much and read none of it; return how long the server bore it."""
    loop = asyncio.get_running_loop()
    gone = loop.create_future()

    class Deaf(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            if not gone.done():
                gone.set_result(None)

    transport, _ = await loop.create_connection(Deaf, "127.0.0.1", port)
    transport.pause_reading()  # not in connection_made(), behind which Python 3.11 begins to read
    transport.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    begun = time.monotonic()
    while not gone.done():
        await asyncio.wait([gone], timeout=0.4)
        transport.write(b"\r\n")  # a paused socket does not see the end of the connection, a write does
        if time.monotonic() - begun > 15:
            break
    transport.abort()
    return time.monotonic() - begun


async def normal(port: int, until: asyncio.Event) -> list[tuple[float, float]]:
    """Ask again and again on one connection; return when each answer came and how long it took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    times = []
    while not until.is_set():
        begun = time.monotonic()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(2) == b"ok"
        times.append((time.monotonic(), time.monotonic() - begun))
        await asyncio.sleep(0.02)
    writer.close()
    return times


def test_slow_clients_are_cut_and_harm_nobody(server: tuple[int, psutil.Process]) -> None:
    port, process = server
    body = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"

    async def main() -> None:
        done = asyncio.Event()
        good = [asyncio.ensure_future(normal(port, done)) for _ in range(8)]
        await asyncio.sleep(1)
        calm_until = time.monotonic()
        before = process.memory_info().rss
        cpu = sum(process.cpu_times()[:2])
        async with asyncio.timeout(40):
            slow = asyncio.gather(
                asyncio.gather(*(dribble(port, b"GET / HTTP/1.1\r\nHost: ", b"a") for _ in range(300))),
                asyncio.gather(*(dribble(port, body, b"x") for _ in range(100))),
                asyncio.gather(*(not_read(port) for _ in range(100))),
            )
            most = 0
            while not slow.done():
                await asyncio.wait([slow], timeout=0.25)
                most = max(most, process.memory_info().rss)
            heads, bodies, deaf = await slow
            done.set()
            slow_until = time.monotonic()
            spent = sum(process.cpu_times()[:2]) - cpu
            answers = [answer for client in await asyncio.gather(*good) for answer in client]
        for answer, seconds in (*heads, *bodies):
            assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
            # By the client's clock, which starts when it has its turn among 500: not long before the server's limit.
            assert LIMIT - 1 < seconds < LIMIT + 5
        assert sum(answer != b"" for answer, _ in heads) == 300
        assert sum(answer != b"" for answer, _ in bodies) == 100
        assert min(deaf) > LIMIT - 1
        assert max(deaf) < 4 * LIMIT
        assert most - before < 60 << 20  # 500 connections, 100 of them with full buffers for writing
        # By the CPU time of the server, and by what a slow one is borne for: the machine may be busy otherwise.
        assert spent < (slow_until - calm_until) / 2
        times = sorted(seconds for when, seconds in answers if calm_until < when <= slow_until)
        assert times[len(times) * 99 // 100] < LIMIT - 1, "nobody waits for them"

    asyncio.run(main())
