"""What an ASGI app sends becomes one correct response, whatever it sends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from preforkd.workers.gateways.asgi import response as asgi_response
from preforkd.workers.gateways.hop_by_hop import HopByHopFields
from preforkd.workers.http.errors import ClientDisconnectedError
from tests.e2e.client import MalformedError, NoAnswerError, TruncatedError
from tests.workers.gateways.asgi.serving import App, Receive, Scope, Send, body, http, serve, start


def sends(*messages: dict[str, Any]) -> App:
    """An app that sends these messages."""

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def raw(app: App, request: bytes = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", **options: Any) -> bytes:
    """All bytes of the answer to one request."""
    with serve(app, **options) as server, server.connect() as connection:
        connection.send(request)
        parts = []
        while part := connection.socket.recv(65536):
            parts.append(part)
        return b"".join(parts)


def test_a_complete_response_without_length_gets_one() -> None:
    with serve(sends(start(), body(b"hello"))) as server:
        answer = server.get()
        assert (answer.text, answer.header("Content-Length"), answer.closes) == ("hello", "5", False)


def test_a_stream_is_chunked_for_1_1_and_ends_with_the_connection_for_1_0() -> None:
    app = sends(start(), body(b"a", more_body=True), body(b"", more_body=True), body(b"bc", more_body=True), body())
    answer = raw(app)
    assert b"Transfer-Encoding: chunked" in answer
    assert answer.endswith(b"\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")
    old = raw(app, b"GET / HTTP/1.0\r\n\r\n")
    assert old.endswith(b"\r\n\r\nabc")
    assert b"chunked" not in old


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_many_requests_on_one_connection(loop: str) -> None:
    with (
        serve(sends(start(201, (b"x-a", b"b")), body(b"x" * 100)), loop=loop) as server,
        server.connect() as connection,
    ):
        for _ in range(20):
            answer = connection.get()
            assert (answer.status, answer.header("x-a"), len(answer.body)) == (201, "b", 100)


def test_pipelined_requests_are_answered_in_order() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.002 if scope["path"] == "/0" else 0)
        await send(start())
        await send(body(scope["path"].encode()))

    with serve(app) as server, server.connect() as connection:
        connection.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: t\r\n\r\n" % number for number in range(10)))
        assert [connection.answer().text for _ in range(10)] == [f"/{number}" for number in range(10)]


def test_header_values_go_out_byte_for_byte() -> None:
    answer = raw(
        sends(start(200, (b"x-latin", b"caf\xe9"), (b"x-utf8", "é".encode()), (b"X-Case", b"Kept")), body(b""))
    )
    assert b"x-latin: caf\xe9\r\n" in answer
    assert b"x-utf8: \xc3\xa9\r\n" in answer
    assert b"X-Case: Kept\r\n" in answer


def test_headers_may_be_lists_and_may_be_left_out() -> None:
    assert b"x-a: 1\r\n" in raw(
        sends({"type": "http.response.start", "status": 200, "headers": [[b"x-a", b"1"]]}, body())
    )
    assert raw(sends({"type": "http.response.start", "status": 200}, {"type": "http.response.body"})).startswith(
        b"HTTP/1.1 200 OK\r\n"
    )


def test_headers_may_be_an_iterator() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": iter([(b"x-a", b"1")])})
        await send(body())

    assert b"x-a: 1\r\n" in raw(app)


def test_an_apps_date_and_server_replace_ours() -> None:
    answer = raw(sends(start(200, (b"date", b"never"), (b"server", b"mine")), body()))
    assert answer.lower().count(b"date:") == answer.lower().count(b"server:") == 1


def test_a_transfer_encoding_of_the_app_is_ignored() -> None:
    with serve(sends(start(200, (b"transfer-encoding", b"gzip"), (b"content-length", b"2")), body(b"ok"))) as server:
        answer = server.get()
        assert (answer.text, answer.header("Transfer-Encoding")) == ("ok", None)


def test_a_426_says_what_to_upgrade_to_and_no_other_response_does() -> None:
    fields = ((b"upgrade", b"h2c"), (b"content-length", b"2"))
    for status, said in ((426, "h2c"), (200, None)):
        with serve(sends(start(status, *fields), body(b"ok"))) as server:
            assert server.get().header("Upgrade") == said


def test_an_apps_connection_close_is_kept_to() -> None:
    with serve(sends(start(200, (b"connection", b"close")), body(b"ok"))) as server, server.connect() as connection:
        assert connection.get().closes
        connection.expect_close()


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("headers", [(), ((b"content-length", b"5"),)])
def test_no_body_with_204_and_304(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    app = sends(start(status, *headers), body(b"hel", more_body=True), body(b"lo"))
    with serve(app) as server, server.connect() as connection:
        for _ in range(2):
            answer = connection.get()
            assert (answer.status, answer.body, answer.header("Transfer-Encoding")) == (status, b"", None)
            assert answer.header("Content-Length") in ((None,) if status == 204 or not headers else ("5",))


@pytest.mark.parametrize("headers", [(), ((b"content-length", b"5"),)])
def test_no_body_for_head(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    with serve(sends(start(200, *headers), body(b"hello"))) as server, server.connect() as connection:
        for _ in range(2):
            connection.ask(method="HEAD")
            answer = connection.answer(to="HEAD")
            assert (answer.status, answer.header("Content-Length")) == (200, "5" if headers else None)
        assert connection.get().text == "hello"


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("leaves", ["by closing its side", "at once"])
def test_a_stream_for_head_ends_with_its_client_and_keeps_nobody_waiting(leaves: str, loop: str) -> None:
    ended: list[BaseException] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            while scope["path"] == "/stream":
                await send(body(b"part", more_body=True))  # waits for nothing else
        except BaseException as exc:
            ended.append(exc)
            raise
        await send(body(b"other"))

    with serve(app, loop=loop) as server:
        with server.connect() as connection:
            connection.ask("/stream", method="HEAD")
            assert connection.answer(to="HEAD").status == 200
            assert server.get("/other").text == "other"
            if leaves == "by closing its side":
                connection.socket.shutdown(socket.SHUT_WR)
                server.until(lambda: bool(ended), "the app is told")
        server.until(lambda: bool(ended), "the app is told")
        assert isinstance(ended[0], OSError)
        assert not server.log, "a client that leaves is no error"


def test_a_short_stream_for_head_ends_well_though_the_client_has_closed_its_side() -> None:
    done: list[str] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05)
        await send(start())
        await send(body(b"all", more_body=True))
        await send(body())
        done.append("background task")

    with serve(app) as server, server.connect() as connection:
        connection.ask(method="HEAD")
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.answer(to="HEAD").status == 200
        server.until(lambda: done == ["background task"], "it goes on")
        assert not server.log


@pytest.mark.parametrize("status", [0, 99, 100, 101, 103, 199, 1000, "200", None, 200.0])
def test_an_impossible_status_is_the_apps_error(status: Any) -> None:
    with serve(sends({"type": "http.response.start", "status": status}, body())) as server:
        assert server.get().status == 500
        assert any("status" in line for line in server.log)


@pytest.mark.parametrize(
    "pair",
    [
        (b"x-a", b"1\r\nx-evil: 1"), (b"x-a", b"1\n"), (b"x-a", b"\x00"), (b"x a", b"1"), (b"", b"1"),
        (b"x-a\r\n", b"1"),
        (b"x\xe9", b"\xe9"), (b"x-a", b"\xe9\n"), ("x-a", "1"), (b"x-a", "1"), (bytearray(b"x-a"), b"1"), (b"x-a", 5),
        (b"content-length", b"-1"), (b"content-length", b"1_0"), (b"content-length", b"5, 5"),
    ],
)  # fmt: skip
def test_a_header_that_would_break_the_response_is_the_apps_error(pair: Any) -> None:
    with serve(sends(start(200, (b"x-ok", b"1"), pair), body(b"hello"))) as server:
        for _ in range(2):  # the second time it could come from a memory of known fields
            answer = server.get()
            assert (answer.status, answer.header("x-evil"), answer.header("x-ok")) == (500, None, None)


ORDERS: list[tuple[str, list[dict[str, Any]]]] = [
    ("body first", [body(b"x")]),
    ("trailers first", [{"type": "http.response.trailers", "headers": []}]),
    ("unknown", [{"type": "http.response.what"}]),
    ("start twice", [start(), start()]),
    ("trailers not announced", [start(), {"type": "http.response.trailers", "headers": []}]),
    ("websocket", [{"type": "websocket.accept"}]),
]


@pytest.mark.parametrize("messages", [order for _, order in ORDERS], ids=[name for name, _ in ORDERS])
def test_a_message_out_of_order_is_raised_into_the_app_and_answered_500(messages: list[dict[str, Any]]) -> None:
    raised: list[BaseException] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            for message in messages:
                await send(message)
        except RuntimeError as exc:
            raised.append(exc)
            raise

    with serve(app) as server:
        assert server.get().status == 500
    assert "expected was" in str(raised[0])


def test_an_app_that_catches_its_error_may_go_on() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(RuntimeError):
            await send(body(b"too early"))
        await send(start())
        with pytest.raises(RuntimeError):
            await send(start())
        await send(body(b"fine", more_body=True))
        with pytest.raises(TypeError):
            await send(body("text"))  # type: ignore[arg-type]  # that is the point
        await send(body(b"!"))
        for late in (start(), body(b"late")):
            with pytest.raises(RuntimeError):
                await send(late)

    with serve(app) as server, server.connect() as connection:
        assert connection.get().text == "fine!"
        assert connection.get().text == "fine!"
        assert not server.log


def test_more_than_content_length_is_cut_and_the_apps_error() -> None:
    app = sends(start(200, (b"content-length", b"5")), body(b"hel", more_body=True), body(b"lo, you"))
    with serve(app) as server, server.connect() as connection:
        assert connection.get().text == "hello"
        connection.expect_close()
        assert "Content-Length" in server.log[0]


def test_a_stream_of_less_than_content_length_is_seen_by_the_client() -> None:
    app = sends(start(200, (b"content-length", b"9")), body(b"hello", more_body=True), body())
    with serve(app) as server, pytest.raises(TruncatedError):
        server.get()


@pytest.mark.parametrize("length", [b"0", b"4", b"6"])
@pytest.mark.parametrize("waits", [False, True])
def test_a_body_in_one_part_that_is_not_of_content_length_is_500_with_nothing_of_it_sent(
    length: bytes, waits: bool
) -> None:
    raised: list[BaseException] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", length), (b"x-a", b"b")))
        if waits:
            await asyncio.sleep(0)
        try:
            await send(body(b"hello"))
        except RuntimeError as exc:
            raised.append(exc)
            raise

    with serve(app) as server:
        answer = server.get()
        assert (answer.status, answer.header("x-a")) == (500, None)
        assert "Content-Length" in str(raised[0])
        with server.connect() as connection:
            connection.ask(method="HEAD")
            answer = connection.answer(to="HEAD")
            assert (answer.status, answer.header("Content-Length")) == (200, length.decode()), "HEAD has no body"


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("more_body", [False, True])
@pytest.mark.parametrize("length", [(), ((b"content-length", b"4"),)])
@pytest.mark.parametrize("wrong", ["text", "", None, 4, [116]], ids=lambda wrong: type(wrong).__name__)
def test_a_body_of_a_wrong_type_is_500_with_nothing_of_it_sent(
    wrong: Any, length: Any, more_body: bool, waits: bool
) -> None:
    raised: list[BaseException] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, *length, (b"x-a", b"b")))
        if waits:
            await asyncio.sleep(0)
        try:
            await send(body(wrong, more_body))
        except TypeError as exc:
            raised.append(exc)
            raise

    with serve(app) as server:
        answer = server.get()
        assert (answer.status, answer.header("x-a")) == (500, None)
        assert "must be bytes, not " in str(raised[0])


@pytest.mark.parametrize("length", [(), ((b"content-length", b"4"),)])
@pytest.mark.parametrize("right", [bytearray(b"data"), memoryview(b"data"), b"data"])
def test_whatever_holds_bytes_is_a_body(right: Any, length: Any) -> None:
    with serve(sends(start(200, *length), body(right))) as server, server.connect() as connection:
        for _ in range(2):
            answer = connection.get()
            assert (answer.status, answer.text, answer.header("Content-Length")) == (200, "data", "4")


def test_an_app_that_raises_before_its_response_is_answered_500() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/started":
            await send(start(200, (b"x-a", b"b")))
        raise LookupError("a bug")

    with serve(app) as server:
        for path in ("/", "/started"):
            answer = server.get(path)
            assert (answer.status, answer.closes, answer.header("x-a")) == (500, True, None)
            assert "a bug" not in answer.text, "not for strangers"
        assert [line for line in server.log if "LookupError" in line]


def test_an_app_that_raises_in_the_middle_is_seen_cut() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"half", more_body=True))
        raise LookupError("a bug")

    with serve(app) as server:
        with pytest.raises(TruncatedError):
            server.get()
        assert [line for line in server.log if "LookupError" in line]
    answer = raw(app)
    assert answer.endswith(b"4\r\nhalf\r\n"), "no last chunk"


@pytest.mark.parametrize("path", ["/at-once", "/later"])
def test_an_app_that_raises_behind_its_response_has_answered(path: str) -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"fine"))
        if scope["path"] == "/later":
            await asyncio.sleep(0.005)
        raise LookupError("a bug")

    with serve(app) as server, server.connect() as connection:
        assert connection.get(path).text == "fine"
        server.until(lambda: any("LookupError" in line for line in server.log), "the error is logged")
        assert connection.get(path).text == "fine", "the connection is kept"


@pytest.mark.parametrize("messages", [[], [start()]], ids=["nothing", "only a start"])
def test_an_app_that_returns_without_a_response_is_answered_500(messages: list[dict[str, Any]]) -> None:
    with serve(sends(*messages)) as server:
        assert server.get().status == 500
        assert [line for line in server.log if "has not answered" in line]


def test_an_app_that_returns_in_the_middle_is_seen_cut() -> None:
    with serve(sends(start(), body(b"half", more_body=True))) as server, pytest.raises(TruncatedError):
        server.get()


def test_a_status_of_an_enum_is_an_integer() -> None:
    from http import HTTPStatus

    with serve(sends({"type": "http.response.start", "status": HTTPStatus.NOT_FOUND}, body(b"x"))) as server:
        assert server.get().status == 404


# Several tasks


async def by_gather(messages: list[Any], send: Send) -> None:
    await asyncio.gather(*(send(message) for message in messages))


async def by_tasks(messages: list[Any], send: Send) -> None:
    tasks: list[asyncio.Task[None]] = [
        asyncio.create_task(send(message))  # type: ignore[arg-type]  # see writer.DONE
        for message in messages
    ]
    for task in tasks:
        await task


async def by_a_group(messages: list[Any], send: Send) -> None:
    async with asyncio.TaskGroup() as group:
        for message in messages:
            group.create_task(send(message))  # type: ignore[arg-type]  # as above


async def by_anyio(messages: list[Any], send: Send) -> None:
    async with anyio.create_task_group() as group:
        for message in messages:
            group.start_soon(send, message)  # type: ignore[arg-type]  # as above


async def by_time_limits(messages: list[Any], send: Send) -> None:
    for message in messages:
        await asyncio.wait_for(asyncio.shield(send(message)), 5)


@pytest.mark.parametrize("way", [by_gather, by_tasks, by_a_group, by_anyio, by_time_limits])
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("sizes", [[5], [3, 0, 4], [300_000] * 20])
def test_tasks_of_the_app_may_send_in_the_order_in_which_they_are_made(way: Any, waits: bool, sizes: list[int]) -> None:
    parts = [body(b"%d" % number * size, more_body=True) for number, size in enumerate(sizes)]
    whole = b"".join(part["body"] for part in parts)

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if waits:
            await asyncio.sleep(0)
        await way([start(), *parts, body()] if scope["path"] == "/stream" else [start(), body(whole)], send)

    with serve(app) as server, server.connect() as connection:
        for path in ("/stream", "/", "/stream", "/"):
            assert connection.get(path).body == whole
        assert not server.log


@pytest.mark.parametrize("way", [by_gather, by_tasks, by_a_group, by_anyio, by_time_limits])
def test_an_error_of_the_app_in_one_of_its_tasks_is_raised_there(way: Any) -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await way([start(), body("text")], send)  # type: ignore[arg-type]  # that is the point

    with serve(app) as server:
        assert server.get().status == 500
        assert any("must be bytes, not str" in line for line in server.log)


# Backpressure


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_client_that_does_not_read_stops_the_app(loop: str) -> None:
    sent = 0

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(start())
        for _ in range(1000):
            await send(body(bytes(65536), more_body=True))
            sent += 1
        await send(body())

    def held() -> Callable[[], bool]:
        seen: list[int] = []

        def look() -> bool:
            seen.append(sent)
            return len(seen) > 50 and len(set(seen[-50:])) == 1

        return look

    with serve(app, loop=loop) as server, server.connect() as connection:
        connection.ask()
        server.until(held(), "the app waits for the client")
        assert sent < 200, "64 MB are not in memory"
        assert len(connection.answer().body) == 65536 * 1000


def test_a_whole_response_waits_for_the_client_before_the_next() -> None:
    with serve(sends(start(), body(bytes(4_000_000)))) as server, server.connect() as connection:
        for _ in range(20):
            connection.ask()
        time.sleep(0.1)
        assert server.call(server.protocol.writer.unsent) <= 2 * 4_000_000, "not twenty responses in memory"
        for _ in range(20):
            assert len(connection.answer().body) == 4_000_000


# Extensions


def test_trailers_are_sent_to_those_who_take_them() -> None:
    app = sends(
        start(200, (b"trailer", b"x-sum"), trailers=True),
        body(b"data"),
        {"type": "http.response.trailers", "headers": [(b"x-sum", b"42")], "more_trailers": True},
        {"type": "http.response.trailers", "headers": [(b"x-more", b"1")]},
    )
    wants = b"GET / HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nConnection: close, te\r\n\r\n"
    assert raw(app, wants).endswith(b"\r\n\r\n4\r\ndata\r\n0\r\nx-sum: 42\r\nx-more: 1\r\n\r\n")
    assert raw(app).endswith(b"4\r\ndata\r\n0\r\n\r\n")
    assert raw(app, b"GET / HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\ndata")
    head = raw(app, b"HEAD / HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nConnection: close\r\n\r\n")
    assert head.endswith(b"\r\n\r\n")
    assert b"x-sum: 42" not in head


@pytest.mark.parametrize(
    "pair", [(b"content-length", b"3"), (b"x", b"a\r\nb"), (b"x\n", b""), (b"host", b"x"), ("a", "b")]
)
def test_a_trailer_that_would_break_the_framing_is_refused(pair: Any) -> None:
    app = sends(start(trailers=True), body(b"data"), {"type": "http.response.trailers", "headers": [pair]})
    assert raw(app, b"GET / HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nConnection: close\r\n\r\n").endswith(
        b"4\r\ndata\r\n"
    )


def test_announced_trailers_have_to_come() -> None:
    with serve(sends(start(trailers=True), body(b"data"))) as server, pytest.raises(TruncatedError):
        server.get()


def test_early_hints_come_before_the_response() -> None:
    hint = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]}
    app = sends(hint, start(200, (b"x-a", b"b")), hint, body(b"ok", more_body=True), hint, body(b"!"))
    answer = raw(app)
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>; rel=preload\r\n"
    assert answer.startswith(interim)
    assert answer.count(b"HTTP/1.1 103 ") == 2, "none behind the head"
    assert raw(app, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 OK")
    with serve(app) as server, server.connect() as connection:
        first, second = connection.get(), connection.get()
        assert (first.interim, first.text, second.text) == ((103, 103), "ok!", "ok!")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(b"0123456789abcdef" * 200_000)
    return path


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_file_is_sent_whole_with_its_length(file: Path, loop: str) -> None:
    app = sends(start(200, (b"content-type", b"x/y")), {"type": "http.response.pathsend", "path": str(file)})
    with serve(app, loop=loop) as server, server.connect() as connection:
        for _ in range(3):
            answer = connection.get()
            assert answer.header("Content-Length") == "3200000"
            assert answer.body == file.read_bytes()
        connection.ask(method="HEAD")
        assert connection.answer(to="HEAD").header("Content-Length") == "3200000"
        assert server.run(total(server)) > 9_600_000, "counted as sent"


async def total(server: Any) -> int:
    from preforkd.workers.http.connections import connections_of

    return connections_of(server.loop).bytes_sent


def test_a_file_longer_than_content_length_is_cut_there(file: Path) -> None:
    app = sends(start(200, (b"content-length", b"10")), {"type": "http.response.pathsend", "path": str(file)})
    with serve(app) as server, server.connect() as connection:
        assert connection.get().text == "0123456789"
        assert connection.get().text == "0123456789"


def test_a_file_shorter_than_content_length_is_seen_cut(file: Path) -> None:
    app = sends(start(200, (b"content-length", b"9999999")), {"type": "http.response.pathsend", "path": str(file)})
    with serve(app) as server, pytest.raises(TruncatedError):
        server.get()


@pytest.mark.parametrize("path", ["/nonexistent/file", "/", "/dev/zero"])
def test_a_file_that_cannot_be_read_is_the_apps_error(path: str) -> None:
    with serve(sends(start(), {"type": "http.response.pathsend", "path": path})) as server:
        assert server.get().status == 500


def test_a_file_is_the_whole_body(file: Path) -> None:
    send_file = {"type": "http.response.pathsend", "path": str(file)}
    with serve(sends(start(), body(b"x", more_body=True), send_file)) as server, pytest.raises(TruncatedError):
        server.get()


@pytest.mark.parametrize("wrong", ["a descriptor", None, 1.5, ["/"]])
def test_a_path_of_a_wrong_type_is_the_apps_error_and_closes_nothing(wrong: Any, file: Path) -> None:
    with file.open() as opened:
        path = opened.fileno() if wrong == "a descriptor" else wrong
        with serve(sends(start(), {"type": "http.response.pathsend", "path": path})) as server:
            assert server.get().status == 500
            assert all("expected str, bytes or os.PathLike" in line for line in server.log)
        assert os.fstat(opened.fileno()), "it is still open"


def test_a_path_may_be_whatever_names_one(file: Path) -> None:
    for path in (file, str(file), os.fsencode(file)):
        with serve(sends(start(), {"type": "http.response.pathsend", "path": path})) as server:
            assert server.get().body == file.read_bytes()


@pytest.mark.parametrize(
    "message",
    [body(b"EVIL", more_body=True), body(b"EVIL"), start(), {"type": "http.response.early_hint", "links": []}],
)
def test_what_is_sent_while_a_file_is_being_sent_is_the_apps_error(file: Path, message: dict[str, Any]) -> None:
    raised: list[BaseException] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        sending = asyncio.ensure_future(send({"type": "http.response.pathsend", "path": str(file)}))
        while not sending.done():
            await asyncio.sleep(0)
            try:
                await send(message)
            except RuntimeError as exc:
                raised.append(exc)
        await sending

    @http
    async def twice(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        message = {"type": "http.response.pathsend", "path": str(file)}
        raised.extend(one for one in await asyncio.gather(send(message), send(message), return_exceptions=True) if one)

    for one in (app, twice):
        with serve(one) as server, server.connect() as connection:
            for _ in range(2):
                answer = connection.get()
                assert (answer.header("Content-Length"), answer.body) == ("3200000", file.read_bytes())
            assert any("pathsend is still at work" in str(exc) for exc in raised)
            raised.clear()
            assert not server.log


@pytest.mark.parametrize("more_body", [False, True])
def test_a_task_that_was_to_send_before_a_file_and_runs_while_it_is_sent_does_not_get_into_it(
    file: Path, more_body: bool
) -> None:
    raised: list[BaseException] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        early = send(body(b"EVIL", more_body=more_body))
        sending = asyncio.ensure_future(send({"type": "http.response.pathsend", "path": str(file)}))
        for _ in range(3):
            await asyncio.sleep(0)
        try:
            await early
        except RuntimeError as exc:
            raised.append(exc)
        await sending

    with serve(app) as server:
        assert server.get().body == file.read_bytes()
        assert "pathsend is still at work" in str(raised[0])
        assert not server.log


def test_an_app_may_answer_otherwise_when_a_file_cannot_be_read() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        for path in ("/nonexistent/file", 7):
            with contextlib.suppress(OSError, TypeError):
                await send({"type": "http.response.pathsend", "path": path})
        await send(body(b"it is not there"))

    with serve(app) as server:
        assert server.get().text == "it is not there"
        assert not server.log


def test_a_client_that_leaves_in_the_middle_of_a_file_ends_it(file: Path) -> None:
    ended: list[BaseException | None] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            await send({"type": "http.response.pathsend", "path": str(file)})
            ended.append(None)
        except BaseException as exc:
            ended.append(exc)
            raise

    with file.open("ab") as more:
        more.truncate(50_000_000)  # more than the kernel's buffers take
    with serve(app) as server:
        with server.connect() as connection:
            connection.ask()
            connection.read_some()
        server.until(lambda: bool(ended), "the app is told")
    assert isinstance(ended[0], ClientDisconnectedError)


def test_a_client_that_does_not_read_a_file_is_cut(file: Path) -> None:
    with file.open("ab") as more:
        more.truncate(50_000_000)  # more than the kernel's buffers take
    app = sends(start(), {"type": "http.response.pathsend", "path": str(file)})
    with serve(app, write_timeout=1.0) as server, server.connect() as connection:
        connection.ask()
        server.until(lambda: not len(connections_of_server(server)), "the connection is cut")


def connections_of_server(server: Any) -> Any:
    from preforkd.workers.http.connections import connections_of

    return connections_of(server.loop)


def test_nothing_follows_a_refused_response(file: Path) -> None:
    with serve(sends(body(b"x"))) as server, server.connect() as connection:
        connection.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\nGET / HTTP/1.1\r\nHost: t\r\n\r\n")
        assert connection.answer().status == 500
        with pytest.raises((NoAnswerError, MalformedError)):
            connection.answer()


# Fields that are remembered


@pytest.mark.usefixtures("pure_form")
def test_a_field_that_comes_again_is_remembered_and_one_that_varies_is_not() -> None:
    number = 0

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal number
        number += 1
        fields = [(b"x-again", b"same"), (b"x-varies", b"%d" % number), (b"date", b"now"), (b"server", b"mine")]
        await send(start(200, *fields, (b"connection", b"x"), (b"keep-alive", b"x")))
        await send(body(b"ok"))

    with serve(app) as server, server.connect() as connection:
        for turn in range(1, 5):
            answer = connection.get()
            assert [answer.header(name) for name in ("X-Again", "X-Varies", "Date", "Server")] == [
                "same", str(turn), "now", "mine"
            ]  # fmt: skip
            assert (answer.header("Connection"), answer.header("Keep-Alive")) == ("keep-alive", None)
    remembered = {name for name, _ in asgi_response._FIELDS}
    assert b"x-again" in remembered
    assert not remembered & {b"x-varies", b"date", b"server", b"connection", b"keep-alive"}


@pytest.mark.usefixtures("pure_form")
def test_what_is_remembered_of_fields_is_bounded() -> None:
    def response() -> asgi_response.AsgiResponse:
        writer: Any = SimpleNamespace(connection=None, exchange=None)
        return asgi_response.AsgiResponse(writer, 200)

    for number in range(2000):
        for _ in range(2):
            response().add_pairs(
                [(b"x-%d" % number, b"a"), (b"x-long-%d" % number, b"a" * 1000), (b"x-one", b"%d" % number)],
                HopByHopFields(logging.getLogger("tests")),
            )
    assert len(asgi_response._FIELDS) <= asgi_response._FIELDS_MAX
    assert len(asgi_response._LAST) <= asgi_response._LAST_MAX
