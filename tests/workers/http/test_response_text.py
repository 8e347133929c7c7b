"""Names, values and reasons are what they look like: a subclass of `str` cannot bring something else into a head."""

from __future__ import annotations

import enum
from typing import Any

import pytest

from preforkd.workers import Response
from preforkd.workers.http import fields
from tests.workers.http.wire import GET, Echo, talk


class Sly(str):
    """Shows one text to whoever checks it, and another to whoever formats it."""

    __slots__ = ()

    def isascii(self) -> bool:
        return True

    def isprintable(self) -> bool:
        return True

    def lower(self) -> str:
        return "x"

    def encode(self, *args: Any, **kwargs: Any) -> bytes:
        return b"x"

    def __str__(self) -> str:
        return "evil\r\nSet-Cookie: a"

    def __format__(self, spec: str) -> str:
        return "evil\r\nSet-Cookie: a"


class Kind(str, enum.Enum):  # noqa: UP042 -- the way before StrEnum, whose members are formatted by their names
    JSON = "application/json"
    NAME = "X-Kind"


def answer(*pairs: tuple[str, str], reason: str | None = None, own: bool = False) -> Any:
    class Handler(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            response = Response(self.writer, 200, reason=reason)
            if own:
                for name, value in pairs:
                    response.headers.add(name, value)
            else:
                response.add_headers(*pairs)
            response.add_header("Content-Length", "0")
            response.send_headers()
            await response.write_eof()

    return talk(GET, GET, handler=Handler)


@pytest.mark.parametrize("own", [False, True])
def test_a_subclass_of_str_is_sent_as_its_text(own: bool) -> None:
    result = answer(("Content-Type", Sly("text/x-sly")), (Sly("X-Sly"), Sly("v")), own=own)
    for reply in result.replies:
        assert reply.headers["Content-Type"] == "text/x-sly"
        assert reply.headers["X-Sly"] == "v"
    assert b"evil" not in result.output


@pytest.mark.usefixtures("pure_form")
def test_a_subclass_of_str_is_not_remembered_for_others() -> None:
    answer(("Content-Type", Sly("text/x-memo")), (Sly("X-Memo"), "v"))
    assert answer(("Content-Type", "text/x-memo"), ("X-Memo", "v")).replies[0].headers["Content-Type"] == "text/x-memo"
    assert fields._FIELDS["Content-Type", "text/x-memo"] == (b"Content-Type: text/x-memo\r\n", None)
    assert all(type(text) is str for field in fields._FIELDS for text in field)
    assert all(type(name) is str for name in fields._MEANINGS)


@pytest.mark.parametrize(
    "pair",
    [("X", Sly("a\r\nY: b")), (Sly("X: a\r\nY"), "b"), (Sly("Connection\r\nY"), "b")],
    ids=["value", "name", "ours"],
)
def test_a_subclass_of_str_cannot_end_its_line(pair: tuple[str, str]) -> None:
    result = answer(pair)
    assert result.statuses == [500]
    assert b"Y" not in result.output


def test_a_name_that_means_something_does_so_in_every_kind_of_str() -> None:
    result = answer((Sly("Connection"), Sly("close")))
    assert [reply.headers["Connection"] for reply in result.replies] == ["close"]


def test_a_reason_is_sent_as_its_text() -> None:
    assert answer(reason=Sly("Fine")).replies[0].reason == "Fine"
    assert answer(reason=Sly("Fine\r\nY: b")).statuses == [500]


def test_an_enum_of_strings_gives_its_value() -> None:
    reply = answer((Kind.NAME, Kind.JSON), ("Content-Type", Kind.JSON), reason=Kind.JSON).replies[0]
    assert (reply.headers["X-Kind"], reply.headers["Content-Type"]) == ("application/json", "application/json")
    assert reply.reason == "application/json"


def test_a_compression_is_named_by_its_letters() -> None:
    class Handler(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            response = Response(self.writer, 200)
            response.add_compression_filter(Sly("gzip"))
            response.send_headers()
            await response.write_eof()

    assert talk(GET, handler=Handler).replies[0].headers["Content-Encoding"] == "gzip"
