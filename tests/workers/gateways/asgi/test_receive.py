"""What an ASGI app receives: the body with backpressure, and `http.disconnect` exactly when it is due."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import time
from typing import Any

import pytest

from preforkd.workers.gateways.asgi import AsgiOptions
from preforkd.workers.gateways.streams import Told
from preforkd.workers.http.connections import connections_of
from tests.e2e.client import TruncatedError
from tests.workers.gateways.asgi.serving import Receive, Scope, Send, body, http, serve, start, text

GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"


@text
async def whole(scope: Scope, receive: Receive, send: Send) -> int:
    size = 0
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        size += len(message["body"])
        if not message["more_body"]:
            return size


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
def test_a_body_arrives_whole(size: int, loop: str) -> None:
    with serve(whole, loop=loop) as server, server.connect() as connection:
        for _ in range(2):
            connection.ask(method="POST", body=bytes(size))
            assert connection.answer().text == str(size)
        connection.send(b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            time.sleep(0.01)
            connection.send(b"5\r\nhello\r\n")
        connection.send(b"0\r\n\r\n")
        assert connection.answer().text == "15"
        assert connection.get().text == "0"


def test_a_compressed_body_is_not_touched() -> None:
    data = gzip.compress(b"x" * 1000)

    @text
    async def app(scope: Scope, receive: Receive, send: Send) -> bool:
        return bool((await receive())["body"] == data)

    with serve(app) as server, server.connect() as connection:
        connection.ask(method="POST", body=data, headers=[("Content-Encoding", "gzip")])
        assert connection.answer().text == "True"


def test_an_app_that_does_not_read_stops_the_client() -> None:
    go = asyncio.Event()

    @text
    async def app(scope: Scope, receive: Receive, send: Send) -> int:
        await go.wait()
        size = 0
        while True:
            message = await receive()
            size += len(message["body"])
            if not message["more_body"]:
                return size

    with serve(app) as server, server.connect(timeout=0.3) as connection:
        connection.ask(method="POST", headers=[("Content-Length", "50000000")])
        connection.socket.settimeout(0.3)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 50_000_000:
                sent += connection.socket.send(bytes(65536))
        assert sent < 20_000_000
        server.call(go.set)
        connection.timeout = 10
        connection.send(bytes(50_000_000 - sent))
        assert connection.answer().text == "50000000"


def test_100_continue_is_sent_when_the_app_reads_and_not_before() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/read":
            assert (await receive())["body"] == b"hello"
        await send(start())
        await send(body(b"ok"))

    head = b"Host: t\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    with serve(app) as server:
        with server.connect() as connection:
            connection.send(b"POST /read HTTP/1.1\r\n" + head)
            assert connection.read_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.send(b"hello")
            assert (connection.answer().interim, connection.get().text) == ((100,), "ok")
        with server.connect() as connection:
            connection.send(b"POST / HTTP/1.1\r\n" + head)
            answer = connection.answer()
            assert (answer.interim, answer.text, answer.closes) == ((), "ok", True)


def test_a_body_that_nobody_reads_is_not_the_next_request() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(scope["path"].encode()))

    with serve(app) as server, server.connect() as connection:
        connection.ask("/one", method="POST", body=b"GET /evil HTTP/1.1\r\nHost: t\r\n\r\n" * 10)
        assert connection.answer().text == "/one"
        assert connection.get("/two").text == "/two"


# Disconnects


class Listener:
    """An app that waits for `http.disconnect` and says when it came."""

    def __init__(self, *, answers: bool = False) -> None:
        self.events: list[str] = []
        self.answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        self.events.append((await receive())["type"])
        self.events.append("waits")
        self.events.append((await receive())["type"])
        self.events.append((await receive())["type"])
        if self.answers:
            await send(start())
            await send(body(b"still here"))


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_leaves_is_told_at_once(loop: str, reset: bool) -> None:
    app = Listener()
    with serve(app, loop=loop) as server:
        with server.connect() as connection:
            connection.send(GET)
            server.until(lambda: app.events == ["http.request", "waits"], "the app waits")
            if reset:
                connection.reset()
        server.until(lambda: app.events[2:] == ["http.disconnect"] * 2, "the app is told")
        assert not server.log, "a client that leaves is no error"


def test_nothing_is_told_while_the_client_waits() -> None:
    app = Listener()
    with serve(app) as server, server.connect() as connection:
        connection.send(GET)
        server.until(lambda: len(app.events) == 2, "the app waits")
        time.sleep(0.2)
        assert len(app.events) == 2


@pytest.mark.parametrize("raises", [False, True])
def test_an_app_that_stops_its_stream_when_its_client_leaves_is_at_no_fault(raises: bool) -> None:
    told: list[str] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start())
        await send(body(b"part", more_body=True))
        told.append((await receive())["type"])
        if raises:
            raise ClientDisconnect

    class ClientDisconnect(Exception):  # noqa: N818 -- as Starlette has it
        pass

    with serve(app) as server:
        with server.connect() as connection:
            connection.ask()
            connection.read_some()
        server.until(lambda: not len(connections_of(server.loop)), "the connection is closed")
        assert told == ["http.disconnect"]
        assert not server.log


def test_an_app_that_was_not_told_and_does_not_answer_is_at_fault_though_its_client_has_closed_its_side() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05)

    with serve(app) as server, server.connect() as connection:
        connection.send(GET)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.answer().status == 500
        assert server.log


def test_a_client_that_has_only_closed_its_side_gets_its_answer() -> None:
    with serve(Listener(answers=True)) as server, server.connect() as connection:
        connection.send(GET)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.answer().text == "still here"
        connection.expect_close()


def test_a_client_that_closes_its_side_right_behind_its_request_gets_its_answer() -> None:
    @text
    async def app(scope: Scope, receive: Receive, send: Send) -> list[str]:
        await asyncio.sleep(0.05)
        return [(await receive())["type"], (await receive())["type"]]

    with serve(app) as server, server.connect() as connection:
        connection.send(GET)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.answer().text == repr(["http.request", "http.disconnect"])
        connection.expect_close()


def test_a_complete_response_is_a_disconnect() -> None:
    events: list[str] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        listening = asyncio.ensure_future(listen(receive))
        await asyncio.sleep(0)
        await send(start())
        await send(body(b"part", more_body=True))
        await asyncio.sleep(0.01)
        events.append("still connected" if not listening.done() else "too early")
        await send(body(b"end"))
        await listening

    async def listen(receive: Receive) -> None:
        await receive()
        events.append((await receive())["type"])

    with serve(app) as server, server.connect() as connection:
        assert connection.get().text == "partend"
        assert connection.get().text == "partend"
        server.until(lambda: len(events) == 4, "both are told")
        assert events == ["still connected", "http.disconnect"] * 2


def test_a_reader_of_the_body_is_woken_by_the_end_of_the_response() -> None:
    events: list[str] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reading = asyncio.ensure_future(receive())
        await asyncio.sleep(0.01)
        await send(start())
        await send(body(b"no need"))
        events.append((await reading)["type"])

    with serve(app) as server, server.connect() as connection:
        connection.ask(method="POST", headers=[("Content-Length", "1000")])
        assert connection.answer().text == "no need"
        server.until(lambda: events == ["http.disconnect"], "the reader is woken")


def test_a_body_that_is_cut_is_a_disconnect_and_never_looks_whole() -> None:
    events: list[Any] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            events.append(message["type"] if message["type"] == "http.disconnect" else message["more_body"])
            if message["type"] == "http.disconnect":
                return

    with serve(app) as server:
        with server.connect() as connection:
            connection.ask(method="POST", headers=[("Content-Length", "100")])
            connection.send(b"half")
            server.until(lambda: events == [True], "the first part has come")
        server.until(lambda: events == [True, "http.disconnect"], "the app is told")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_sending_to_a_client_that_is_gone_raises_an_oserror(loop: str) -> None:
    raised: list[BaseException] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            while True:
                await send(body(b"x" * 1000, more_body=True))
                await asyncio.sleep(0.001)
        except OSError as exc:
            raised.append(exc)
            raise

    with serve(app, loop=loop) as server:
        with server.connect() as connection:
            connection.ask()
            connection.read_some()
        server.until(lambda: bool(raised), "the app is told")
        time.sleep(0.05)
        assert not server.log, "a client that leaves is no error"


def test_the_first_message_to_a_client_that_is_gone_raises_too() -> None:
    asked: list[str] = []
    raised: list[BaseException] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append((await receive())["type"])
        assert (await receive())["type"] == "http.disconnect"
        try:
            await send(start())
        except OSError as exc:
            raised.append(exc)
            raise

    with serve(app) as server:
        with server.connect() as connection:
            connection.send(GET)
            server.until(lambda: bool(asked), "the app has begun")
            connection.reset()
        server.until(lambda: bool(raised), "the app is told")
        assert not server.log, "a client that leaves is no error"


def test_a_bug_of_an_app_whose_client_is_gone_is_logged() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        raise LookupError("a bug")

    with serve(app) as server:
        with server.connect() as connection:
            connection.send(GET)
            time.sleep(0.02)
        server.until(lambda: any("LookupError" in line for line in server.log), "it is logged")


# Draining


class Stream:
    """An app that streams until it receives `http.disconnect`; `/later` listens before it begins."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.told = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await receive()
        listening = asyncio.ensure_future(receive())
        if scope["path"] == "/later":
            await self.go.wait()
            assert not listening.done(), "nothing is streamed yet"
        await send(start())
        await send(body(b"tick", more_body=True))
        await listening
        self.told += 1
        await send(body(b"end"))


