"""`wsgi.input` is the body, streamed, and never half of it taken for all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from preforkd.workers.gateways.wsgi import WsgiGateway
from preforkd.workers.gateways.wsgi.input import READ_AT_ONCE, READ_FIRST, BodySource, InputError, streamed_input
from tests.e2e.client import Connection
from tests.workers.gateways.wsgi.serving import MODES, Environ, StartResponse, answer, serve
from tests.workers.http.wire import FakeTransport

every_mode = pytest.mark.parametrize("threads", MODES.values(), ids=MODES)
LARGE = READ_AT_ONCE + 8 * READ_FIRST
"""More than is taken before the app is called, though a read of the socket may bring 256 kB."""


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


def test_the_rest_is_read_in_the_parts_in_which_it_comes_not_in_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def readinto(source: BodySource, buffer: object) -> int:
        raise AssertionError("8 kB at a time")

    monkeypatch.setattr(BodySource, "readinto", readinto)
    stream = streamed_input(b"a" * 65536, parts(b"b" * 65536, b"c"))
    assert stream.read() == b"a" * 65536 + b"b" * 65536 + b"c"
    assert stream.read() == b""


@pytest.mark.parametrize(("portions", "kind"), [([70_000, 30_000, 1], "BytesIO"), ([70_000] * 9, "BufferedReader")])
def test_what_comes_right_behind_the_first_part_is_taken_with_it_within_bounds(portions: list[int], kind: str) -> None:
    async def main() -> bytes:
        app = answer(lambda environ: f"{type(environ['wsgi.input']).__name__} {len(environ['wsgi.input'].read())}")
        protocol = WsgiGateway(app, 1).handler()
        transport = FakeTransport(protocol)
        protocol.connection_made(transport)
        protocol.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % sum(portions))
        for size in portions:
            protocol.data_received(bytes(size))
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while not transport.output:  # noqa: ASYNC110 -- nothing announces it
                await asyncio.sleep(0.001)
        return bytes(transport.output)

    assert f"{kind} {sum(portions)}".encode() in asyncio.run(main())


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


# Reads that come too late: of close(), which is called behind the response, or of a thread of the app's own

TRUNCATED = "a part that looked like the whole"


class Reader:
    """Reads all of a body, and notes what has come of it.

    Attributes:
        begins: set when it is about to read.
        done: set when it has.
        outcome: how many bytes it has read, or what was raised.
    """

    def __init__(self, whole: int) -> None:
        self.begins = threading.Event()
        self.done = threading.Event()
        self.outcome: Any = None
        self._whole = whole

    def read(self, environ: Environ) -> None:
        try:
            self.begins.set()
            size = len(environ["wsgi.input"].read())
            self.outcome = size if size == self._whole else TRUNCATED
        except Exception as exc:
            self.outcome = exc
            raise
        finally:
            self.done.set()

    def read_quietly(self, environ: Environ, after: threading.Event | None = None) -> None:
        """For a thread of its own."""
        if after is not None:
            assert after.wait(10)
        with suppress(OSError, ValueError):
            self.read(environ)


class Closing:
    """A body of one part, and what its `close()` does."""

    def __init__(self, close: Callable[[], None]) -> None:
        self.parts = iter([b"ok"])
        self.close = close

    def __iter__(self) -> Closing:
        return self

    def __next__(self) -> bytes:
        return next(self.parts)


def post(connection: Connection, sent: int, size: int) -> None:
    connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * sent)


@every_mode
@pytest.mark.parametrize("when", ["at once", "later"])
@pytest.mark.parametrize("sent", [READ_FIRST + 1000, LARGE])
def test_a_read_in_close_behind_the_response_ends_and_never_looks_whole(threads: int, when: str, sent: int) -> None:
    answered = threading.Event()
    reader = Reader(LARGE)

    def app(environ: Environ, start_response: StartResponse) -> Any:
        if environ["REQUEST_METHOD"] == "GET":
            return answer("free")(environ, start_response)
        start_response("200 OK", [("Content-Length", "2")])

        def close() -> None:
            if when == "later":
                assert answered.wait(10)
            reader.read(environ)

        return Closing(close)

    with serve(app, threads) as served, served.connect() as connection:
        post(connection, sent, LARGE)
        if not threads:
            connection.send(b"x" * (LARGE - sent))  # on the loop it is there before the app is called
            answered.set()
        assert connection.answer().text == "ok"
        answered.set()
        assert reader.done.wait(10)
        assert reader.outcome == LARGE or isinstance(reader.outcome, OSError), reader.outcome
        if when == "later" and threads:
            assert "the response is complete" in str(reader.outcome)
            served.until(lambda: len(served.log) == 1, "the app's mistake is logged")
            assert served.log[0].startswith("Error in the app behind its response")
        for _ in range(3):
            assert served.get().text == "free", "the thread does not wait for ever"


@every_mode
@pytest.mark.parametrize("when", ["before the response", "behind it"])
def test_a_thread_of_the_app_that_reads_too_long_is_told_so(threads: int, when: str) -> None:
    answered = threading.Event()
    reader = Reader(LARGE)

    def app(environ: Environ, start_response: StartResponse) -> Any:
        if environ["REQUEST_METHOD"] == "GET":
            return answer("free")(environ, start_response)
        late = answered if when == "behind it" else None
        threading.Thread(target=reader.read_quietly, args=(environ, late), daemon=True).start()
        if late is None:
            assert reader.begins.wait(10)
        return answer("ok")(environ, start_response)

    with serve(app, threads) as served, served.connect() as connection:
        post(connection, READ_FIRST + 1000, LARGE)
        if not threads:
            connection.send(b"x" * (LARGE - READ_FIRST - 1000))
        assert connection.answer().text == "ok"
        answered.set()
        assert reader.done.wait(10)
        if threads:
            assert isinstance(reader.outcome, OSError), reader.outcome
        else:
            assert reader.outcome != TRUNCATED
        assert served.get().text == "free"
        assert not served.log


@pytest.mark.parametrize("threads", [1, 3])
def test_a_late_read_takes_nothing_of_the_next_requests_body(threads: int) -> None:
    second_runs, first_has_read = threading.Event(), threading.Event()
    reader = Reader(LARGE)
    size = READ_FIRST + 2000

    def app(environ: Environ, start_response: StartResponse) -> Any:
        if environ["PATH_INFO"] == "/second":
            second_runs.set()
            assert first_has_read.wait(10)
            return answer(str(len(environ["wsgi.input"].read())))(environ, start_response)

        def late() -> None:
            reader.read_quietly(environ, second_runs)
            first_has_read.set()

        threading.Thread(target=late, daemon=True).start()
        return answer("first")(environ, start_response)

    with serve(app, threads) as served, served.connect() as connection:
        post(connection, READ_FIRST + 1000, size)
        assert connection.answer().text == "first"
        connection.send(b"x" * 1000)
        connection.send(b"POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % LARGE)
        connection.send(b"y" * (READ_FIRST + 1000))
        assert first_has_read.wait(10)
        connection.send(b"y" * (LARGE - READ_FIRST - 1000))
        assert connection.answer().text == str(LARGE)
        assert isinstance(reader.outcome, OSError), reader.outcome


@every_mode
def test_a_body_that_was_read_to_its_end_ends_there_behind_the_response_too(threads: int) -> None:
    answered, done = threading.Event(), threading.Event()
    read: list[bytes] = []

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [("Content-Length", "2")])
        assert len(environ["wsgi.input"].read(LARGE)) == LARGE

        def close() -> None:
            assert not threads or answered.wait(10)
            read.append(environ["wsgi.input"].read())
            done.set()

        return Closing(close)

    with serve(app, threads) as served, served.connect() as connection:
        post(connection, LARGE, LARGE)
        assert connection.answer().text == "ok"
        answered.set()
        assert done.wait(10)
        assert read == [b""]
        assert not served.log


@pytest.mark.parametrize("threads", [1, 3])
def test_one_thread_of_the_app_reads_while_another_waits_to_send(threads: int) -> None:
    reader = Reader(LARGE)

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        threading.Thread(target=reader.read_quietly, args=(environ,), daemon=True).start()
        for _ in range(200):
            yield b"x" * 100_000

    with serve(app, threads) as served, served.connect() as connection:
        sent = READ_FIRST + 1000
        post(connection, sent, LARGE)
        connection.read_some()
        while sent < LARGE:
            connection.send(b"x" * 1000)
            sent += 1000
            served.call(lambda: None)  # each part by itself
        connection.send(b"x" * (LARGE - sent))
        assert reader.done.wait(10)
        assert reader.outcome == LARGE
        assert len(connection.answer().body) == 20_000_000


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["list", "file"])
def test_a_late_read_leaves_a_response_alone_that_is_still_being_sent(threads: int, kind: str, tmp_path: Path) -> None:
    size = 30_000_000
    (tmp_path / "file").write_bytes(b"x" * size)
    sending = threading.Event()
    reader = Reader(LARGE)

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [("Content-Length", str(size))])
        threading.Thread(target=reader.read_quietly, args=(environ, sending), daemon=True).start()
        if kind == "list":
            return [b"x" * size]
        return environ["wsgi.file_wrapper"]((tmp_path / "file").open("rb"))

    with serve(app, threads) as served, served.connect() as connection:
        post(connection, READ_FIRST + 1000, LARGE)
        connection.read_some()
        sending.set()
        assert reader.done.wait(10)
        assert isinstance(reader.outcome, OSError), reader.outcome
        assert connection.answer().body == b"x" * size
        assert not served.log
