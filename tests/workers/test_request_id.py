"""Every request has one id: a trusted proxy's if it is a good one, else ours."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from preforkd.workers.http import compiled
from preforkd.workers.http.message import HttpVersion11, RequestMessage
from preforkd.workers.http.names import note_of, noted_with
from preforkd.workers.request_id import RequestIds, trace_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


FORMS = ["pure"] + (["compiled"] if not compiled.MISSING else [])


@pytest.fixture(autouse=True, params=FORMS)
def _form(request: pytest.FixtureRequest) -> Iterator[None]:
    before = compiled.form()
    compiled.choose(request.param)
    yield
    compiled.choose(before)


def taken(*fields: tuple[bytes, bytes], believes: bool, header: str = "X-Request-ID") -> RequestMessage:
    message = RequestMessage("GET", "/", HttpVersion11, [(b"host", b"a"), *fields], False)
    for place, (name, _) in enumerate(message.fields):
        message.noted = noted_with(message.noted, note_of(name), place)
    RequestIds(header).take(message, believes)
    return message


def test_ours_are_uuids_of_version_7_and_no_two_are_the_same() -> None:
    ids = RequestIds("X-Request-ID")
    before = time.time_ns() // 1_000_000
    made = [ids.new() for _ in range(5000)]
    after = time.time_ns() // 1_000_000
    assert len(set(made)) == len(made)
    for text in made:
        one = uuid.UUID(text)
        assert str(one) == text
        assert (one.version, one.variant) == (7, uuid.RFC_4122)
        assert before <= one.int >> 80 <= after
    assert {text[19] for text in made} == set("89ab")


@pytest.mark.parametrize("value", [b"a", b"7f1c-88", b"!~", b"x" * 128])
def test_a_good_one_of_a_trusted_proxy_is_kept_and_one_of_a_stranger_is_replaced(value: bytes) -> None:
    message = taken((b"x-request-id", value), believes=True)
    assert message.request_id == value.decode()
    assert message.fields == [(b"host", b"a"), (b"x-request-id", value)]
    assert message.id_line == b"X-Request-ID: " + value + b"\r\n"
    message = taken((b"x-request-id", value), believes=False)
    assert uuid.UUID(message.request_id).version == 7
    assert message.fields == [(b"host", b"a"), (b"x-request-id", message.request_id.encode())]


@pytest.mark.parametrize("value", [b"", b"x" * 129, b"a b", b"a\tb", b"caf\xe9", b"\x7f"])
def test_a_bad_one_is_replaced(value: bytes) -> None:
    message = taken((b"x-request-id", value), believes=True)
    assert uuid.UUID(message.request_id).version == 7
    assert message.headers.getall("X-Request-ID") == [message.request_id]


def test_of_two_and_of_spellings_nothing_is_left() -> None:
    message = taken((b"x-request-id", b"a"), (b"x-request-id", b"b"), (b"x_request_id", b"c"), believes=True)
    assert uuid.UUID(message.request_id).version == 7
    assert message.fields == [(b"host", b"a"), (b"x-request-id", message.request_id.encode())]


def test_the_header_may_have_another_name() -> None:
    message = taken((b"x-request-id", b"a"), (b"x-amzn-trace-id", b"Root=1"), believes=True, header="X-Amzn-Trace-Id")
    assert message.request_id == "Root=1"
    assert message.id_line == b"X-Amzn-Trace-Id: Root=1\r\n"


def test_one_that_stands_elsewhere_by_now_is_found() -> None:
    for noted in (2 | 5 << 4, 2 | 1 << 4, 2 | 1 << 40):
        message = RequestMessage("GET", "/", HttpVersion11, [(b"x-request-id", b"a"), (b"host", b"a")], False)
        message.noted = noted
        RequestIds("X-Request-ID").take(message, True)
        assert message.request_id == "a"
        assert len(message.fields) == 2


def test_of_two_with_a_name_of_ones_own_nothing_is_left() -> None:
    fields = [(b"x-own", b"a"), (b"x-own", b"b")]
    message = RequestMessage("GET", "/", HttpVersion11, fields, False)
    RequestIds("X-Own").take(message, True)
    assert uuid.UUID(message.request_id).version == 7
    assert message.fields == [(b"x-own", message.request_id.encode())]


def test_what_is_no_request_is_refused() -> None:
    ids: Any = RequestIds("X-Request-ID")
    if compiled.form() == "pure":
        return
    for wrong in (None, 1, [], object()):
        with pytest.raises(TypeError):
            ids.take(wrong, True)
        with pytest.raises(TypeError):
            ids._give(wrong)
    with pytest.raises(TypeError):
        ids.take_usual()


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (f"00-{TRACE}-{SPAN}-01", True), (f"00-{TRACE}-{SPAN}-01-more", False), (f"01-{TRACE}-{SPAN}-01-more", True),
        (f"ff-{TRACE}-{SPAN}-01", False), (f"00-{TRACE.upper()}-{SPAN}-01", False), (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False), (f"00-{TRACE}-{SPAN}", False), ("", False), ("nonsense", False),
    ],
)  # fmt: skip
def test_traceparent_is_read_as_the_w3c_says(value: str, good: bool) -> None:
    assert trace_of(value.encode()) == ((TRACE, SPAN) if good else None)
    assert trace_of(None) is None
