"""The checks of `start_response`, whatever is remembered of earlier calls."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from preforkd.workers.gateways.hop_by_hop import HopByHopFields
from preforkd.workers.gateways.wsgi import headers as wsgi_headers
from preforkd.workers.gateways.wsgi.headers import Fields, check_field, parse_status, wire_text
from preforkd.workers.gateways.wsgi.response import WsgiResponse

HOP_BY_HOP = HopByHopFields(logging.getLogger("tests"))
EXCHANGE: Any = SimpleNamespace(wire=SimpleNamespace(exchange=None))


def begin(status: str, headers: Fields) -> WsgiResponse:
    return WsgiResponse(EXCHANGE, HOP_BY_HOP, status, headers)


def test_a_head_is_what_the_app_has_said() -> None:
    for _ in range(2):  # anew, and remembered
        head = begin("200 OK", [("Content-Type", "text/plain"), ("content-length", "13"), ("X-A", "b")])
        assert (head.status, head._reason, head.length) == (200, None, 13)
        assert head.lines == [b"Content-Type: text/plain\r\n", b"X-A: b\r\n"]
        assert not head._has_date
        assert not head._has_server


def test_what_one_response_does_to_its_head_is_not_seen_by_the_next() -> None:
    begin("200 OK", [("X-A", "b")]).lines.append(b"X-Evil: 1\r\n")
    assert begin("200 OK", [("X-A", "b")]).lines == [b"X-A: b\r\n"]


def test_the_apps_list_may_be_used_again() -> None:
    headers = [("X-A", "b")]
    head = begin("200 OK", headers)
    headers.append(("X-B", "c"))
    assert head.lines == [b"X-A: b\r\n"]


def test_date_and_server_are_noticed_in_any_case() -> None:
    head = begin("200 OK", [("DATE", "x"), ("server", "y")])
    assert (head._has_date, head._has_server) == (True, True)


def test_fields_of_the_connection_are_left_out_and_a_426_keeps_its_upgrade() -> None:
    for _ in range(2):  # anew, and remembered
        fields = [("Connection", "keep-alive"), ("UPGRADE", "h2c"), ("X-A", "b"), ("Transfer-Encoding", "chunked")]
        assert begin("200 OK", fields).lines == [b"X-A: b\r\n"]
        assert begin("426 Upgrade Required", fields).lines == [b"UPGRADE: h2c\r\n", b"X-A: b\r\n"]


def test_what_was_refused_once_is_refused_again() -> None:
    for _ in range(2):
        with pytest.raises(TypeError, match="must be str"):
            begin("200 OK", [("X-A", ["unhashable"])])  # type: ignore[list-item]  # what is refused
        with pytest.raises(ValueError, match="invalid status"):
            parse_status("nothing")


def test_equal_length_twice_is_one_length() -> None:
    assert begin("200 OK", [("Content-Length", "5"), ("content-length", "5")]).length == 5


@pytest.mark.usefixtures("pure_form")
def test_memory_for_fields_and_statuses_is_bounded() -> None:
    for number in range(3 * wsgi_headers._FIELDS_MAX):
        check_field(("X-Number", str(number)))
        parse_status(f"200 {number}")
    assert len(wsgi_headers._FIELDS) <= wsgi_headers._FIELDS_MAX
    assert len(wsgi_headers._STATUSES) <= wsgi_headers._STATUSES_MAX
    check_field(("X-Long", "x" * 1000))
    assert ("X-Long", "x" * 1000) not in wsgi_headers._FIELDS
    assert begin("200 1500", [("X-Number", "0")]).lines == [b"X-Number: 0\r\n"]


@pytest.mark.parametrize("subclass", [type("Text", (str,), {}), type("Pair", (tuple,), {})])
def test_subclasses_of_the_types_are_not_the_types(subclass: Any) -> None:
    value = subclass("ab")
    with pytest.raises(TypeError):
        begin("200 OK", [("X-A", value)] if isinstance(value, str) else [value])


def test_the_apps_bytes_are_the_bytes_on_the_wire() -> None:
    every_byte = bytes(range(256)).decode("latin-1")
    assert wire_text(every_byte).encode("utf-8", "surrogateescape") == bytes(range(256))


def test_what_only_equals_a_field_that_is_remembered_is_refused() -> None:
    class Text(str):
        __slots__ = ()

    for _ in range(2):
        begin("200 OK", [("X-Remembered", "yes")])
        with pytest.raises(TypeError, match="must be str"):
            begin("200 OK", [(Text("X-Remembered"), "yes")])
        with pytest.raises(TypeError, match="must be str"):
            begin("200 OK", [("X-Remembered", Text("yes"))])
