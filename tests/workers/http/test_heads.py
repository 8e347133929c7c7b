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


OTHERWISE: list[tuple[str, Any]] = [
    ("method", "HEAD"), ("version", HttpVersion10), ("keep_alive", False), ("keep_alive", None), ("keep_alive", 1),
    ("should_close", True), ("id_line", b"X-Request-Id: 7\r\n"), ("persistent", False), ("corked", False),
    ("paused", True), ("continue_is_due", True), ("rest_may_be_long", True), ("state", ConnectionState.CLOSING),
    ("is_over", True), ("is_closing", True),
]  # fmt: skip
SENT: list[Step] = [("send_headers", (), {}), ("write", (b"Hello, World",), {}), ("write_eof", (), {})]


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
    pure, ours = both(of_class, given, (status,), options, all_steps)
    assert ours == pure


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
    pure, ours = both(of_asgi, given, messages)
    assert ours == pure


@settings(deadline=None, max_examples=300)
@given(
    given_circumstances,
    st.sampled_from(["200 OK", "404 Not Found", "204 No Content", "200 Fine", "200", "99 X", "200 \u20ac", 200,
                     "299 X", "101 Switching Protocols", "200 OK\n", "413 Content Too Large", Text("200 OK")]),
    st.lists(pairs | pairs | odd_pairs, max_size=4) | st.sampled_from([(), None]),
    sent | bodies.map(lambda body: [("send_whole", (body,), {})]),
)  # fmt: skip
def test_wsgi(given: Circumstances, status: Any, fields: Any, steps: list[Step]) -> None:
    pure, ours = both(of_wsgi, given, status, fields, steps)
    assert ours == pure


def started(status: Any, *pairs: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(pairs)}


@pytest.mark.parametrize("name", NAMES)
def test_each_name_with_each_value(name: str) -> None:
    last = {"type": "http.response.body", "body": b"Hello, World"}
    for value in VALUES:
        for more in ([], [("Content-Length", "12")]):
            fields = [*more, (name, value)]
            raw = [encoded(pair) for pair in fields]
            steps: list[Step] = [("add_header", pair, {}) for pair in fields]
            for pure, ours in (
                both(of_class, Circumstances(), (200,), {}, [*steps, *SENT]),
                both(of_asgi, Circumstances(), [started(200, *raw), last]),
                both(of_wsgi, Circumstances(), "200 OK", fields, SENT),
            ):
                assert ours == pure, (name, value, more)


@pytest.mark.parametrize("given", [Circumstances(), *(Circumstances(**{name: value}) for name, value in OTHERWISE)])
@pytest.mark.parametrize("status", [200, 404, 204, 205, 304, 103, 101, 299, True, 10**30])
def test_each_status_in_each_circumstance(given: Circumstances, status: Any) -> None:
    length = ("Content-Length", "12")
    has_length: Step = ("add_header", length, {})
    closes: Step = ("force_close", (), {})
    changes: Step = ("__setattr__", ("status", status), {})
    for body in BODIES:
        whole: Step = ("send_whole", (body,), {})
        parts: list[Step] = [("send_headers", (), {}), ("write", (body,), {}), ("write_eof", (), {})]
        for pure, ours in (
            both(of_class, given, (status,), {}, [whole]),
            both(of_class, given, (200,), {}, [changes, has_length, whole]),
            both(of_class, given, (status,), {}, [has_length, *parts]),
            both(of_class, given, (200,), {}, [has_length, changes, *parts]),
            both(of_class, given, (status,), {}, [closes, *parts]),
            both(of_wsgi, given, f"{status} OK", [length], [whole]),
            both(of_wsgi, given, f"{status} OK", [], [whole, whole]),
        ):
            assert ours == pure, body


@pytest.mark.parametrize("given", [Circumstances(), *(Circumstances(**{name: value}) for name, value in OTHERWISE)])
@pytest.mark.parametrize("status", [200, 404, 204, 304, 103, 299, True, 10**30])
def test_each_message_in_each_circumstance(given: Circumstances, status: Any) -> None:
    first = started(status, (b"content-length", b"12"))
    for body in BODIES:
        for part in ({}, {"more_body": True}, {"more_body": 0}):
            second, third = {"type": "http.response.body", "body": body, **part}, {"type": "http.response.body"}
            for messages in (
                [first, second, third],
                [second, first],
                [first, first],
                [started(status), second, third],
                [{**first, "trailers": True}, second, third],
            ):
                pure, ours = both(of_asgi, given, messages)
                assert ours == pure, messages


def test_nothing_is_said_of_a_response_that_has_gone_out() -> None:
    steps: list[Step] = [("send_whole", (b"abc",), {}), ("add_header", ("X", "y"), {}), *SENT]
    pure, ours = both(of_class, Circumstances(), (200,), {}, steps)
    assert ours == pure
    assert "the headers have been sent already" in str(ours)


def test_a_field_with_the_requests_id_has_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "_request_id", "x-trace")
    monkeypatch.setattr(fields, "_MEANINGS", {})
    given = Circumstances(id_line=b"X-Trace: ours\r\n")
    message = {"type": "http.response.start", "status": 200, "headers": [(b"X-TRACE", b"mine"), (b"X-Other", b"1")]}
    pure, ours = both(of_asgi, given, [message, {"type": "http.response.body"}])
    assert ours == pure
    assert "ours" not in str(ours)
    assert "X-TRACE: mine" in str(ours)


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
