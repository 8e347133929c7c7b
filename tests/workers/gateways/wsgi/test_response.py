"""The response of a WSGI app: framing, headers, and what it may not have, in threads and on the loop."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.client import TruncatedError
from tests.workers.gateways.wsgi.serving import MODES, PLAIN, Environ, StartResponse, returning, serve

pytestmark = pytest.mark.parametrize("threads", MODES.values(), ids=MODES)


def test_a_list_of_one_part_gets_its_length(threads: int) -> None:
    with serve(returning([b"hello"]), threads) as served, served.connect() as connection:
        said = connection.get()
        assert (said.status, said.reason, said.body) == (200, "OK", b"hello")
        assert (said.header("Content-Length"), said.header("Transfer-Encoding")) == ("5", None)
        assert connection.get().body == b"hello", "on the same connection"


@pytest.mark.parametrize(
    "body", [[], (), [b""], [b"", b""], iter(())], ids=["[]", "()", "[b'']", "[b'', b'']", "iter(())"]
)
def test_an_empty_body_has_the_length_0(threads: int, body: Any) -> None:
    with serve(returning(body), threads) as served:
        said = served.get()
        assert (said.status, said.body, said.header("Content-Length")) == (200, b"", "0")


@pytest.mark.parametrize(
    "body", [[b"a", b"b", b"c"], (b"ab", b"c"), (bytearray(b"ab"), memoryview(b"c"))], ids=["list", "tuple", "buffers"]
)
def test_a_list_of_several_parts_is_sent_whole(threads: int, body: Any) -> None:
    with serve(returning(body), threads) as served:
        said = served.get()
        assert (said.body, said.header("Content-Length")) == (b"abc", "3")


def test_headers_are_the_apps_bytes_and_may_repeat(threads: int) -> None:
    headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Name", "Jos\xc3\xa9")]
    headers += [("X-Tab", "a\tb"), ("X-Empty", ""), ("X-Opaque", "\xe9\xff")]
    with serve(returning([b"x"], headers=headers), threads) as served:
        said = served.get()
        assert [value for name, value in said.headers if name == "Set-Cookie"] == ["a=1", "b=2"]
        assert (said.header("X-Name"), said.header("X-Tab"), said.header("X-Empty")) == ("Jos\xc3\xa9", "a\tb", "")
        assert said.header("X-Opaque") == "\xe9\xff", "bytes that are not UTF-8"


def test_a_date_and_a_server_of_the_apps_own_stand_alone(threads: int) -> None:
    headers = [("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Server", "mine")]
    with serve(returning([b"x"], headers=headers), threads) as served:
        said = served.get()
        assert (said.header("Date"), said.header("Server")) == ("Thu, 01 Jan 1970 00:00:00 GMT", "mine")


@pytest.mark.parametrize(
    ("status", "code", "reason"), [("299 My Own", 299, "My Own"), ("404 Nope", 404, "Nope"), ("200", 200, "")]
)
def test_the_reason_is_the_apps(threads: int, status: str, code: int, reason: str) -> None:
    with serve(returning([b"x"], status), threads) as served:
        said = served.get()
        assert (said.status, said.reason) == (code, reason)


@pytest.mark.parametrize("body", [[b"hello"], "iterable"], ids=str)
def test_head_has_the_headers_of_get_and_no_body(threads: int, body: Any) -> None:
    made = (lambda _: iter([b"hello"])) if body == "iterable" else body
    headers = [("Content-Length", "5")]
    with serve(returning(made, headers=headers), threads) as served, served.connect() as connection:
        for _ in range(2):
            connection.ask(method="HEAD")
            assert connection.answer(to="HEAD").header("Content-Length") == "5"
        assert connection.get().body == b"hello"


def test_an_empty_answer_to_head_says_no_length_that_get_would_not(threads: int) -> None:
    with serve(returning([]), threads) as served, served.connect() as connection:
        connection.ask(method="HEAD")
        assert connection.answer(to="HEAD").header("Content-Length") is None
        assert connection.get().status == 200


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_responses_without_a_body_have_none_whatever_the_app_returns(threads: int, status: str) -> None:
    for body in ([], [b"not sent"], lambda _: iter([b"not sent"])):
        with serve(returning(body, status), threads) as served, served.connect() as connection:
            said = connection.get()
            assert (said.status, said.header("Content-Length"), said.header("Transfer-Encoding")) == (
                int(status[:3]),
                None,
                None,
            )
            assert connection.get().status == said.status


@pytest.mark.parametrize("body", [[b"123"], [b"1", b"23"], "iterable"], ids=str)
def test_more_than_content_length_is_not_sent_and_an_error(threads: int, body: Any) -> None:
    made = (lambda _: iter([b"1", b"23"])) if body == "iterable" else body
    with serve(returning(made, headers=[("Content-Length", "2")]), threads) as served, served.connect() as connection:
        connection.ask()
        assert connection.answer().body == b"12"
        connection.expect_close()
        served.until(lambda: any("Content-Length" in line for line in served.log), "the error in the log")


@pytest.mark.parametrize("body", [[b"1"], [], "iterable"], ids=str)
def test_less_than_content_length_cuts_the_connection(threads: int, body: Any) -> None:
    made = (lambda _: iter([b"1"])) if body == "iterable" else body
    with serve(returning(made, headers=[("Content-Length", "2")]), threads) as served, served.connect() as connection:
        connection.ask()
        with pytest.raises(TruncatedError):
            connection.answer()
        served.until(lambda: any("Content-Length" in line for line in served.log), "the error in the log")


def test_early_hints_go_out_before_the_response(threads: int) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
        start_response("200 OK", PLAIN)
        return [b"done"]

    with serve(app, threads) as served, served.connect() as connection:
        connection.ask()
        said = connection.answer()
        assert (said.interim, said.body) == ((103,), b"done")
        connection.ask()
        while b"\r\n\r\n" not in connection.read_some():
            assert connection._receive()
        assert connection.read_some().startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
        assert connection.answer().body == b"done"
        connection.send(b"GET / HTTP/1.0\r\n\r\n")
        assert connection.answer().interim == ()


def test_early_hints_leave_out_what_belongs_to_the_connection(threads: int) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload"), ("Transfer-Encoding", "chunked"), ("TE", "x")])
        start_response("200 OK", PLAIN)
        return [b"done"]

    with serve(app, threads) as served, served.connect() as connection:
        connection.ask()
        while b"\r\n\r\n" not in connection.read_some():
            assert connection._receive()
        assert connection.read_some().startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        assert connection.answer().body == b"done"


def test_early_hints_refuse_what_would_break_them(threads: int) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        environ["wsgi.early_hints"]([("Link", "x\r\nX-Evil: 1")])
        return []

    with serve(app, threads) as served, served.connect() as connection:
        said = connection.get()
        assert (said.status, said.interim) == (500, ())


def test_http_1_0_gets_a_length_or_the_end_of_the_connection(threads: int) -> None:
    with serve(returning(lambda _: iter([b"a", b"b"])), threads) as served, served.connect() as connection:
        connection.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        said = connection.answer()
        assert (said.body, said.header("Transfer-Encoding"), said.closes) == (b"ab", None, True)


def test_the_whole_body_of_a_large_list_arrives(threads: int) -> None:
    large = b"x" * 5_000_000
    with serve(returning([large, large]), threads) as served, served.connect() as connection:
        assert connection.get().body == large + large
        assert connection.get().body == large + large
