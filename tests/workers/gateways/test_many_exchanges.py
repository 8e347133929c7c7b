"""Many exchanges at a time on one gateway: what a connection of HTTP/2 will ask of it, by wires that are no HTTP/1.1.

Each stream here is the wire and the carrier of one exchange. It keeps no bytes of a head: it takes status and fields
from the response, as what compresses them would. So nothing of a gateway can depend on a connection of HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextvars import Context, ContextVar
from types import SimpleNamespace
from typing import Any

import pytest

from preforkd.workers import HttpVersion11, RequestMessage
from preforkd.workers.gateways.asgi import AsgiGateway
from preforkd.workers.gateways.wsgi import WsgiGateway
from preforkd.workers.http.connections import connections_of
from preforkd.workers.http.done import DONE
from preforkd.workers.http.errors import ClientDisconnectedError
from preforkd.workers.http.exchange import ANSWERED, Exchange, Service
from preforkd.workers.http.limits import DEFAULT_LIMITS
from preforkd.workers.http.payload import EMPTY_PAYLOAD, PayloadStream
from preforkd.workers.http.states import ConnectionState
from preforkd.workers.http.waiter import Deferred

DEADLINE = 10.0
NUMBER = 60


class Stream:
    """One exchange of many: the frames that go out, and the body that comes in."""

    chunks = False
    client_finished = False
    proxy_header = None
    peer_address = ("192.0.2.1", 1234)
    limits = DEFAULT_LIMITS
    logger = logging.getLogger("tests.streams")

    def __init__(self, service: Service, number: int, method: str = "GET", *, has_body: bool = False) -> None:
        self.loop = asyncio.get_running_loop()
        self.service = service
        self.state = ConnectionState.ACTIVE
        self.transport: Any = SimpleNamespace(get_extra_info=lambda name, default=None: default)
        self.response: Any = None
        self.corked = self.due = self.paused = self.is_lost = False
        self.parts: list[bytes] = []
        self.prepared: Any = None
        self.frames: list[Any] = []
        self.readable = asyncio.Event()
        self.readable.set()
        self.over: asyncio.Future[BaseException | None] = self.loop.create_future()
        self.handler_task: asyncio.Task[None] | None = None
        fields = [(b"host", b"a"), (b"x-number", b"%d" % number)]
        request = RequestMessage(method, f"/{number}?n={number}", HttpVersion11, fields, False)
        body = PayloadStream(self, self.loop) if has_body else EMPTY_PAYLOAD
        carrier: Any = self  # as far as it is asked
        self.whole = Exchange(request, body, self, carrier)
        self.exchange: Exchange | None = self.whole

    # What the test does.

    def begin(self) -> None:
        """Have the service answer, in a context and, if it waits, a task of its own."""
        Context().run(self._begin)

    def _begin(self) -> None:
        self.corked = True
        try:
            handling: Any = self.service.serve(self.whole)
        finally:
            self.corked = False
            self.flush()
        if handling is DONE:
            self._end(None)
        elif isinstance(handling, Deferred):
            self.whole.deferred = handling
        else:
            self.handler_task = self.loop.create_task(handling)
            self.handler_task.add_done_callback(lambda task: self._end(task.exception()))

    def lose(self) -> None:
        """The client has reset this one."""
        self.is_lost = True
        self.state = ConnectionState.CLOSED
        self.transport = None
        self.readable.set()
        assert self.whole.observer.client_is_gone()

    async def ended(self) -> BaseException | None:
        return await asyncio.wait_for(self.over, DEADLINE)

    @property
    def head(self) -> tuple[int, list[bytes]]:
        found: tuple[int, list[bytes]] = self.frames[0]
        return found

    @property
    def body(self) -> bytes:
        return b"".join(self.frames[1:])

    def _end(self, error: BaseException | None) -> None:
        self.flush()
        self.exchange = None
        if not self.over.done():
            self.over.set_result(error)

    # As a `Wire`.

    def may_stay_open(self, exchange: Exchange) -> bool:
        return exchange is self.exchange

    def write(self, data: bytes) -> None:
        if self.is_lost:
            raise ClientDisconnectedError("the client is gone")
        self.parts.append(data)
        self.due = True

    def flush(self) -> None:
        self.due = False
        if self.response is not None and self.response.head_is_due:
            self.response.head_is_due = False
            self.frames.append((self.response.sent_status, list(self.response.lines)))
        self.frames += self.parts
        self.parts.clear()

    def flush_soon(self) -> None:
        self.loop.call_soon(self.flush)

    def drain(self) -> Awaitable[None]:
        self.flush()
        return self._drained()

    async def _drained(self) -> None:
        await self.readable.wait()
        if self.is_lost:
            raise ClientDisconnectedError("the client is gone")

    def takes_files(self) -> bool:
        return False

    def send_file(self, response: Any, descriptor: int, offset: int) -> Awaitable[None]:
        raise AssertionError("it takes none")

    # As a `Carrier`.

    def may_have_left(self) -> bool:
        return self.is_lost

    def abandon(self, exchange: Exchange) -> None:
        exchange.is_logged = True

    def detach(self, exchange: Exchange) -> bool:
        self._end(None)
        return True

    def end_deferred(self, exchange: Exchange, error: BaseException | None) -> None:
        exchange.deferred = None
        self._end(error)

    def expire(self, exchange: Exchange) -> None:
        raise AssertionError("nothing takes too long here")

    def tunnel(self, exchange: Exchange) -> Any:
        raise AssertionError("nobody asks for an upgrade here")

    def report_error(self, *args: object, exc: BaseException | None = None) -> None:
        raise AssertionError(args) from exc

    # What a body asks of what it comes by.

    def pause_body(self) -> None:
        """It comes slowly enough."""

    def resume_body(self) -> None:
        """As above."""

    def body_wanted(self) -> None:
        """It comes unasked."""


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main(), 3 * DEADLINE))


NOTE: ContextVar[str] = ContextVar("note")


def test_asgi_apps_read_wait_and_answer_each_on_their_own() -> None:
    async def main() -> None:
        go_on = {number: asyncio.Event() for number in range(NUMBER)}
        notes = {}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            number = int(scope["path"][1:])
            NOTE.set(scope["path"])
            body = b""
            more = True
            while more:
                message = await receive()
                body += message["body"]
                more = message["more_body"]
            await go_on[number].wait()
            notes[number] = NOTE.get()
            headers = [(b"x-number", scope["query_string"])]
            await send({"type": "http.response.start", "status": 210 + number, "headers": headers})
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"."})

        gateway = AsgiGateway(app)
        streams = [Stream(gateway, number, "POST", has_body=True) for number in range(NUMBER)]
        for stream in streams:
            stream.begin()
        for part in range(3):  # interleaved
            for number, stream in enumerate(streams):
                stream.whole.body.feed(b"%d-%d " % (number, part), False)
            await asyncio.sleep(0)
        for stream in streams:
            stream.whole.body.feed_eof()
        assert not any(stream.over.done() for stream in streams), "all of them wait at the same time"
        for number in reversed(range(NUMBER)):
            go_on[number].set()
            assert await streams[number].ended() is None
            assert all(not streams[other].over.done() for other in range(number)), "the others wait on"
        for number, stream in enumerate(streams):
            assert stream.head == (210 + number, [b"x-number: n=%d\r\n" % number]), "and no framing of HTTP/1.1"
            assert stream.body == b"%d-0 %d-1 %d-2 ." % (number, number, number)
            assert notes[number] == f"/{number}", "a context each"

    run(main)


def test_asgi_one_that_does_not_read_and_one_that_leaves_hold_up_nobody() -> None:
    async def main() -> None:
        told = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            try:
                for _ in range(3):
                    await send({"type": "http.response.body", "body": b"part ", "more_body": True})
                await send({"type": "http.response.body"})
            except OSError:
                told.append(scope["path"])

        gateway = AsgiGateway(app)
        streams = [Stream(gateway, number) for number in range(3)]
        slow, gone, good = streams
        slow.readable.clear()
        gone.readable.clear()
        for stream in streams:
            stream.begin()
        assert await good.ended() is None
        assert good.body == b"part part part "
        assert (slow.body, gone.body) == (b"part ", b"part ")
        gone.lose()
        assert await gone.ended() is None
        assert told == ["/1"]
        assert gone.whole.is_logged
        assert not slow.over.done()
        slow.readable.set()
        assert await slow.ended() is None
        assert slow.body == b"part part part "
        assert slow.whole.observer is ANSWERED, "it holds nothing of the app any more"

    run(main)


def test_asgi_an_app_goes_on_behind_its_response_and_its_stream_is_over() -> None:
    async def main() -> None:
        go_on = asyncio.Event()
        done = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})
            await go_on.wait()
            done.append(scope["path"])

        gateway = AsgiGateway(app)
        streams = [Stream(gateway, number) for number in range(NUMBER)]
        for stream in streams:
            stream.begin()
        for stream in streams:
            assert await stream.ended() is None
            assert stream.body == b"ok"
        assert not done
        go_on.set()
        await gateway.finish(asyncio.get_running_loop().time() + DEADLINE)
        assert len(done) == NUMBER

    run(main)


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_wsgi_calls_are_answered_each_on_its_own(threads: int) -> None:
    async def main() -> None:
        def app(environ: Any, start_response: Any) -> Any:
            number = int(environ["PATH_INFO"][1:])
            body = environ["wsgi.input"].read()
            start_response(f"{210 + number} Some", [("X-Number", environ["QUERY_STRING"])])
            return [body, b"."] if number % 2 else iter([body, b"."])

        gateway = WsgiGateway(app, threads)
        await gateway.startup()
        streams = [Stream(gateway, number, "POST", has_body=True) for number in range(NUMBER)]
        for stream in streams:
            stream.begin()
        for part in range(3):
            for number, stream in enumerate(streams):
                stream.whole.body.feed(b"%d-%d " % (number, part), False)
            await asyncio.sleep(0)
        for stream in streams:
            stream.whole.body.feed_eof()
        for number, stream in enumerate(streams):
            assert await stream.ended() is None
            assert stream.head[0] == 210 + number
            assert stream.head[1][0] == b"X-Number: n=%d\r\n" % number
            assert stream.body == b"%d-0 %d-1 %d-2 ." % (number, number, number)
        await gateway.shutdown(DEADLINE)

    run(main)


def test_no_connection_is_needed() -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        stream = Stream(AsgiGateway(app), 1)
        stream.begin()
        assert await stream.ended() is None
        assert stream.frames == [(204, [])]
        assert not len(connections_of(asyncio.get_running_loop()))

    run(main)
