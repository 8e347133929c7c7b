"""The head of a response tells the truth: who was told keep-alive loses no request for a body that nobody has read."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS
from tests.e2e.unread_bodies import sweep

APP = APPS / "unread.py"


@pytest.mark.parallel
@pytest.mark.parametrize(
    ("target", "options"),
    [
        (f"{APP}:Unread", ()),
        (f"{APP}:asgi", ()),
        (f"{APP}:wsgi", ("--threads", "4")),
        (f"{APP}:wsgi", ("--threads", "0")),
    ],
    ids=["protocol", "asgi", "wsgi-threads", "wsgi-loop"],
)
def test_no_request_behind_keep_alive_is_lost_for_an_unread_body(
    start: Start, target: str, options: tuple[str, ...]
) -> None:
    daemon = start(*options, app=target, workers=1)
    assert asyncio.run(sweep(daemon.port)) == []
