"""The compiled form of the parser says what the reference says, and leaves to it what is not usual."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from preforkd.workers.http import compiled
from preforkd.workers.http.limits import Limits
from preforkd.workers.http.names import LOWER, METHODS, NOTED, PLAIN, note_of, noted_with
from preforkd.workers.http.parser import RequestParser
from tests.workers.http.heads import describe, heads, mutations, parsed

pytestmark = pytest.mark.skipif(
    compiled.MISSING != "", reason=f"the compiled parser was not built here: {compiled.MISSING}"
)

USUAL = (
    b"POST /items/1?q=a%20b HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: curl/8 \xe9\r\nAccept:*/*\r\n"
    b"X-Odd_Name: \t1 \r\nConnection: keep-alive\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 5\r\nCookie: a=b\r\nCookie: c\r\n\r\n"
)


@pytest.fixture(autouse=True)
def _auto() -> Iterator[None]:
    before = compiled.form()
    compiled.choose("compiled")
    yield
    compiled.choose(before)


def usual(head: bytes, limits: Limits | None = None) -> Any:
    limits = limits or Limits()
    assert compiled.usual_head is not None
    message = compiled.usual_head(head, limits.limit_headers, limits.limit_body, limits.limit_header_size)
    return describe(message) if message is not None else None


def first_head(data: bytes) -> bytes:
    return data[: data.find(b"\r\n\r\n") + 4]


def test_usual_heads_are_taken() -> None:
    for method in METHODS:
        head = USUAL.replace(b"POST", method)
        assert usual(head) == parsed(head)
    for name in PLAIN:
        for spelling in (name, name.upper(), name.title()):
            head = b"GET / HTTP/1.1\r\nHost: a\r\n%b: x\r\n\r\n" % spelling
            assert usual(head) == parsed(head)
    for value in (b"a", b"a:1", b"a:59999", b"A-b.c9"):
        head = USUAL.replace(b"shop.example:8080", value)
        assert usual(head) == parsed(head) is not None
    head = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: Close\r\n\r\n"
    assert usual(head) == parsed(head) is not None


@pytest.mark.parametrize(
    "change",
    [
        (b"POST", b"FOO"), (b"POST", b"P" * 30), (b"POST ", b"POST  "), (b"HTTP/1.1", b"HTTP/1.0"),
        (b"/items", b"items"),
        (b"/items", b"http://a/items"), (b"?q", b"#q"), (b"?q", b"?q\xe9"), (b"?q", b"?\x00"),
        (b"Host: shop", b"Host: [::1]"),
        (b"Host: shop.example:8080\r\n", b""), (b":8080", b":65536"), (b":8080", b":"), (b"shop", b"sh_op"),
        (b"Accept:", b"Accept :"),
        (b"Accept:*/*", b"Host: a"), (b"Accept:*/*", b"Connection: close"), (b"Accept:*/*", b"Content-Length: 5"),
        (b"Accept:*/*", b"Transfer-Encoding: chunked"), (b"Accept:*/*", b"Expect: 100-continue"),
        (b"Accept:*/*", b"Upgrade: x"),
        (b"Accept:*/*", b"Accept"), (b"Accept:*/*", b": x"), (b"Accept:*/*", b" x: y"), (b"Accept:*/*", b"a: \x00"),
        (b"Accept:*/*", b"a" * 49 + b": x"), (b"keep-alive", b"x"), (b"keep-alive", b"KEEP-ALIVE"),
        (b"Length: 5", b"Length: +5"),
        (b"Length: 5", b"Length: "), (b"Length: 5", b"Length: " + b"9" * 19), (b"\r\n\r\n", b"\r\n"),
        (b"\r\n\r\n", b""),
        (b"\r\nAccept", b"\nAccept"), (b"\r\nAccept", b"\rAccept"),
    ],
)  # fmt: skip
def test_everything_else_is_left_to_the_reference(change: tuple[bytes, bytes]) -> None:
    assert usual(USUAL) is not None
    assert usual(USUAL.replace(*change)) is None


@pytest.mark.parametrize(
    "name",
    [
        *sorted(NOTED),
        b"X-Forwarded-Anything",
        b"x_forwarded_for",
        b"X_Real_IP",
        b"x-forwarded_port",
        b"X-Forwarde",
        b"x-",
        b"a",
    ],
)
def test_both_forms_note_what_proxies_say(name: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\n%b: x\r\n\r\n" % name
    assert usual(head) == parsed(head) is not None
    assert usual(head)[-1] == noted_with(0, note_of(name.lower()), 1)
    assert bool(note_of(name.lower())) is (name not in (b"X-Forwarde", b"x-", b"a"))


def test_what_comes_behind_a_head_is_no_part_of_it() -> None:
    for rest in (b"rest", b"\r\n\r\n", USUAL, bytes(9)):
        assert usual(USUAL + rest) == usual(USUAL) is not None


def test_a_head_of_many_fields_is_left_to_the_reference() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n"
    no_limit = Limits(limit_headers=0)
    assert usual(head % (127 * b"a: b\r\n"), no_limit) == parsed(head % (127 * b"a: b\r\n"), no_limit) is not None
    assert usual(head % (128 * b"a: b\r\n"), no_limit) is None


def test_names_of_every_length_are_found_wherever_the_head_ends() -> None:
    for size in range(1, 49):
        for name in (b"a" * size, *(one for one in PLAIN if len(one) == size)):
            for value in (b"", b"x" * (size % 8)):
                head = b"GET / HTTP/1.1\r\nHost: a\r\n%b:%b\r\n\r\n" % (name.upper(), value)
                assert usual(head) == parsed(head) is not None


@pytest.mark.parametrize("other", [0x0D, 0x10, 0x19, 0x01, 0x7F, 0x5F, 0x8D, 0xC3])
def test_what_differs_from_a_known_name_in_one_bit_is_not_taken_for_it(other: int) -> None:
    for name in (b"accept-encoding", b"x-b3-traceid", b"sec-gpc"):
        for place in range(len(name)):
            changed = name[:place] + bytes([other]) + name[place + 1 :]
            head = b"GET / HTTP/1.1\r\nHost: a\r\n%b: x\r\n\r\n" % changed
            assert usual(head) == (parsed(head) if other == 0x5F else None)


@pytest.mark.parametrize("size", range(18))
def test_a_control_character_is_found_wherever_it_stands(size: int) -> None:
    for bad in (*range(9), *range(10, 32), 127):
        value = b"\t\xff" * (size // 2) + b"a" * (size % 2) + bytes([bad]) + b"b" * 9
        assert usual(b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % value) is None
        head = b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % value.replace(bytes([bad]), b"\t")
        assert usual(head) == parsed(head) is not None


def test_the_limits_of_the_connection_count() -> None:
    assert usual(USUAL, Limits(limit_header_size=len(USUAL))) is not None
    assert usual(USUAL, Limits(limit_header_size=len(USUAL) - 1)) is None
    assert usual(USUAL, Limits(limit_headers=9)) is not None
    assert usual(USUAL, Limits(limit_headers=8)) is None
    assert usual(USUAL, Limits(limit_headers=0)) is not None
    assert usual(USUAL, Limits(limit_body=5)) is not None
    assert usual(USUAL, Limits(limit_body=4)) is None


@given(heads, mutations)
@example(USUAL, (0, b"", False))
def test_what_it_takes_it_takes_as_the_reference_does(head: bytes, mutation: tuple[int, bytes, bool]) -> None:
    place, other, mutates = mutation
    if mutates:
        place %= len(head)
        head = head[:place] + other + head[place + 1 :]
    found = usual(head)
    assert found is None or found == parsed(first_head(head))


@given(st.binary(max_size=60), st.integers(0, len(USUAL)), st.integers(0, 40))
def test_no_bytes_confuse_it(noise: bytes, place: int, size: int) -> None:
    head = USUAL[:place] + noise + USUAL[place + size :]
    found = usual(head)
    assert found is None or found == parsed(first_head(head))


def test_wrong_arguments_are_type_errors() -> None:
    parse: Any = compiled.usual_head
    for arguments in (
        (), (b"x",), ("x", 1, 1, 1), (bytearray(USUAL), 1, 1, 1), (USUAL, "1", 1, 1), (USUAL, 1, None, 1),
        (USUAL, 1, 1, 1.5),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            parse(*arguments)


def test_one_form_is_chosen_for_the_connections_to_come() -> None:
    assert compiled.form() == "compiled"
    for form, expected in (("pure", "pure"), ("compiled", "compiled"), ("auto", "compiled")):
        compiled.choose(form)
        assert compiled.form() == expected
        message = RequestParser(Limits()).feed_head(USUAL)
        assert message is not None
        assert describe(message) == parsed(USUAL)
    with pytest.raises(ValueError, match="auto, compiled or pure"):
        compiled.choose("c")


def test_all_spellings_of_the_pure_table_are_known() -> None:
    found = [usual(b"GET / HTTP/1.1\r\nHost: a\r\n%b: x\r\n\r\n" % spelling) for spelling in LOWER]
    assert {one[3][1][0] for one in found} == set(PLAIN) - NOTED
