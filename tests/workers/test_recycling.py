"""When a worker asks to be replaced, and what it says then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from preforkd.daemon.options import Options
from preforkd.workers.recycling import WEIGH_EVERY, Recycling

MB = 1 << 20
SETTINGS = replace(Options(app="x", workers=1, limit_connections=1).worker_settings(), max_requests_jitter=0)


def recycling(draw: int = 0, own: list[int] | None = None, **changes: Any) -> Recycling:
    """The limits of a worker that began at 100 s."""
    sizes = own or []

    def beyond(limit: int) -> int | None:
        size = sizes.pop(0)
        return size if size > limit else None

    return Recycling(replace(SETTINGS, **changes), 100.0, lambda most: min(draw, most), beyond)


def test_without_limits_a_worker_stays_for_ever() -> None:
    assert recycling().reason(10**9, 10.0**9) is None


@pytest.mark.parametrize(("jitter", "drawn", "enough"), [(0, 7, 1000), (100, 7, 1007), (5, 7, 1005)])
def test_a_worker_retires_after_its_requests_and_what_it_has_drawn(jitter: int, drawn: int, enough: int) -> None:
    worker = recycling(drawn, max_requests=1000, max_requests_jitter=jitter)
    assert worker.reason(enough - 1, 101.0) is None
    assert worker.reason(enough, 101.0) == f"{enough} requests (--max-requests)"
    assert worker.reason(enough + 9, 101.0) == f"{enough + 9} requests (--max-requests)"


def test_each_worker_draws_for_itself_within_the_bounds() -> None:
    settings = replace(SETTINGS, max_requests=10, max_requests_jitter=5)
    limits = set()
    for _ in range(200):
        worker = Recycling(settings, 0.0)
        limits.add(next(n for n in range(99) if worker.reason(n, 0.0)))
    assert limits == set(range(10, 16))


def test_a_worker_retires_when_it_is_old_enough() -> None:
    worker = recycling(max_lifetime=60.0)
    assert worker.reason(0, 159.9) is None
    assert worker.reason(0, 160.0) == "it has served for 60 s (--max-lifetime)"


def test_a_worker_retires_when_it_has_grown_and_is_weighed_every_few_seconds() -> None:
    worker = recycling(own=[90 * MB, 130 * MB], max_rss=100 * MB)
    assert worker.reason(0, 100.0 + WEIGH_EVERY - 0.1) is None
    assert worker.reason(0, 100.0 + WEIGH_EVERY) is None, "weighed: 90 MB"
    assert worker.reason(0, 100.1 + WEIGH_EVERY) is None, "not weighed again so soon"
    said = worker.reason(0, 100.0 + 2 * WEIGH_EVERY)
    assert said == "it has 130 MB of its own memory, more than 100 MB (--max-rss)"


def test_the_size_of_a_process_is_its_real_one() -> None:
    worker = Recycling(replace(SETTINGS, max_rss=1 * MB), 0.0)
    said = worker.reason(0, WEIGH_EVERY)
    assert said is not None
    assert said.endswith("more than 1 MB (--max-rss)")
