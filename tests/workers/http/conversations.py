"""Conversations of any kind, to be had in both forms: requests, what their handlers do, and what comes of it."""

from __future__ import annotations

import asyncio
import re
from random import Random
from typing import Any

from preforkd.workers import HttpProcessingError, Response, ServerHttpProtocol
from preforkd.workers.edge import Edge
from preforkd.workers.gateways.asgi.gateway import AsgiGateway
from preforkd.workers.gateways.wsgi.gateway import WsgiGateway
from preforkd.workers.http.access_log import AccessLog
from preforkd.workers.http.connections import connections_of
from preforkd.workers.http.payload import PayloadStream
from preforkd.workers.http.queue_time import QueueTime
from preforkd.workers.request_id import RequestIds
from tests.workers.http.responses import running
from tests.workers.http.wire import converse, turns

DEEDS = (
    "answer", "answer", "answer", "wait", "later", "raise", "refuse", "silent", "leave", "parts", "unread", "cancel",
    "close", "drain", "odd", "awaitable", "exit", "half", "lose", "pause",
)  # fmt: skip
"""What a handler does; the path of its request says so."""
HEADS = (
    b"Host: a", b"Host: a", b"Host: a", b"Host: a\r\nConnection: close", b"Host: a\r\nConnection: keep-alive",
    b"Host: a\r\nX-Request-ID: abc", b"Host: a\r\nX-Request-ID: b\r\nX-Request-ID: c",
    b"Host: a\r\nX-Forwarded-For: 192.0.2.9", b"Host: a\r\nExpect: 100-continue", b"Host: a b", b"",
    b"Host: a\r\nUpgrade: x\r\nConnection: upgrade", b"Host: a\r\nContent-Encoding: gzip",
)  # fmt: skip
LINES = (b"GET /%s HTTP/1.1", b"GET /%s HTTP/1.1", b"HEAD /%s HTTP/1.1", b"POST /%s HTTP/1.1", b"PUT /%s?a=b HTTP/1.0")
BODIES = (b"", b"", b"x", b"y" * 300)


def request(random_: Random) -> bytes:
    """Return the bytes of a request, mostly a good one."""
    deed = random_.choice(DEEDS).encode()
    head = random_.choice(LINES) % deed + b"\r\n" + random_.choice(HEADS)
    if not head.startswith((b"GET", b"HEAD")) or random_.random() < 0.1:
        body = random_.choice(BODIES)
        if random_.random() < 0.3:
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
            return head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        return head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    return head + b"\r\n\r\n"


