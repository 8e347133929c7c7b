"""What PEP 3333 promises an app, in threads and on the loop."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from preforkd.workers.gateways.wsgi import WsgiGateway
from tests.e2e.client import TruncatedError
from tests.workers.gateways.wsgi.serving import MODES, PLAIN, Environ, StartResponse, answer, returning, serve

pytestmark = pytest.mark.parametrize("threads", MODES.values(), ids=MODES)


class Body:
    """What an app may return: an iterable that has to be closed."""

    def __init__(self, parts: Iterable[bytes], *, fails: BaseException | None = None) -> None:
        self.parts = iter(parts)
        self.fails = fails
        self.closed = threading.Event()
        self.closes = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self.parts)
        except StopIteration:
            if self.fails is not None:
                raise self.fails from None
            raise

    def close(self) -> None:
        self.closes += 1
        self.closed.set()


def test_wsgirefs_validator_finds_nothing(threads: int) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(2) + environ["wsgi.input"].readline() + environ["wsgi.input"].read(100)
        write = start_response("200 OK", [("Content-Type", "text/plain"), ("X-Length", str(len(body)))])
        write(b"written ")
        environ["wsgi.errors"].flush()
        return iter([b"and ", b"", b"returned: ", body])

    with serve(validator(app), threads) as served, served.connect() as connection:  # type: ignore[arg-type] # wsgiref's own types
        for body in (b"", b"a\nbc", b"x" * 99):
            connection.ask("/a%20b?c", method="POST", headers=[("Content-Type", "text/plain")], body=body)
            said = connection.answer()
            assert said.status == 200, served.log
            assert said.body == b"written and returned: " + body
        assert connection.get("/").status == 200
        assert not served.log


def test_an_iterable_without_length_is_sent_in_chunks_and_closed(threads: int) -> None:
    body = Body([b"a", b"", b"bc"])
    with serve(returning(body), threads) as served, served.connect() as connection:
        said = connection.get()
        assert (said.body, said.header("Transfer-Encoding")) == (b"abc", "chunked")
        assert body.closed.wait(5)
        assert body.closes == 1


def test_an_iterable_with_length_is_sent_as_it_is_and_closed(threads: int) -> None:
    body = Body([b"abc"])
    with serve(returning(body, headers=[("content-length", "3")]), threads) as served:
        said = served.get()
        assert (said.body, said.header("Content-Length"), said.header("Transfer-Encoding")) == (b"abc", "3", None)
        assert body.closed.wait(5)


def test_each_part_goes_out_before_the_next_is_asked_for(threads: int) -> None:
    go_on = threading.Semaphore(0)

    def parts() -> Iterator[bytes]:
        for number in range(3):
            yield b"%d" % number
            if threads:  # on the loop nothing may wait: there it is the loop that turns in between
                assert go_on.acquire(timeout=5)

    with serve(returning(lambda _: parts()), threads) as served, served.connect() as connection:
        connection.ask()
        for number in range(3):
            while b"1\r\n%d\r\n" % number not in connection.read_some():
                assert connection._receive()
            go_on.release()
        assert connection.answer().body == b"012"


def test_the_head_waits_for_the_first_part_that_is_not_empty(threads: int) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b""
        try:
            raise ValueError("changed my mind")
        except ValueError:
            start_response("404 Not Found", [("Content-Type", "text/x")], sys.exc_info())
        yield b"gone"

    with serve(app, threads) as served:
        said = served.get()
        assert (said.status, said.header("Content-Type"), said.body) == (404, "text/x", b"gone")


def test_start_response_may_be_called_at_the_first_part(threads: int) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("201 Created", PLAIN)
        yield b"made"

    with serve(app, threads) as served:
        assert (served.get().status, served.get().body) == (201, b"made")


def test_exc_info_after_a_part_was_sent_raises_it_again_and_cuts_the_connection(threads: int) -> None:
    raised: list[BaseException] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"half of it"
        try:
            raise ValueError("too late")
        except ValueError:
            try:
                start_response("500 Oops", PLAIN, sys.exc_info())
            except ValueError as exc:
                raised.append(exc)
                raise

    with serve(app, threads) as served, served.connect() as connection:
        connection.ask()
        with pytest.raises(TruncatedError):
            connection.answer()
        assert [str(exc) for exc in raised] == ["too late"]
        served.until(lambda: any("too late" in line for line in served.log), "the error in the log")


def test_a_second_start_response_without_exc_info_is_an_error(threads: int) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", PLAIN)
        start_response("200 OK", PLAIN)
        return [b""]

    with serve(app, threads) as served:
        assert served.get().status == 500
        assert "called again without exc_info" in served.log[0]


def test_write_sends_before_what_is_returned(threads: int) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        write = start_response("200 OK", PLAIN)
        write(b"one ")
        write(b"")
        write(b"two ")
        return [b"three"]

    with serve(app, threads) as served, served.connect() as connection:
        assert connection.get().body == b"one two three"
        assert connection.get().body == b"one two three"


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (b"200 OK", PLAIN),
        (200, PLAIN),
        ("OK", PLAIN),
        ("20 OK", PLAIN),
        ("2000 OK", PLAIN),
        ("200OK", PLAIN),
        ("100 Continue", PLAIN),
        ("200 OK\r\nX-Evil: 1", PLAIN),
        ("200 \u20ac", PLAIN),
        ("200 OK", tuple(PLAIN)),
        ("200 OK", {"Content-Type": "text/plain"}),
        ("200 OK", None),
        ("200 OK", [["X-A", "1"]]),
        ("200 OK", [("X-A",)]),
        ("200 OK", [("X-A", 1)]),
        ("200 OK", [("X-A", ["1"])]),
        ("200 OK", [(b"X-A", b"1")]),
        ("200 OK", [("X-A", "1\r\nX-Evil: 1")]),
        ("200 OK", [("X-A", "1\nX-Evil: 1")]),
        ("200 OK", [("X-A", "1\0")]),
        ("200 OK", [("X-A", "\u20ac")]),
        ("200 OK", [("X-A\r\n", "1")]),
        ("200 OK", [("X A", "1")]),
        ("200 OK", [("", "1")]),
        ("200 OK", [("X-A:", "1")]),
        ("200 OK", [("Content-Length", "-1")]),
        ("200 OK", [("Content-Length", "1_0")]),
        ("200 OK", [("Content-Length", "1"), ("content-length", "2")]),
        ("200 OK", [("Connection", "close\r\nX-Evil: 1")]),
    ],
    ids=str,
)
def test_start_response_refuses_what_would_break_the_response(threads: int, status: Any, headers: Any) -> None:
    where: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        try:
            start_response(status, headers)
        except (TypeError, ValueError):
            where.append("in the app")
            raise
        return [b"x"]

    with serve(app, threads) as served:
        said = served.get()
        assert (said.status, said.header("X-Evil")) == (500, None)
        assert where == ["in the app"]


@pytest.mark.parametrize("body", [None, 5, "text", b"bytes", ["text"], [b"x", None], [5], ("text",)], ids=repr)
def test_an_app_that_does_not_return_an_iterable_of_bytes_is_answered_500(threads: int, body: Any) -> None:
    with serve(returning(lambda _: body), threads) as served:
        assert served.get().status == 500
        assert "TypeError" in served.log[0]


def test_an_app_that_does_not_call_start_response_is_answered_500(threads: int) -> None:
    for body in ([b"x"], [], iter([b"x"]), iter([])):
        with serve(lambda environ, start_response, body=body: body, threads) as served:  # type: ignore[misc] # a default
            assert served.get().status == 500
            assert "start_response" in served.log[0]


ERRORS = [
    RuntimeError("a bug"),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    asyncio.CancelledError(),
    StopIteration(),
]
every_error = pytest.mark.parametrize("error", ERRORS, ids=repr)


@every_error
def test_an_app_that_raises_is_answered_500_logged_and_harms_nobody_else(threads: int, error: BaseException) -> None:
    ok = answer("ok")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/ok":
            return ok(environ, start_response)
        if environ["PATH_INFO"] == "/after":
            start_response("200 OK", PLAIN)
        raise error

    no_body: dict[str, Any] = {}
    with_body: dict[str, Any] = {"method": "POST", "body": b"x"}
    with serve(app, threads) as served:
        for path in ("/before", "/after"):
            for sent in no_body, with_body:
                assert served.get(path, **sent).status == 500
                assert type(error).__name__ in served.log[-1]
                assert served.get("/ok").body == b"ok"


@every_error
@pytest.mark.parametrize("parts", [[], [b"half"], [b"", b"half"]], ids=["first", "second", "third"])
def test_whatever_an_iterable_raises_is_logged_and_ends_no_worker(
    threads: int, error: BaseException, parts: list[bytes]
) -> None:
    if isinstance(error, StopIteration):
        pytest.skip("that is how an iterable ends")
    body = Body(parts, fails=error)
    ok = answer("ok")
    app = returning(body)
    with serve(lambda e, s: ok(e, s) if e["PATH_INFO"] == "/ok" else app(e, s), threads) as served:
        with served.connect() as connection:
            connection.ask()
            if any(parts):
                with pytest.raises(TruncatedError):
                    connection.answer()
            else:
                assert connection.answer().status == 500
        assert body.closed.wait(5)
        served.until(lambda: any(type(error).__name__ in line or "a bug" in line for line in served.log), "in the log")
        assert served.get("/ok").body == b"ok"


@every_error
@pytest.mark.parametrize("parts", [[b"whole"], [b"wh", b"ole"]], ids=["one part", "two parts"])
def test_whatever_close_raises_is_logged_and_the_response_stays_whole(
    threads: int, error: BaseException, parts: list[bytes]
) -> None:
    class Fails(Body):
        def close(self) -> None:
            super().close()
            raise error

    ok = answer("ok")
    app = returning(Fails(parts))
    with serve(lambda e, s: ok(e, s) if e["PATH_INFO"] == "/ok" else app(e, s), threads) as served:
        assert served.get().body == b"whole"
        served.until(lambda: any(type(error).__name__ in line or "a bug" in line for line in served.log), "in the log")
        assert served.get("/ok").body == b"ok"


def test_an_iterable_that_fails_before_its_first_part_is_answered_500_and_closed(threads: int) -> None:
    body = Body([], fails=RuntimeError("a bug"))
    with serve(returning(body), threads) as served:
        assert served.get().status == 500
        assert body.closes == 1


@pytest.mark.parametrize("headers", [PLAIN, [("Content-Length", "100")]], ids=["chunked", "length"])
def test_an_iterable_that_fails_later_cuts_the_connection_and_is_closed(threads: int, headers: Any) -> None:
    body = Body([b"half"], fails=RuntimeError("a bug"))
    with serve(returning(body, headers=headers), threads) as served, served.connect() as connection:
        connection.ask()
        with pytest.raises(TruncatedError):
            connection.answer()
        assert body.closed.wait(5)
        served.until(lambda: any("a bug" in line for line in served.log), "the error in the log")


def test_an_error_in_close_is_logged_and_the_response_stays_whole(threads: int) -> None:
    class Fails(Body):
        def close(self) -> None:
            super().close()
            raise RuntimeError("a bug in close")

    with serve(returning(Fails([b"whole"])), threads) as served:
        assert served.get().body == b"whole"
        served.until(lambda: any("a bug in close" in line for line in served.log), "the error in the log")


def test_a_length_that_is_complete_is_answered_before_close_returns(threads: int) -> None:
    if not threads:
        pytest.skip("on the loop nothing may wait")
    go_on = threading.Event()

    class Slow(Body):
        def close(self) -> None:
            assert go_on.wait(5)
            super().close()

    body = Slow([b"whole"])
    with serve(returning(lambda e: body if e["PATH_INFO"] == "/" else [b"x"], headers=[]), threads) as served:
        assert served.get().body == b"whole"
        go_on.set()
        assert body.closed.wait(5)


def test_each_request_has_context_variables_of_its_own(threads: int) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        seen.append(variable.get())
        variable.set(environ["PATH_INFO"])
        start_response("200 OK", PLAIN)
        yield b"x"
        seen.append(variable.get())

    with serve(app, threads) as served, served.connect() as connection:
        connection.get("/1")
        connection.get("/2")
        served.until(lambda: len(seen) == 4, "both calls")
    assert seen == ["unset", "/1", "unset", "/2"]


def test_a_pipeline_is_answered_in_order(threads: int) -> None:
    with serve(answer(lambda environ: environ["PATH_INFO"]), threads) as served, served.connect() as connection:
        connection.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(50)))
        assert [connection.answer().text for _ in range(50)] == [f"/{number}" for number in range(50)]


def test_a_gateway_works_on_asyncio_too(threads: int) -> None:
    app = returning(lambda e: [b"x"] if e["PATH_INFO"] == "/" else iter([b"x"]))
    with serve(app, threads, loop="asyncio") as served:
        assert served.get("/").body == served.get("/i").body == b"x"


def test_a_gateway_serves_one_loop(threads: int) -> None:
    if not threads:
        pytest.skip("only threads belong to a loop")
    gateway = WsgiGateway(answer("x"), threads)

    class Loop:
        def call_soon(self, *args: Any, **keywords: Any) -> None: ...

    gateway.pool(Loop()).end()  # type: ignore[arg-type] # nothing of it is used
    with pytest.raises(RuntimeError, match="one event loop"):
        gateway.pool(Loop())  # type: ignore[arg-type] # as above


def test_wsgi_errors_is_standard_error(threads: int, capsys: pytest.CaptureFixture[str]) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        print("seen by the operator", file=environ["wsgi.errors"])
        return answer("x")(environ, start_response)  # type: ignore[return-value] # it is a list

    with serve(app, threads) as served:
        served.get()
    assert "seen by the operator" in capsys.readouterr().err
