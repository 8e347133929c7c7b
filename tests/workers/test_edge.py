"""What an app gets to see of a head: of trusted proxies the truth, of others nothing; in every view of the fields."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preforkd.workers.edge import Edge
from preforkd.workers.http import compiled
from preforkd.workers.http.limits import Limits
from preforkd.workers.http.message import RequestMessage
from preforkd.workers.http.names import is_forwarding, note_of
from preforkd.workers.http.parser import RequestParser
from preforkd.workers.request_id import RequestIds

FORMS = ["pure"] + (["compiled"] if not compiled.MISSING else [])


class Connection:
    """What an edge uses of one."""

    transport = None
    peer_scheme = "http"
    speaks_for_others = False

    def __init__(self, host: str) -> None:
        self.peer_address = (host, 1)
        self.peer_is_trusted: bool | None = None
        self.told: Any = self.peer_address

    def client_is(self, client: Any) -> None:
        self.told = client


def taken(
    lines: list[bytes], *, form: str = "x-forwarded", host: str = "127.0.0.1", ids: bool = True, parser: str = "auto"
) -> tuple[RequestMessage, Connection]:
    compiled.choose(parser)
    message = RequestParser(Limits()).feed_head(b"\r\n".join([b"GET /a HTTP/1.1", b"Host: in", *lines, b"", b""]))
    compiled.choose("auto")
    assert message is not None
    connection: Any = Connection(host)
    Edge(form, ["127.0.0.1"], RequestIds("X-Request-ID") if ids else None).take(connection, message)
    return message, connection


LINES = st.sampled_from([
    b"X-Forwarded-For: 203.0.113.9", b"X-Forwarded-For: evil, 127.0.0.1", b"x_forwarded_for: 198.51.100.1",
    b"X-Forwarded-Host: shop.example", b"X-Forwarded-Port: 8443", b"Forwarded: for=203.0.113.9;host=shop.example",
    b"X-Forwarded-Anything: x", b"X-Real-IP: 203.0.113.9", b"X-Request-ID: abc", b"X-Request-ID: a b",
    b"x_request_id: abc", b"Accept: */*", b"Cookie: a=b", b"X-Own: x", b"X_Own: x",
])  # fmt: skip


@pytest.mark.parametrize("parser", FORMS)
@pytest.mark.parametrize("form", ["x-forwarded", "rfc7239", "none"])
def test_all_views_of_the_fields_agree(parser: str, form: str) -> None:
    @given(st.lists(LINES, max_size=8), st.booleans(), st.booleans())
    def agree(lines: list[bytes], trusted: bool, ids: bool) -> None:
        host = "127.0.0.1" if trusted else "127.0.0.2"
        message, connection = taken(lines, form=form, host=host, ids=ids, parser=parser)
        raw = message.raw_headers
        assert [(name.lower(), value) for name, value in raw] == message.fields
        assert sorted(message.headers.items()) == sorted((name.decode(), value.decode()) for name, value in raw)
        names = [name for name, _ in message.fields]
        assert names.count(b"host") == 1
        if form != "none":
            assert not any(b"_" in name for name in names if is_forwarding(name))
            if not trusted:
                assert not any(is_forwarding(name) for name in names)
                assert message.forwarded is None
                assert connection.told == (host, 1)
        if ids:
            assert names.count(b"x-request-id") == 1
            assert b"x_request_id" not in names
            assert (b"x-request-id", message.request_id.encode()) in message.fields
            assert message.request_id == "abc" or uuid.UUID(message.request_id).version == 7
            assert trusted or message.request_id != "abc"
        kept = [line for line in lines if line in (b"Accept: */*", b"Cookie: a=b", b"X-Own: x", b"X_Own: x")]
        assert [b"%b: %b" % pair for pair in raw if not note_of(pair[0].lower())][-len(kept) :] == kept or not kept

    agree()


def test_names_keep_the_form_in_which_they_were_sent() -> None:
    message, _ = taken([b"ACCEPT: */*", b"X-FORWARDED-HOST: shop.example", b"Forwarded: for=_a", b"User-AGENT: x"])
    assert message.raw_headers[:-1] == (
        (b"Host", b"shop.example"), (b"ACCEPT", b"*/*"), (b"X-FORWARDED-HOST", b"shop.example"), (b"User-AGENT", b"x"),
    )  # fmt: skip


def test_a_peer_is_judged_once() -> None:
    connection: Any = Connection("127.0.0.1")
    edge = Edge("x-forwarded", ["127.0.0.1"])
    assert edge.trusts(connection)
    connection.peer_address = ("192.0.2.1", 1)
    assert edge.trusts(connection)


def test_what_a_proxy_does_not_say_again_is_forgotten() -> None:
    connection: Any = Connection("127.0.0.1")
    edge = Edge("x-forwarded", ["127.0.0.1"])
    for line, client in ((b"X-Forwarded-For: 203.0.113.9", ("203.0.113.9", 0)), (b"A: b", ("127.0.0.1", 1))):
        message = RequestParser(Limits()).feed_head(b"GET / HTTP/1.1\r\nHost: in\r\n%b\r\n\r\n" % line)
        assert message is not None
        edge.take(connection, message)
        assert connection.told == client