def portions(random_: Random) -> list[bytes]:
    """Return what a client sends, as it arrives."""
    requests = [request(random_) for _ in range(random_.randrange(1, 6))]
    if random_.random() < 0.5:
        return requests
    data = b"".join(requests)
    if random_.random() < 0.2:
        place = random_.randrange(len(data))
        data = data[:place] + random_.randbytes(1) + data[place:]
    cuts = sorted(random_.randrange(len(data) + 1) for _ in range(random_.randrange(4)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


class Handler(ServerHttpProtocol):
    """Does what the path says."""

    async def _answer(self, message: Any, *parts: bytes, keep: bool = True) -> None:
        self.keep_alive(keep)
        response = Response(self.writer, 200, http_version=message.version)
        if len(parts) == 1:
            response.add_header("Content-Length", str(len(parts[0])))
        response.send_headers()
        for part in parts:
            response.write(part)
        await response.write_eof()

    def handle_request(self, message: Any, payload: PayloadStream) -> Any:
        if "awaitable" in message.path:
            future = asyncio.get_running_loop().create_future()
            future.set_result(None)
            return future
        return self._handle(message, payload)

    async def _handle(self, message: Any, payload: PayloadStream) -> None:
        deed = message.path.strip("/").partition("?")[0]
        task = asyncio.current_task()
        assert task is not None
        body = b"" if deed in ("unread", "half") else await payload.read()
        if deed == "wait":
            await asyncio.sleep(0)
        elif deed == "raise":
            raise ValueError("of the handler")
        elif deed == "refuse":
            raise HttpProcessingError(409, "no")
        elif deed in ("silent", "odd"):
            return
        elif deed == "cancel":
            task.cancel()
            await asyncio.sleep(0)
        elif deed == "close":
            self.closing(0)
        elif deed == "drain":
            self.closing(5)
        elif deed == "lose":
            transport: Any = self.transport
            transport.closed = True
            self.connection_lost(None)
        elif deed == "pause":
            self.pause_writing()
            asyncio.get_running_loop().call_soon(self.resume_writing)
        await self._answer(message, *([b"a", body] if deed == "parts" else [b"hello" + body]), keep=deed != "leave")
        if deed == "later":
            await asyncio.sleep(0)
        elif deed == "exit":
            raise ValueError("behind the response")
        elif deed == "half":
            await payload.read()


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Do what the path says."""
    deed = scope["path"].strip("/")
    body = b""
    while deed != "unread":
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if deed == "wait":
        await asyncio.sleep(0)
    elif deed in ("raise", "refuse"):
        raise ValueError("of the app")
    elif deed == "silent":
        return
    elif deed == "cancel":
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
    headers = [(b"content-length", b"%d" % (5 + len(body)))] if deed != "parts" else []
    if deed == "leave":
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": 204 if deed == "odd" else 200, "headers": headers})
    if deed == "half":
        return
    if deed == "parts":
        await send({"type": "http.response.body", "body": b"he", "more_body": True})
    await send({"type": "http.response.body", "body": body if deed == "parts" else b"hello" + body})
    if deed == "later":
        await asyncio.sleep(0)
    elif deed == "exit":
        raise ValueError("behind the response")


def wsgi_app(environ: Any, start_response: Any) -> Any:
    """Do what the path says."""
    deed = environ["PATH_INFO"].strip("/")
    body = environ["wsgi.input"].read() if deed != "unread" else b""
    if deed in ("raise", "refuse"):
        raise ValueError("of the app")
    headers = [("Content-Length", str(5 + len(body)))] if deed != "parts" else []
    if deed == "leave":
        headers.append(("Connection", "close"))
    if deed != "silent":
        start_response("204 No Content" if deed == "odd" else "200 OK", headers)
    if deed == "half":
        return [b"he"]
    if deed == "parts":
        return iter([b"he", b"", body])
    return [b"hello" + body]


KINDS = ("class", "asgi", "wsgi")
_OURS = re.compile(rb"Date: [^\r]*\r\n|(?<=X-Request-ID: )[0-9a-f-]{36}")


class Counted:
    """As `Tally`, but it keeps what it is told, times aside."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, int]] = []
        self.refused: list[int] = []

    def request(self, method: str, status: int, seconds: float) -> None:
        assert 0 <= seconds < 3600
        self.requests.append((method, status))

    def rejected(self, status: int) -> None:
        self.refused.append(status)


class Kept:
    """A way for the access log."""

    whole = 65536

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def has_room(self, size: int) -> bool:
        return True

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass


async def _have(kind: str, said: list[bytes], random_: Random) -> tuple[object, ...]:
    loop = asyncio.get_running_loop()
    unhandled: list[str] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(repr(context.get("exception"))))
    connections = connections_of(loop)
    counted = Counted()
    if random_.random() < 0.5:
        connections.counters = counted  # type: ignore[assignment]  # no more is asked here
    if random_.random() < 0.5:
        trusted = random_.choice((["*"], ["127.0.0.1"]))
        connections.edge = Edge(random_.choice(("none", "x-forwarded")), trusted, RequestIds("X-Request-ID"))
    if random_.random() < 0.1:
        connections.queue_time = QueueTime(loop, 100)
    arguments: dict[str, Any] = {"keep_alive": 75, "keep_alive_requests": random_.choice((0, 0, 0, 1, 2))}
    arguments["allowed_methods"] = random_.choice(((), (), (), ("GET", "POST")))
    logged = Kept()
    if random_.random() < 0.3:
        arguments["access_log"] = AccessLog(logged, random_.choice(("%(r)s %(s)s %(b)s", "%(h)s %(s)s")))
    if kind == "class":
        protocol: Any = Handler(**arguments)
    elif kind == "asgi":
        protocol = AsgiGateway(asgi_app).handler(**arguments)
    else:
        protocol = WsgiGateway(wsgi_app, threads=0).handler(**arguments)
    talk = await converse(protocol, said, eof=random_.random() < 0.3, tls=random_.random() < 0.2, close=False)
    tasks, state = len(asyncio.all_tasks()), protocol.state
    if not talk.transport.closed:
        protocol.connection_lost(None)
        await turns()
    connections.queue_time = None  # it holds the loop, which the table of connections knows weakly
    transport = talk.transport
    return (
        _OURS.sub(b"", talk.output), [len(_OURS.sub(b"", one)) for one in transport.writes], transport.closed,
        transport.aborted, transport.half_closed, state, tasks, len(asyncio.all_tasks()), protocol.state,
        protocol.requests, protocol.persistent, connections.active, counted.requests, counted.refused, unhandled,
        logged.data,
    )  # fmt: skip


def have(form: str, kind: str, said: list[bytes], seed: int) -> tuple[object, ...]:
    """Have a conversation in a form, in circumstances that the seed says; return what has come of it."""
    with running(form), asyncio.Runner() as runner:
        return runner.run(_have(kind, said, Random(seed)))
