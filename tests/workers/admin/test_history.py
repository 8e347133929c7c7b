"""Rates and percentiles of the last minutes."""

from __future__ import annotations

import pytest

from preforkd.workers.admin.history import SECONDS, History, Rates, quantile
from preforkd.workers.scoreboard import BOUNDS
from tests.workers.admin.boards import Board


@pytest.mark.parametrize(
    ("counts", "portion", "expected"),
    [
        ({}, 0.5, None),
        ({0: 10}, 0.5, 0.0025),
        ({0: 10}, 1.0, 0.005),
        ({0: 50, 5: 50}, 0.5, 0.005),
        ({0: 50, 5: 50}, 0.75, 0.0875),
        ({len(BOUNDS): 3}, 0.5, 10.0),
    ],
)
def test_a_percentile_is_interpolated_in_its_bucket(
    counts: dict[int, int], portion: float, expected: float | None
) -> None:
    buckets = [counts.get(index, 0) for index in range(len(BOUNDS) + 1)]
    assert quantile(buckets, portion) == (expected if expected is None else pytest.approx(expected))


def test_rates_are_those_of_the_last_second_and_of_ten_for_a_worker() -> None:
    board, history = Board(2), History()
    history.take(board.read(), 50.0, 2)
    assert (list(history.samples), history.all()) == ([], Rates())
    for second in range(1, 21):
        for _ in range(second):
            board.tallies[0].request("GET", 200, 0.001)
        board.tallies[1].request("GET", 500, 0.001)
        history.take(board.read(after=second), 50.0 + second, 2)
    assert (history.all().requests, history.all().errors) == (21.0, 1.0)
    assert history.worker(0).requests == sum(range(12, 21)) / 9
    assert history.worker(1).errors == 1.0
    assert history.worker(99) == Rates()
    assert [one.rates.requests for one in history.samples][:3] == [2.0, 3.0, 4.0]


def test_ten_minutes_are_kept() -> None:
    board, history = Board(1), History()
    for second in range(SECONDS + 50):
        history.take(board.read(after=second), float(second), 1)
    assert len(history.samples) == SECONDS
    assert history.samples[0].time == 50.0
