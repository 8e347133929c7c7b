"""Bodies that an app does not read, or not to their end, in every way that a client may send them.

Each case is one connection: a request with a body, and another one behind it. Where the first response has said
keep-alive the second has to be answered.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

AT_A_TIME = 64
WITHIN = 20.0  # seconds for one case
SECOND = b"GET /second HTTP/1.1\r\nHost: tests\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Case:
    """One way to send a body.

    Attributes:
        size: of the body in bytes.
        chunked: its length is not told before.
        read: bytes of it that the app reads before it answers.
        early: the head of the response goes out before that.
        parts, gap: in how many parts the body is sent, and the seconds between two.
        pipelined: the second request is sent right behind the body, not when the first one has been answered.
        version: of HTTP, of the first request.
    """

    size: int
    chunked: bool
    read: int
    early: bool
    parts: int
    gap: float
    pipelined: bool
    version: str = "1.1"

    def head(self) -> bytes:
        """Of the first request."""
        framing = "Transfer-Encoding: chunked" if self.chunked else f"Content-Length: {self.size}"
        target = f"/{'early' if self.early else ''}?{self.read or ''}"
        return f"POST {target} HTTP/{self.version}\r\nHost: a\r\nConnection: keep-alive\r\n{framing}\r\n\r\n".encode()

    def body(self) -> Iterator[bytes]:
        """Its body, as it is sent."""
        size = -(-self.size // self.parts)
        for start in range(0, self.size, size):
            part = bytes(min(size, self.size - start))
            yield b"%x\r\n%b\r\n" % (len(part), part) if self.chunked else part
        if self.chunked:
            yield b"0\r\n\r\n"


def cases() -> Iterator[Case]:
    """The sweep."""
    sizes = (1, 1000, 65_000, 66_000, 100_000, 300_000, 1_500_000)
    ways = ((1, 0.0), (10, 0.03), (3, 0.5))
    for size, (chunked, version), (parts, gap), read, early, pipelined in itertools.product(
        sizes, ((True, "1.1"), (False, "1.1"), (False, "1.0")), ways, (0, 500), (False, True), (False, True)
    ):
        if version == "1.1" or (not early and not pipelined):
            yield Case(size, chunked, read, early, parts, gap, pipelined, version)
    # A rest that is short enough to be awaited takes longer than a lingering close does.
    yield Case(60_000, False, 0, False, 2, 4.0, False)


async def lost(port: int, case: Case) -> str | None:
    """Try one case; what was wrong, None when nothing was."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sending = asyncio.ensure_future(_send(writer, case))
    try:
        async with asyncio.timeout(WITHIN):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(len(b"answered"))
            if b"\r\nConnection: keep-alive\r\n" not in head:
                return None if b"\r\nConnection: close\r\n" in head else f"{case}: says neither: {head!r}"
            await sending
            if not case.pipelined:
                writer.write(SECOND)
            answer = await reader.read()
            return None if b"200 OK" in answer else f"{case}: the second request got {answer!r}"
    except (OSError, EOFError, TimeoutError) as exc:
        return f"{case}: {exc!r}"
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        writer.transport.abort()


async def _send(writer: asyncio.StreamWriter, case: Case) -> None:
    writer.write(case.head())
    for part in case.body():
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(case.gap)
    if case.pipelined:
        writer.write(SECOND)
    await writer.drain()


async def sweep(port: int) -> list[str]:
    """Try all cases, some at a time; what was wrong."""
    places = asyncio.Semaphore(AT_A_TIME)

    async def one(case: Case) -> str | None:
        async with places:
            return await lost(port, case)

    return [fault for fault in await asyncio.gather(*map(one, cases())) if fault is not None]
