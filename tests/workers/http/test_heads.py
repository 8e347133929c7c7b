"""The compiled form of responses does what the reference does, whatever is said of a response."""

from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preforkd.workers.http import compiled, fields
from preforkd.workers.http.message import HttpVersion10, HttpVersion11
from preforkd.workers.http.response import Response
from preforkd.workers.http.states import ConnectionState
from tests.workers.http.responses import (
    Circumstances,
    Step,
    both,
    circumstances,
    of_asgi,
    of_class,
    of_wsgi,
    outcome,
    running,
)

pytestmark = pytest.mark.skipif(
    compiled.MISSING != "", reason=f"the compiled form was not built here: {compiled.MISSING}"
)

NAMES = [
    "Content-Type", "content-length", "Content-Length", "X-Trace", "Date", "SERVER", "Connection", "Transfer-Encoding",
    "Keep-Alive", "x-request-id", "Upgrade", "TE", "Trailer", "Proxy-Authenticate", "Content-Encoding", "Set-Cookie",
    "", "a b", "x:", "n\xe4me", "a\n", "_x", "!#$%&'*+-.^`|~09",
]  # fmt: skip
VALUES = [
    "", "text/html", "12", "0", "012", "5 ", "-1", "1" * 18, "1" * 19, "1" * 40, "a\tb", "a\rb", "a\nb", "a\0b", "\x7f",
    "\x1f", "caf\xe9", "\x80", "\xff", "\u20ac", "\udce9", "close", "keep-alive, close", "chunked", "upgrade",
    "x" * 600,
]  # fmt: skip
STATUSES: list[Any] = [
    200, 201, 404, 500, 204, 205, 304, 100, 103, 101, 99, 299, 426, 999, 1000, 10**30, True, "200", 200.0, None,
]  # fmt: skip
BODIES: list[Any] = [b"", b"Hello, World", b"x" * 40000, bytearray(b"abc"), memoryview(b"abcd"), "text", None, 5]


class Text(str):
    __slots__ = ()


class Octets(bytes):
    __slots__ = ()


names = st.sampled_from(NAMES) | st.text(max_size=8)
values = st.sampled_from(VALUES) | st.text(max_size=8)
lengths = st.sampled_from(["0", "3", "12", "40000"])
ordinary = st.tuples(st.sampled_from(["Content-Type", "X-Trace"]), st.sampled_from(["text/html", "a b"])) | st.tuples(
    st.sampled_from(["Content-Length", "content-length"]), lengths
)
pairs = ordinary | ordinary | st.tuples(names, values)
odd_pairs: st.SearchStrategy[Any] = st.one_of(
    st.tuples(names.map(Text), values),
    st.tuples(names, st.sampled_from([None, 5, b"x", ["x"]])),
    st.tuples(names),
    st.lists(names, min_size=2, max_size=2),
    st.sampled_from([None, 5, "ab"]),
)
given_circumstances = st.just(Circumstances()) | st.builds(
    Circumstances,
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    version=st.sampled_from([HttpVersion10, HttpVersion11]),
    keep_alive=st.sampled_from([True, False, None, 1, ""]),
    should_close=st.booleans(),
    id_line=st.sampled_from([b"", b"X-Request-Id: 7\r\n"]),
    persistent=st.booleans(),
    corked=st.booleans(),
    paused=st.booleans(),
    continue_is_due=st.booleans(),
    rest_may_be_long=st.booleans(),
    state=st.sampled_from([ConnectionState.ACTIVE, ConnectionState.CLOSING, ConnectionState.CLOSED]),
    is_over=st.booleans(),
    is_closing=st.booleans(),
)
bodies = st.sampled_from(BODIES) | st.binary(max_size=20)


def step(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(name), st.tuples(*arguments), st.just({}))


steps = st.lists(
    st.one_of(
        pairs.map(lambda pair: ("add_header", pair, {})),
        pairs.map(lambda pair: ("add_header", pair, {})),
        odd_pairs.map(lambda pair: ("add_header", pair if isinstance(pair, tuple) else (pair,), {})),
        pairs.map(lambda pair: ("add_header", (), {"name": pair[0], "value": pair[1]})),
        step("send_headers"),
        step("write", bodies),
        step("write_eof"),
        step("send_whole", bodies),
        step("set_length", st.sampled_from([0, 12, 10**20])),
        step("force_close"),
        step("enable_chunked_encoding"),
        step("__setattr__", st.just("status"), st.sampled_from(STATUSES)),
        step("__delattr__", st.sampled_from(["lines", "status", "content_length", "exchange", "_left", "_plain"])),
    ),
    max_size=8,
)
sent: st.SearchStrategy[list[Step]] = st.sampled_from([b"Hello, World", b"abc", b""]).map(
    lambda body: [("send_headers", (), {}), ("write", (body,), {}), ("write_eof", (), {})]
)


@pytest.fixture(autouse=True)
def _form() -> Iterator[None]:
    with running("compiled"):
        yield


@settings(deadline=None, max_examples=300)
@given(
    given_circumstances,
    st.sampled_from([200, 404]) | st.sampled_from(STATUSES),
    st.sampled_from([{}, {"http_version": HttpVersion11}, {"http_version": HttpVersion10}, {"close": True},
                     {"reason": "Yes"}, {"reason": "a\nb"}, {"reason": 5}, {"wrong": 1}]),
    st.lists(pairs, max_size=3),
    steps,
    sent | st.just([]),
)  # fmt: skip
def test_the_seeds_class(
    given: Circumstances, status: Any, options: dict[str, Any], fields: list[Any], steps: list[Step], rest: list[Step]
) -> None:
    all_steps = [*(("add_header", pair, {}) for pair in fields), *steps, *rest]
    pure, compiled = both(lambda: of_class(circumstances(given), (status,), options, all_steps))
    assert compiled == pure


