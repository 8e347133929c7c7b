"""`wsgi.input` is the body, streamed, and never half of it taken for all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from preforkd.workers.gateways.wsgi_input import READ_FIRST, BodySource, InputError, streamed_input
from tests.e2e.client import Connection
from tests.workers.gateways.wsgi_serving import MODES, Environ, StartResponse, answer, serve

every_mode = pytest.mark.parametrize("threads", MODES.values(), ids=MODES)
LARGE = 3 * READ_FIRST
"""More than is awaited before the app is called."""


def parts(*data: bytes) -> Callable[[], bytes]:
    """A source of a body that comes in parts."""
    left = iter([*data, b""])
    return lambda: next(left, b"")


@pytest.mark.parametrize("first", [b"", b"a", b"ab\nc", b"ab\ncd\n\nef"])
def test_every_way_to_read_gives_the_same_bytes_however_they_come(first: bytes) -> None:
    whole = b"ab\ncd\n\nef"
    rest = [bytes([byte]) for byte in whole[len(first) :]]
    assert streamed_input(first, parts(*rest)).read() == whole
    assert streamed_input(first, parts(*rest)).read(100) == whole
    assert streamed_input(first, parts(*rest)).readlines() == [b"ab\n", b"cd\n", b"\n", b"ef"]
    assert list(streamed_input(first, parts(*rest))) == [b"ab\n", b"cd\n", b"\n", b"ef"]
    stream = streamed_input(first, parts(*rest))
    assert [stream.readline(1), stream.readline(), stream.read(0), stream.read(2), stream.readline(5)] == [
        b"a",
        b"b\n",
        b"",
        b"cd",
        b"\n",
    ]
    assert [stream.read(), stream.read(), stream.readline(), stream.read(5)] == [b"\nef", b"", b"", b""]


def test_a_read_takes_no_more_of_the_body_than_it_needs() -> None:
    asked: list[int] = []

    def receive() -> bytes:
        asked.append(1)
        return b"x" * 10

    source = BodySource(b"first", receive)
    assert (source.read(5), asked) == (b"first", [])
    assert (source.read(3), asked) == (b"xxx", [1])


def test_a_body_that_ends_too_early_raises_an_oserror_in_every_way_to_read() -> None:
    def cut() -> bytes:
        raise InputError("cut")

    for read in ("read", "readline", "readlines"):
        with pytest.raises(OSError, match="cut"):
            getattr(streamed_input(b"half", cut), read)()
    with pytest.raises(OSError, match="cut"):
        list(streamed_input(b"half", cut))
    stream = streamed_input(b"half", cut)
    for _ in range(2):
        with pytest.raises(OSError, match="cut"):
            stream.read()


def echo(environ: Environ) -> bytes:
    body: bytes = environ["wsgi.input"].read()
    return body


@every_mode
def test_bodies_of_every_size_arrive_whole_by_length_and_in_chunks(threads: int) -> None:
    with serve(answer(echo), threads) as served, served.connect() as connection:
        for size in (0, 1, 1000, READ_FIRST - 1, READ_FIRST, READ_FIRST + 1, LARGE, 2_000_000):
            body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            connection.ask(method="POST", body=body)
            assert connection.answer().body == body
            connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            for start in range(0, size, 50_000):
                part = body[start : start + 50_000]
                connection.send(b"%x\r\n%s\r\n" % (len(part), part))
            connection.send(b"0\r\n\r\n")
            assert connection.answer().body == body


@every_mode
def test_a_body_that_the_app_does_not_read_is_not_the_next_request(threads: int) -> None:
    with serve(answer(lambda environ: environ["PATH_INFO"]), threads) as served, served.connect() as connection:
        connection.ask("/1", method="POST", body=b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.answer().text == "/1"
        assert connection.get("/2").text == "/2"


@every_mode
def test_the_body_is_as_it_was_sent_also_when_it_is_compressed(threads: int) -> None:
    app = answer(lambda environ: echo(environ) + environ["HTTP_CONTENT_ENCODING"].encode())
    with serve(app, threads) as served, served.connect() as connection:
        connection.ask(method="POST", headers=[("Content-Encoding", "gzip")], body=b"no gzip at all")
        assert connection.answer().body == b"no gzip at all" + b"gzip"


@pytest.mark.parametrize("threads", [1, 3])
def test_an_upload_is_not_read_into_memory_and_a_slow_app_stops_the_client(threads: int) -> None:
    go_on = threading.Event()
    size = 200_000_000

    def app(environ: Environ) -> str:
        assert go_on.wait(20)
        total = 0
        while data := environ["wsgi.input"].read(65536):
            total += len(data)
        return str(total)

    with serve(answer(app), threads) as served, served.connect() as connection:
        before = psutil.Process().memory_info().rss
        connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        block, sent = b"x" * 1_000_000, 0
        connection.socket.settimeout(0.5)
        try:
            while sent < size:
                sent += connection.socket.send(block)
        except TimeoutError:
            pass
        assert sent < 20_000_000, "the client is stopped while the app does not read"
        connection.socket.settimeout(10)
        go_on.set()
        while sent < size:
            sent += connection.socket.send(block[: min(len(block), size - sent)])
        assert connection.answer().text == str(size)
        assert psutil.Process().memory_info().rss - before < 50_000_000


def test_on_the_loop_a_large_body_waits_in_a_file_before_the_app_is_called() -> None:
    def app(environ: Environ) -> str:
        data = environ["wsgi.input"]
        return f"{sum(map(len, iter(lambda: data.read(65536), b'')))} {data.read()!r}"

    with serve(answer(app), 0) as served, served.connect() as connection:
        before = psutil.Process().memory_info().rss
        size = 100_000_000
        connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(100):
            connection.send(b"x" * 1_000_000)
        assert connection.answer().text == f"{size} b''"
        assert psutil.Process().memory_info().rss - before < 50_000_000


CALLED = threading.Semaphore(0)


def outcome(environ: Environ, log: list[Any], seen: threading.Event) -> str:
    """Read all of the body and note what has come of it."""
    CALLED.release()
    try:
        log.append(len(environ["wsgi.input"].read()))
    except OSError as exc:
        log.append(exc)
        seen.set()
        raise
    seen.set()
    return "ok"


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("framing", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("end", ["half-closed", "closed", "reset"])
def test_a_body_cut_by_the_client_raises_an_oserror_and_never_looks_whole(
    threads: int, framing: bytes, end: str
) -> None:
    log: list[Any] = []
    seen = threading.Event()
    while CALLED.acquire(blocking=False):
        pass  # of tests before
    with serve(answer(lambda environ: outcome(environ, log, seen)), threads) as served:
        connection = Connection(served.port)
        connection.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
        connection.send(b"%x\r\n" % 1_000_000 if b"chunked" in framing else b"")
        connection.send(b"x" * (READ_FIRST + 1000))
        if end == "half-closed":
            connection.socket.shutdown(1)
            connection.expect_close()
        elif end == "reset":
            connection.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: close() resets
        assert CALLED.acquire(timeout=10)
        connection.close()
        assert seen.wait(10)
        assert isinstance(log[0], OSError), log
        assert served.get(headers=[("X", "1")]).status == 200, "the thread is free again"


def test_a_small_body_that_is_cut_by_half_a_close_is_told_to_the_app_too() -> None:
    log: list[Any] = []
    seen = threading.Event()
    with serve(answer(lambda environ: outcome(environ, log, seen)), 1) as served, served.connect() as connection:
        connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        connection.socket.shutdown(1)
        assert seen.wait(10)
        assert isinstance(log[0], OSError)


def test_on_the_loop_an_app_is_not_called_for_a_body_that_is_cut() -> None:
    called: list[str] = []
    with serve(answer(lambda environ: called.append(environ["PATH_INFO"]) or "ok"), 0) as served:  # type: ignore[func-returns-value] # that is what `or` is for
        with served.connect() as connection:
            connection.send(b"POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
            connection.socket.shutdown(1)
            connection.expect_close()
        assert served.get("/next").text == "ok"
    assert called == ["/next"]


@every_mode
def test_an_invalid_body_is_answered_400_and_never_looks_whole(threads: int) -> None:
    log: list[Any] = []
    seen = threading.Event()
    with serve(answer(lambda environ: outcome(environ, log, seen)), threads) as served:
        for before in (b"", b"%x\r\n%s\r\n" % (LARGE, b"x" * LARGE)):
            with served.connect() as connection:
                connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + before)
                connection.send(b"zz\r\n")
                assert connection.answer().status == 400
    assert not [one for one in log if not isinstance(one, OSError)]


@every_mode
@pytest.mark.parametrize("sent", [5, LARGE])
def test_a_body_that_does_not_come_is_answered_408(threads: int, sent: int) -> None:
    log: list[Any] = []
    seen = threading.Event()
    app = answer(lambda environ: outcome(environ, log, seen))
    with serve(app, threads, body_timeout=0.2) as served, served.connect() as connection:
        connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * sent)
        assert connection.answer().status == 408
    assert not [one for one in log if not isinstance(one, OSError)]


@every_mode
def test_a_body_over_the_limit_is_answered_413(threads: int) -> None:
    with serve(answer(echo), threads, limit_body=100_000) as served, served.connect() as connection:
        connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.send(b"%x\r\n%s\r\n" % (LARGE, b"x" * LARGE))
        assert connection.answer().status == 413


@pytest.mark.parametrize("threads", [1, 3])
def test_100_continue_is_sent_when_the_app_reads(threads: int) -> None:
    head = b"POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    app = answer(lambda environ: echo(environ) if environ["PATH_INFO"] == "/read" else "not wanted")
    with serve(app, threads) as served:
        with served.connect() as connection:
            connection.send(head % b"refuse")
            said = connection.answer()
            assert (said.interim, said.text) == ((), "not wanted")
        with served.connect() as connection:
            connection.send(head % b"read")
            while b"100 Continue\r\n\r\n" not in connection.read_some():
                assert connection._receive()
            connection.send(b"12345")
            assert connection.answer().body == b"12345"


def test_slow_bodies_do_not_hold_the_only_thread() -> None:
    with serve(answer(lambda environ: echo(environ) or b"ok"), 1) as served:
        slow = [served.connect() for _ in range(20)]
        for connection in slow:
            connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        assert served.get().body == b"ok"
        for connection in slow:
            connection.send(b"67890")
            assert connection.answer().body == b"1234567890"
            connection.close()


def test_with_a_thread_to_spare_an_app_reads_while_the_client_sends() -> None:
    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        for line in environ["wsgi.input"]:
            yield b"got " + line

    with serve(app, 2) as served, served.connect() as connection:
        connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\none\n")
        while b"got one\n" not in connection.read_some():
            assert connection._receive()
        connection.send(b"two\n")
        assert connection.answer().body == b"got one\ngot two\n"
