"""The format of the access log: its atoms and its escaping."""

from __future__ import annotations

import os
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preforkd.workers.http import compiled
from preforkd.workers.http.access_log_format import (
    DEFAULT_FORMAT,
    WantedFields,
    compile_format,
    escape,
    needs_seconds,
    user_of,
)
from preforkd.workers.http.message import HttpVersion, HttpVersion10, HttpVersion11, RequestMessage
from tests.workers.http.test_access_log import RESPONSE, message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%(h)s", "192.0.2.1"),
        ("%(l)s %(u)s", "- Aladdin"),
        ("%(r)s", "GET /p?q=1 HTTP/1.1"),
        ("%(m)s %(U)s %(q)s %(H)s", "GET /p q=1 HTTP/1.1"),
        ("%(s)s %(b)s %(B)s", "201 42 42"),
        ("%(f)s|%(a)s", "from|agent"),
        ("%(T)s %(M)s %(D)s %(L)s", "1 1234 1234567 1.234567"),
        ("%({x-a}i)s %({X-a}o)s %({WHO}e)s", "in out env"),
        ("%({none}i)s %({none}o)s %({none}e)s", "- - -"),
        ("100%% (%(s)s)", "100% (201)"),
        ("", ""),
    ],
)
def test_each_atom(text: str, expected: str) -> None:
    user = (b"AUTHORIZATION", b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")  # of RFC 7617
    request = message("/p?q=1", user, (b"Referer", b"from"), (b"user-agent", b"agent"), (b"X-A", b"in"))
    assert compile_format(text)(request, RESPONSE, {"WHO": "env"}, 1.234567, "192.0.2.1") == expected


def test_time_and_process() -> None:
    line = compile_format("%(t)s %(p)s")(message(), RESPONSE, None, 0, "-")
    assert re.fullmatch(r"\[\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] <\d+>", line)
    assert f"<{os.getpid()}>" in line


def test_what_is_not_there_is_a_dash() -> None:
    text = "%(r)s %(m)s %(U)s %(q)s %(H)s %(s)s %(b)s %(f)s %(a)s %({x}i)s %({x}o)s %({x}e)s"
    expected = "- - - - - 499 - - - - - -"
    assert compile_format(text)(None, None, None, 0.0, "-") == expected


@pytest.mark.parametrize(("cut", "keeps", "expected"), [(True, False, "X"), (False, True, "+"), (False, False, "-")])
def test_x_is_apaches_state_of_the_connection(cut: bool, keeps: bool, expected: str) -> None:
    response: Any = SimpleNamespace(cut=cut, keeps=keeps)
    assert compile_format("%(X)s")(message(), response, None, 0.0, "-") == expected
    assert compile_format("%(X)s")(message(), None, None, 0.0, "-") == "X"


@pytest.mark.parametrize(
    ("value", "user"),
    [
        (None, None),
        (b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin"),
        (b"basic  QTpiOmM=", "A"),
        (b"Basic /zo=", "\udcff"),
        (b"Basic Og==", ""),
        (b"Basic QQ==", None),
        (b"Basic QWxhZGRpbjpvcGVu!IHNlc2FtZQ", None),
        (b"Basic \xff", None),
        (b"Basic", None),
        (b"", None),
        (b"Bearer QTpi", None),
    ],
)
def test_the_user_is_that_of_basic_authorization(value: bytes | None, user: str | None) -> None:
    assert user_of(value) == user


def test_wanted_fields_are_the_first_of_their_names() -> None:
    request = message("/", (b"REFERER", b"1"), (b"referer", b"2"), (b"refered", b"3"), (b"user-agent", b"4"))
    found = WantedFields(b"referer", b"user-agent", b"x").of(request)
    assert [found.get(name) for name in (b"referer", b"user-agent", b"x")] == [b"1", b"4", None]
    assert WantedFields().of(request) == {}


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("plain é", "plain é"),
        ('a" 200 1', 'a\\" 200 1'),
        ("a\\", "a\\\\"),
        ("a\tb\x1b[31m\x7f", "a\\x09b\\x1b[31m\\x7f"),
        ("a\r\nb", "a\\x0d\\x0ab"),
        ("\u2028\x85", "\\u2028\\x85"),
        ("\udcff", "\\xff"),
    ],
)
def test_a_value_cannot_leave_its_quotes_or_its_line(value: str, escaped: str) -> None:
    assert escape(value) == escaped