def streams_begun(server: Any, number: int) -> bool:
    return sum(call.response is not None for call in server.gateway.calls()) == number


@pytest.mark.parametrize("drain_streams", ["all", "auto", "late"])
def test_streams_are_told_of_a_drain_whenever_they_begin(drain_streams: str) -> None:
    app = Stream()
    with (
        serve(app, AsgiOptions(drain_streams=drain_streams)) as server,
        server.connect() as before,
        server.connect() as later,
        server.connect() as after,
    ):
        before.ask()
        later.ask("/later")
        server.until(lambda: streams_begun(server, 1) and len(list(server.gateway.calls())) == 2, "one streams")
        server.call(server.gateway.drain, server.loop.time() + 0.5)
        assert before.answer().text == "tickend"
        after.ask()
        assert after.answer().text == "tickend"
        server.call(app.go.set)
        assert later.answer().text == "tickend"
        assert app.told == 3
        assert server.log == ["told 1 stream that this worker leaves"], "of those that stream then"


def test_streams_of_a_worker_that_serves_on_after_all_are_left_alone() -> None:
    app = Stream()
    with serve(app) as server, server.connect() as first, server.connect() as second:
        server.call(server.gateway.drain, server.loop.time() + 0.01)
        server.until(lambda: server.gateway.streams.told is Told.ALL, "the time has come")
        server.call(server.gateway.drain, server.loop.time() + 0.05)
        server.call(server.gateway.resume)
        server.call(server.gateway.drain, server.loop.time() + 60)
        server.call(server.gateway.resume)
        first.ask()
        server.until(lambda: streams_begun(server, 1), "it streams")
        time.sleep(0.1)  # the time of the drain that was called off
        assert app.told == 0
        server.call(server.gateway.drain, server.loop.time() + 0.05)
        assert first.answer().text == "tickend"
        second.ask()
        assert second.answer().text == "tickend"


