"""What a bomb of TLS handshakes costs those who are served: `python -m tests.benchmarks.handshakes`.

One worker serves honest clients, who send requests on connections that they keep, or open one for each. Beside them
come handshakes that never end, each on a connection of its own:

* silent: the connection is opened, and nothing is sent;
* half: half a ClientHello;
* hello: a whole one, which has the server make a key and a signature, and not a word behind it.

The first two are opened at once and held; the third come at the rates that are asked for, or as fast as this machine
makes them. The table shows the 99th percentile of honest requests without a bomb and beside it, in milliseconds, how
many were lost, and the memory that the worker has for itself before and at the end, in MB.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import ssl
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from tests.benchmarks.idle import memory
from tests.benchmarks.servers import KINDS, Server

KEPT = 8
"""Connections of honest clients that were open before, and stay so."""
BOMBER = "127.0.0.2"
"""Where the bomb comes from: no trusted proxy, so that --limit-per-client counts it."""
EVERY = 0.01
"""Seconds between two honest requests."""
LEAVES = 2000
"""A client of the bomb gives up its oldest handshake when it has begun so many."""
REQUEST = b"GET / HTTP/1.1\r\nHost: tests\r\n\r\n"


def client_hello() -> bytes:
    """Return what a client says first: a server cannot tell one that is sent a thousand times from a thousand."""
    hello = ssl.MemoryBIO()
    client = untrusting().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return hello.read()


def untrusting() -> ssl.SSLContext:
    """Return the context of a client that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def opened(port: int, said: bytes) -> socket.socket:
    """Begin a handshake; its end will be a reset, which leaves nothing in the kernel."""
    one = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(BOMBER, 0))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if said:
        one.sendall(said)
    return one


@contextmanager
def held(port: int, number: int, said: bytes) -> Iterator[None]:
    """Hold so many handshakes."""
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(opened(port, said))
        yield


def flood(port: int, rate: float) -> None:
    """Begin handshakes for ever, so many a second; 0: as many as can be."""
    hello = client_hello()
    begun: list[socket.socket] = []
    first = time.monotonic()
    number = 0
    while True:
        for one in begun[: len(begun) - LEAVES]:
            one.close()
        del begun[: max(len(begun) - LEAVES, 0)]
        try:
            begun.append(opened(port, hello))
        except OSError:
            continue
        number += 1
        if rate:
            time.sleep(max(first + number / rate - time.monotonic(), 0))


@contextmanager
def flooded(port: int, rate: float) -> Iterator[None]:
    """Have a process begin handshakes meanwhile."""
    process = multiprocessing.get_context("spawn").Process(target=flood, args=(port, rate), daemon=True)
    process.start()
    try:
        time.sleep(1)  # it imports, and fills what it holds
        yield
    finally:
        process.kill()
        process.join()


@dataclass
class Found:
    """Seconds that honest requests have taken."""

    kept: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)
    lost: int = 0


def p99(of: list[float]) -> float:
    """Return the 99th percentile, milliseconds."""
    return sorted(of)[int(len(of) * 0.99)] * 1000 if of else float("nan")


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request and its answer."""
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))


async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, until: float, found: Found) -> None:
    """Requests on one connection."""
    while (began := time.monotonic()) < until:
        try:
            await asyncio.wait_for(exchange(reader, writer), 20)
            found.kept.append(time.monotonic() - began)
        except (OSError, EOFError, TimeoutError):
            found.lost += 1
            return
        await asyncio.sleep(EVERY * KEPT)
    writer.transport.abort()


async def renew(port: int, until: float, found: Found) -> None:
    """A connection, a handshake and a request, ten times a second."""
    context = untrusting()
    while (began := time.monotonic()) < until:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port, ssl=context), 20)
            await asyncio.wait_for(exchange(reader, writer), 20)
            found.fresh.append(time.monotonic() - began)
            writer.transport.abort()
        except (OSError, EOFError, TimeoutError):
            found.lost += 1
        await asyncio.sleep(0.1)


async def honest(server: Server, seconds: float, bomb: AbstractContextManager[object]) -> tuple[Found, float]:
    """Return how honest clients fare beside a bomb, and the memory of the server then, MB."""
    context = untrusting()
    kept = [await asyncio.open_connection("127.0.0.1", server.port, ssl=context) for _ in range(KEPT)]
    with bomb:
        found, until = Found(), time.monotonic() + seconds
        await asyncio.gather(*(keep(*pair, until, found) for pair in kept), renew(server.port, until, found))
        return found, memory(server) / 1000


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.handshakes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=5, help="of each row (5)")
    parser.add_argument("--held", type=int, default=2000, help="silent and half handshakes that are held (2000)")
    parser.add_argument("--limit-per-client", default="0", help="of the server (0: off)")
    parser.add_argument("--rates", default="200,500,1000,0", help="whole ClientHellos a second; 0: as many as can be")
    arguments = parser.parse_args()
    kind = KINDS["preforkd-asgi"]
    hello = client_hello()
    limit = ("--limit-per-client", arguments.limit_per_client)
    server = Server(kind, "tests.benchmarks.apps.asgi:hello", (*kind.quiet, *(kind.tls or ()), *limit))
    bombs: dict[str, AbstractContextManager[object]] = {
        "none": ExitStack(),
        f"{arguments.held} silent": held(server.port, arguments.held, b""),
        f"{arguments.held} half": held(server.port, arguments.held, hello[: len(hello) // 2]),
    }
    for rate in arguments.rates.split(","):
        title = f"{rate} hellos a second" if float(rate) else "hellos, as many as can be"
        bombs[title] = flooded(server.port, float(rate))
    try:
        asyncio.run(honest(server, 1, ExitStack()))
        print("| bomb | p99 kept | times | p99 with a handshake | times | served | lost | MB before | MB beside |")
        print("|---|---|---|---|---|---|---|---|---|")
        usual: tuple[float, float] | None = None
        for title, bomb in bombs.items():
            before = memory(server) / 1000
            found, beside = asyncio.run(honest(server, arguments.seconds, bomb))
            kept, fresh = p99(found.kept), p99(found.fresh)
            usual = usual or (kept, fresh)
            print(
                f"| {title} | {kept:.1f} | {kept / usual[0]:.1f} | {fresh:.1f} | {fresh / usual[1]:.1f} "
                f"| {len(found.kept) + len(found.fresh)} | {found.lost} | {before:.0f} | {beside:.0f} |",
                flush=True,
            )
    finally:
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