@pytest.mark.parametrize("text", ["%(T)s", "%(M)s", "a %(D)s", "%(h)s %(L)s"])
def test_a_format_says_whether_it_needs_the_time_of_a_request(text: str) -> None:
    assert needs_seconds(text)
    assert not needs_seconds("%(h)s %(s)s seconds")


@pytest.mark.parametrize("text", ["{pieces}", "{0}", "'''", "\\", "{message!r}", '"+getpid()+"', "{", "\n{clock}"])
def test_text_of_a_format_is_text_and_never_code(text: str) -> None:
    assert compile_format(text)(message(), RESPONSE, None, 0.0, "-") == text
    name = re.sub("[{}()]", "", text) or "x"
    assert compile_format(f"%({{{name}}}e)s")(message(), RESPONSE, {name: "value"}, 0.0, "-") == "value"


PARTS = compiled.log_parts()
FORMATS = (DEFAULT_FORMAT, "%(r)s", '%(a)s|%(f)s|"%({x-a}i)s"', "%(u)s %(a)s %(a)s", "%(m)s %(r)s", "%(a)s " * 17, "-")
VALUES = st.one_of(
    st.sampled_from([b"a", b" a\t", b"", b" ", b"a b", b'a"b', b"a\\b", b"\xc3\xa4", b"\xff"]), st.binary()
)
NAMES_OF_FIELDS = st.sampled_from([b"user-agent", b"referer", b"authorization", b"x-a", b"host", b"user_agent"])


@pytest.mark.skipif(PARTS is None, reason="nothing was compiled here")
@given(
    st.sampled_from(FORMATS),
    st.sampled_from(["GET", "PATCH", "M-SEARCH", 'A"B']),
    st.one_of(st.sampled_from(["/", "/a?b=c", '/"', "/\\", "*"]), st.text()),
    st.sampled_from([HttpVersion11, HttpVersion10]),
    st.lists(st.tuples(NAMES_OF_FIELDS, VALUES)),
)
def test_the_compiled_form_makes_the_same_lines(
    text: str, method: str, path: str, version: HttpVersion, fields: list[tuple[bytes, bytes]]
) -> None:
    request = RequestMessage(method, path, version, fields, should_close=False)
    lines = [compile_format(text, parts)(request, RESPONSE, None, 0.0, "h") for parts in (PARTS, None)]
    assert lines[0] == lines[1]
    assert compile_format(text, PARTS)(None, None, None, 0.0, "h") == compile_format(text)(None, None, None, 0.0, "h")


@pytest.mark.skipif(PARTS is None, reason="nothing was compiled here")
def test_the_compiled_form_takes_usual_requests_alone_and_leaves_the_others_to_the_reference() -> None:
    asked: list[object] = []

    def pure(request: object) -> tuple[str, ...]:
        asked.append(request)
        return ("pure",)

    assert PARTS is not None
    parts = PARTS(
        RequestMessage, HttpVersion11, (("r", b""), ("a", b"user-agent"), ("u", b"authorization")),
        pure,
    )  # fmt: skip
    usual = [(b"user-agent", b" curl/8\t"), (b"user-agent", b"other")]
    assert parts(RequestMessage("GET", "/a", HttpVersion11, usual, should_close=False)) == (
        "GET /a HTTP/1.1",
        "curl/8",
        "-",
    )
    assert not asked
    for odd in ([(b"authorization", b"x")], [(b"user-agent", b"\xe4")], [(b"user-agent",)], [5]):
        assert parts(RequestMessage("GET", "/a", HttpVersion11, odd, should_close=False)) == ("pure",)  # type: ignore[arg-type]
    assert parts(None) == ("pure",)
    with pytest.raises(TypeError):
        parts()  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="too many"):
        PARTS(RequestMessage, HttpVersion11, (("r", b""),) * 17, lambda _: ())
