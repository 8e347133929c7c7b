"""What becomes of an app's fields that belong to the connection."""

from __future__ import annotations

import logging

import pytest

from preforkd.workers.gateways.hop_by_hop import ASGI_NAMES, WSGI_NAMES, HopByHopFields

LOGGER = logging.getLogger("tests.hop_by_hop")


@pytest.mark.parametrize(
    ("name", "value", "closes"),
    [
        ("connection", "close", True),
        ("connection", "Close", True),
        ("connection", "x-mine , CLOSE", True),
        ("connection", "keep-alive", False),
        ("connection", "not-close", False),
        ("keep-alive", "close", False),
    ],
)
def test_a_connection_that_is_to_close_is_the_one_thing_that_an_app_gets(name: str, value: str, closes: bool) -> None:
    assert HopByHopFields(LOGGER).asks_to_close(name, value) == closes


def test_each_name_is_said_once_for_each_app(caplog: pytest.LogCaptureFixture) -> None:
    for fields in (HopByHopFields(LOGGER), HopByHopFields(LOGGER)):
        for number in range(3):
            for name in ("te", "keep-alive"):
                fields.asks_to_close(name, str(number))
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "the app sets te", "the app sets keep-alive"
    ] * 2  # fmt: skip


def test_a_value_ends_no_line_of_the_log_and_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    HopByHopFields(LOGGER).asks_to_close("te", "a\r\nERROR forged " + "x" * 1000)
    text = caplog.records[0].getMessage()
    assert "\n" not in text
    assert len(text) < 400


def test_a_426_says_what_to_upgrade_to() -> None:
    fields = HopByHopFields(LOGGER)
    assert fields.is_sent("upgrade", 426)
    assert not fields.is_sent("upgrade", 200)
    assert not fields.is_sent("connection", 426)


def test_trailers_are_announced_by_an_asgi_app_alone() -> None:
    assert b"trailer" not in ASGI_NAMES
    assert "trailer" in WSGI_NAMES
