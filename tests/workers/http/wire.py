"""A connection without a network: bytes in, bytes out, on a real event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from multidict import CIMultiDict

from preforkd.workers import RequestMessage, Response, ServerHttpProtocol
from preforkd.workers.http.payload import PayloadStream

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class FakeTransport(asyncio.Transport):
    """Records what is done to it; the connection is lost in the turn after it was closed, as with a real one."""

    def __init__(self, protocol: asyncio.Protocol, extra: dict[str, Any] | None = None, tls: bool = False) -> None:
        super().__init__(extra or {"peername": ("192.0.2.1", 1234)})
        self.protocol = protocol
        self.output = bytearray()
        self.writes: list[bytes] = []
        self.half_closed = self.closed = self.aborted = self.paused = False
        self.unsent = 0
        self.tls = tls
        self.lost = asyncio.Event()
        """The protocol has been told that the connection is gone."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.half_closed, "written after write_eof()"
        self.writes.append(bytes(data))
        self.output += data

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return not self.tls

    def write_eof(self) -> None:
        assert not self.tls
        self.half_closed = True

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._lose)

    def _lose(self) -> None:
        self.protocol.connection_lost(None)
        self.lost.set()

    def abort(self) -> None:
        self.aborted = True
        self.close()


@contextmanager
def on_a_socket(protocol: asyncio.Protocol) -> Iterator[tuple[FakeTransport, socket.socket, socket.socket]]:
    """Connect a protocol to a transport that has a socket; gives the transport, its socket and the client's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = FakeTransport(protocol, extra={"socket": ours})
        protocol.connection_made(transport)
        yield transport, ours, theirs


@dataclass
class Reply:
    """One response as a strict client sees it."""

    status: int
    reason: str
    headers: CIMultiDict[str]
    body: bytes
    complete: bool


def parse_replies(output: bytes, methods: Sequence[str] = ()) -> list[Reply]:
    """Read the responses in `output` by the rules of RFC 9112 section 6.3; anything else fails the test."""
    replies = []
    final = 0
    while output:
        head, separator, output = output.partition(b"\r\n\r\n")
        assert separator, f"no complete head: {head!r}"
        line, *fields = head.split(b"\r\n")
        version, status, reason = line.decode("latin-1").split(" ", 2)
        assert version == "HTTP/1.1"
        headers: CIMultiDict[str] = CIMultiDict()
        for text in fields:
            name, colon, value = text.decode("utf-8").partition(": ")
            assert colon, text
            headers.add(name, value)
        code = int(status)
        method = methods[final] if final < len(methods) else "GET"
        body, complete = b"", True
        if code < 200 or code in (204, 304) or method == "HEAD":
            pass
        elif headers.get("Transfer-Encoding") == "chunked":
            assert "Content-Length" not in headers
            body, output, complete = _chunked(output)
        elif "Content-Length" in headers:
            length = int(headers["Content-Length"])
            body, output, complete = output[:length], output[length:], len(output) >= length
        else:
            body, output = output, b""
        final += code >= 200
        replies.append(Reply(code, reason, headers, body, complete))
    return replies


def _chunked(data: bytes) -> tuple[bytes, bytes, bool]:
    body = b""
    while True:
        size, separator, rest = data.partition(b"\r\n")
        if not separator:
            return body, b"", False
        length = int(size, 16)
        body += rest[:length]
        if len(rest) < length + 2:
            return body, b"", False
        assert rest[length : length + 2] == b"\r\n"
        data = rest[length + 2 :]
        if length == 0:
            return body, data, True


@dataclass
class Talk:
    """What came of a conversation."""

    protocol: Any
    transport: FakeTransport
    seen: list[tuple[str, str, bytes | str]] = field(default_factory=list)

    @property
    def output(self) -> bytes:
        return bytes(self.transport.output)

    @property
    def replies(self) -> list[Reply]:
        return parse_replies(self.output, [method for method, _, _ in self.seen])

    @property
    def statuses(self) -> list[int]:
        return [reply.status for reply in self.replies]

    @property
    def ended(self) -> bool:
        """Whether the server will send no more."""
        return self.transport.closed or self.transport.half_closed


class Echo(ServerHttpProtocol):
    """Keeps the connection alive, reads the body, answers with what it has seen."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.seen: list[tuple[str, str, bytes | str]] = []
        self.messages: list[RequestMessage] = []

    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:
        self.keep_alive(True)
        self.messages.append(message)
        entry = len(self.seen)
        self.seen.append((message.method, message.path, "unread"))
        try:
            body = await payload.read()
        except Exception as exc:
            self.seen[entry] = (message.method, message.path, type(exc).__name__)
            raise
        self.seen[entry] = (message.method, message.path, body)
        text = f"{message.method} {message.path} {len(body)}".encode()
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Length", str(len(text)))
        response.send_headers()
        response.write(text)
        await response.write_eof()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


async def turns(number: int = 12) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def converse(
    protocol: Any, portions: Sequence[bytes], eof: bool = False, tls: bool = False, close: bool = True
) -> Talk:
    """Feed `portions` as a transport does: not while reading is paused, not after the close."""
    transport = FakeTransport(protocol, tls=tls)
    protocol.connection_made(transport)
    waiting = list(portions)
    idle = 0
    while waiting and not transport.closed and idle < 50:
        if transport.paused:
            idle += 1
            await asyncio.sleep(0)
            continue
        idle = 0
        asyncio.get_running_loop().call_soon(protocol.data_received, waiting.pop(0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await turns()
    if eof and not transport.closed:
        if not protocol.eof_received():
            transport.close()
        await turns()
    talk = Talk(protocol, transport, getattr(protocol, "seen", []))
    if close and not transport.closed:
        state = protocol.state
        protocol.connection_lost(None)
        await turns()
        talk.final_state = state  # type: ignore[attr-defined]  # for the tests that look
    return talk


def talk(
    *portions: bytes, handler: Callable[..., Any] = Echo, eof: bool = False, tls: bool = False, **arguments: Any
) -> Talk:
    """Have a conversation on a loop of its own."""

    async def main() -> Talk:
        return await converse(handler(**arguments), portions, eof=eof, tls=tls)

    return asyncio.run(main())


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


# The three ways to feed a request; each gives portions and the number of good requests that were put before it.
WAYS: dict[str, Callable[[bytes], tuple[list[bytes], int]]] = {
    "whole": lambda data: ([data], 0),
    "byte by byte": lambda data: (byte_by_byte(data), 0),
    "pipelined": lambda data: ([GET + data], 1),
    "pipelined byte by byte": lambda data: (byte_by_byte(GET + data), 1),
}


def feed(way: str, data: bytes, **arguments: object) -> tuple[Talk, int]:
    portions, before = WAYS[way](data)
    return talk(*portions, **arguments), before  # type: ignore[arg-type]  # keyword arguments of several kinds


def assert_refused(way: str, data: bytes, status: int, **arguments: object) -> None:
    """One answer with this status, nothing of the request reaches the handler, nothing behind it is answered."""
    result, before = feed(way, data + GET, **arguments)
    assert result.statuses == [200] * before + [status]
    assert len(result.seen) == before
    assert result.ended
    assert "Date" in result.replies[-1].headers
    assert result.replies[-1].headers["Connection"] == "close"


def assert_served(way: str, data: bytes, *seen: tuple[str, str, bytes], **arguments: object) -> Talk:
    result, before = feed(way, data, **arguments)
    assert result.seen[before:] == list(seen)
    assert result.statuses == [200] * (before + len(seen))
    return result