@pytest.mark.parametrize("kind", [b"text/plain", b"text/event-stream"])
def test_a_stream_that_is_told_before_anything_was_sent_ends_for_what_it_is(kind: bytes) -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start(200, (b"content-type", kind)))
        assert (await receive())["type"] == "http.disconnect"

    with serve(app, AsgiOptions(drain_streams="all")) as server, server.connect() as connection:
        connection.ask()
        server.until(lambda: streams_begun(server, 1), "it has begun, though nothing can be sent yet")
        server.call(server.gateway.drain, server.loop.time() + 10)
        answer = connection.answer()
        if kind == b"text/plain":
            assert (answer.status, answer.header("Retry-After")) == (503, "1")
        else:
            assert (answer.status, answer.body) == (200, b"")
        assert server.log == ["told 1 stream that this worker leaves"]


def test_an_app_that_does_not_listen_is_told_by_an_error_that_says_why() -> None:
    raised: list[str] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-type", b"text/event-stream")))
        try:
            while True:
                await send(body(b"data: x\n\n", more_body=True))
                await asyncio.sleep(0.005)
        except OSError as exc:
            raised.append(str(exc))
            raise RuntimeError("as apps wrap it") from exc

    with serve(app) as server, server.connect() as connection:
        connection.ask()
        connection.read_some()
        server.call(server.gateway.drain, server.loop.time() + 10)
        assert connection.answer().text.startswith("data: x\n\n")
        assert raised == ["the worker leaves"]
        assert server.log == ["told 1 stream that this worker leaves"]


def test_an_app_that_fails_when_it_is_told_has_failed() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start(200, (b"content-type", b"text/event-stream")))
        await send(body(b"data: x\n\n", more_body=True))
        await receive()
        raise LookupError("a bug")

    with serve(app) as server, server.connect() as connection:
        connection.ask()
        connection.read_some()
        server.call(server.gateway.drain, server.loop.time() + 10)
        with pytest.raises(TruncatedError):
            connection.answer()
        assert any("LookupError" in line for line in server.log)


@pytest.mark.parametrize(
    ("request_bytes", "options", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", {}, 400),
        (
            b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n" + b"x" * 100,
            {"limit_body": 50},
            413,
        ),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nx", {"body_timeout": 0.3}, 408),
    ],
)
@pytest.mark.parametrize("raises", [True, False], ids=["the app raises", "the app returns"])
def test_a_bad_body_is_answered_for_what_it_is(
    request_bytes: bytes, options: dict[str, Any], status: int, raises: bool
) -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                if raises:
                    raise RuntimeError("as frameworks do")
                return

    with serve(app, **options) as server, server.connect() as connection:
        connection.send(request_bytes)
        assert connection.answer().status == status
