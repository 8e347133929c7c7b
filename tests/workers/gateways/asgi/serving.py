"""An ASGI app served in a thread of the test, for clients that block."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import uvloop

from preforkd.workers.gateways.asgi import AsgiGateway, AsgiOptions
from preforkd.workers.http.connections import Connections, connections_of
from preforkd.workers.http.protocol import ServerHttpProtocol
from tests.e2e.client import Answer, Connection

T = TypeVar("T")
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
DEADLINE = 10.0


class Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f" [{record.exc_info[1]!r}]"
        self.lines.append(text)


class Served:
    """A running server.

    Attributes:
        gateway, port, loop, connections: of the server.
        log: the lines that the server has logged.
    """

    def __init__(self, gateway: Any, loop: asyncio.AbstractEventLoop, port: int, records: Records) -> None:
        self.gateway = gateway
        self.loop = loop
        self.port = port
        self._records = records

    @property
    def log(self) -> list[str]:
        return self._records.lines

    @property
    def connections(self) -> Connections:
        return self.run(self._connections())

    @property
    def protocol(self) -> ServerHttpProtocol:
        """The server's side of the only connection."""
        (one,) = self.connections
        assert isinstance(one, ServerHttpProtocol)
        return one

    async def _connections(self) -> Connections:
        return connections_of(self.loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on the server's loop."""

        async def work() -> T:
            return function(*args)

        return self.run(work())

    def connect(self, timeout: float = DEADLINE) -> Connection:
        return Connection(self.port, timeout=timeout)

    def get(self, path: str = "/", **request: Any) -> Answer:
        with self.connect() as connection:
            return connection.get(path, **request)

    def until(self, look: Callable[[], bool], what: str) -> None:
        """Wait until something is true, looked at on the server's loop."""

        async def wait() -> None:
            async with asyncio.timeout(DEADLINE):
                while not look():  # noqa: ASYNC110 -- anything may be looked at, with nothing to announce it
                    await asyncio.sleep(0.002)

        try:
            self.run(wait())
        except TimeoutError:
            raise AssertionError(f"never happened: {what}") from None


LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@contextmanager
def serve(
    app: App,
    options: AsgiOptions | None = None,
    *,
    loop: str = "uvloop",
    ssl: Any = None,
    path: str = "",
    **arguments: Any,
) -> Iterator[Served]:
    """Serve an app for the duration of a `with` block.

    Args:
        app: the application.
        options: of the gateway.
        loop: "uvloop" or "asyncio".
        ssl: a context for TLS.
        path: of a unix socket to serve on instead of a port.
        arguments: for the protocol.
    """
    with serve_gateway(
        lambda logger: AsgiGateway(app, options, logger), loop=loop, ssl=ssl, path=path, **arguments
    ) as served:
        yield served


@contextmanager
def serve_gateway(
    make: Callable[[logging.Logger], Any],
    *,
    loop: str = "uvloop",
    ssl: Any = None,
    path: str = "",
    **arguments: Any,
) -> Iterator[Served]:
    """As `serve`, for any gateway.

    Args:
        make: makes the gateway, given the logger of the server.
        loop, ssl, path, arguments: as for `serve`.
    """
    records = Records()
    logger = logging.Logger("served", logging.INFO)
    logger.addHandler(records)
    ready: Future[tuple[Any, asyncio.AbstractEventLoop, int, asyncio.Event]] = Future()

    async def main() -> None:
        gateway = make(logger)
        running = asyncio.get_running_loop()
        running.set_exception_handler(lambda _, context: records.lines.append(f"LOOP: {context}"))
        try:
            await gateway.startup()

            def protocol() -> asyncio.Protocol:
                handler: asyncio.Protocol = gateway.handler(logger=logger, **arguments)
                return handler

            if path:
                server: Any = await running.create_unix_server(protocol, path, ssl=ssl)
                port = 0
            else:
                server = await running.create_server(protocol, "127.0.0.1", 0, ssl=ssl)
                port = server.sockets[0].getsockname()[1]
        except BaseException as exc:  # noqa: BLE001 -- raised again in the test's thread
            ready.set_exception(exc)
            return
        stop = asyncio.Event()
        ready.set_result((gateway, running, port, stop))
        await stop.wait()
        server.close()
        connections_of(running).closing(0.0)
        for connection in list(connections_of(running)):
            connection.abort()
        async with asyncio.timeout(DEADLINE):
            await connections_of(running).wait_closed()
        await gateway.finish(running.time() + 1.0)
        await gateway.shutdown(1.0)

    def run() -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(main())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    gateway, running, port, stop = ready.result(DEADLINE)
    try:
        yield Served(gateway, running, port, records)
    finally:
        running.call_soon_threadsafe(stop.set)
        thread.join(DEADLINE)
        assert not thread.is_alive(), "the server does not end"
        leaks = [line for line in records.lines if line.startswith("LOOP: ")]
        assert not leaks, leaks


def start(status: int = 200, *headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    """The message `http.response.start`."""
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(data: bytes = b"", more_body: bool = False) -> dict[str, Any]:
    """The message `http.response.body`."""
    return {"type": "http.response.body", "body": data, "more_body": more_body}


def text(app: Callable[[Scope, Receive, Send], Awaitable[Any]]) -> App:
    """Make an application of a function that returns the text of its answer."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan here")
        said = await app(scope, receive, send)
        data = said if isinstance(said, bytes) else repr(said).encode()
        await send(start(200, (b"content-type", b"text/plain")))
        await send(body(data))

    return application


def http(app: App) -> App:
    """Make an application of a function for requests: it has no lifespan."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] != "lifespan", "no lifespan here"
        await app(scope, receive, send)

    return application