def encoded(pair: Any) -> Any:
    if isinstance(pair, tuple) and all(type(text) is str for text in pair):
        return tuple(text.encode("utf-8", "surrogateescape") for text in pair)
    return pair


asgi_pairs = (pairs | pairs | odd_pairs).map(encoded) | st.tuples(st.binary(max_size=5), st.binary(max_size=5))
odd_asgi_pairs = st.sampled_from([(bytearray(b"x"), b"y"), (Octets(b"x"), b"y"), [b"x", b"y"], (b"x", b"y", b"z")])
starts = st.fixed_dictionaries(
    {
        "type": st.just("http.response.start"),
        "status": st.sampled_from([200, 404]) | st.sampled_from(STATUSES),
    },
    optional={
        "headers": st.lists(asgi_pairs | odd_asgi_pairs, max_size=4)
        | st.lists(asgi_pairs, max_size=4).map(tuple)
        | st.sampled_from([None, 5]),
        "trailers": st.sampled_from([True, False, 0]),
    },
)
body_messages = st.fixed_dictionaries(
    {"type": st.just("http.response.body")},
    optional={"body": bodies, "more_body": st.sampled_from([True, False, None])},
)
messages: st.SearchStrategy[Any] = st.one_of(
    starts,
    body_messages,
    st.sampled_from([{}, {"type": "http.response.trailers"}, {"type": 5}, {"type": Text("http.response.body")}, None]),
)


@settings(deadline=None, max_examples=300)
@given(given_circumstances, st.tuples(starts, body_messages).map(list) | st.lists(messages, max_size=4))
def test_asgi(given: Circumstances, messages: list[Any]) -> None:
    pure, compiled = both(lambda: of_asgi(circumstances(given), messages))
    assert compiled == pure


@settings(deadline=None, max_examples=300)
@given(
    given_circumstances,
    st.sampled_from(["200 OK", "404 Not Found", "204 No Content", "200 Fine", "200", "99 X", "200 \u20ac", 200,
                     "299 X", "101 Switching Protocols", "200 OK\n", "413 Content Too Large", Text("200 OK")]),
    st.lists(pairs | pairs | odd_pairs, max_size=4) | st.sampled_from([(), None]),
    sent | bodies.map(lambda body: [("send_whole", (body,), {})]),
)  # fmt: skip
def test_wsgi(given: Circumstances, status: Any, fields: Any, steps: list[Step]) -> None:
    pure, compiled = both(lambda: of_wsgi(circumstances(given), status, fields, steps))
    assert compiled == pure


def test_a_field_with_the_requests_id_has_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "_request_id", "x-trace")
    monkeypatch.setattr(fields, "_MEANINGS", {})
    given = Circumstances(id_line=b"X-Trace: ours\r\n")
    message = {"type": "http.response.start", "status": 200, "headers": [(b"X-TRACE", b"mine"), (b"X-Other", b"1")]}
    pure, compiled = both(lambda: of_asgi(circumstances(given), [message, {"type": "http.response.body"}]))
    assert compiled == pure
    assert "ours" not in str(compiled)
    assert "X-TRACE: mine" in str(compiled)


def test_the_usual_response_is_not_left_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = circumstances(Circumstances())
    wire: Any = exchange.wire
    response = Response(wire, 200, http_version=HttpVersion11)
    monkeypatch.setattr(type(wire), "may_stay_open", None)  # the reference calls it
    for _ in range(2):
        response.add_header("X-Trace", "1")
    response.add_header("Content-Length", "5")
    response.send_headers()
    response.write(b"hello")
    assert response.write_eof() is not None
    wire.flush()
    (written,) = wire._transport.written
    assert written.startswith(b"HTTP/1.1 200 OK\r\nX-Trace: 1\r\nX-Trace: 1\r\nContent-Length: 5\r\nDate: ")
    assert written.endswith(b"Connection: keep-alive\r\n\r\nhello")
    assert response.keeps


def test_a_subclass_is_a_response_as_well() -> None:
    class Own(Response):
        def __init__(self, wire: Any, trace: str) -> None:
            super().__init__(wire, 200)
            self.trace = trace

        def add_header(self, name: str, value: str) -> None:
            super().add_header(name, value + self.trace)

    exchange = circumstances(Circumstances())
    response = Own(exchange.wire, "!")
    response.add_header("X-A", "b")
    response.add_headers(("X-B", "c"))
    assert response.lines == [b"X-A: b!\r\n", b"X-B: c!\r\n"]
    assert outcome(lambda: Response.add_header(object(), "X", "y")) == (  # type: ignore[arg-type]  # what is refused
        AttributeError,
        "'object' object has no attribute '_takes_fields'",
    )


def test_the_methods_look_like_those_of_the_reference() -> None:
    method: Any = vars(Response)["write"]
    assert (method.__name__, method.__doc__) == ("write", method.__wrapped__.__doc__)
    assert inspect.signature(Response.write) == inspect.signature(method.__wrapped__)
    response = Response(circumstances(Circumstances()).wire, 200)
    assert response.write.__self__ is response  # type: ignore[attr-defined]  # a bound method


def test_a_response_in_a_cycle_is_freed() -> None:
    response = Response(circumstances(Circumstances()).wire, 200)
    response.own = response  # type: ignore[attr-defined]  # the cycle
    gone = weakref.ref(response)
    del response
    gc.collect()
    assert gone() is None
