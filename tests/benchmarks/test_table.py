"""Figures as a table in Markdown."""

from __future__ import annotations

from tests.benchmarks.table import Costs, render


def test_the_median_of_the_rounds_is_shown_and_what_was_not_measured_is_left_out() -> None:
    rows: dict[str, dict[str, Costs]] = {"GET": {"a": [3.0, 1.0, 2.0], "b": "did not start"}, "POST": {"a": [4.0]}}
    assert render("us", rows, {"a": "ours", "b": "theirs", "c": "unused"}).splitlines() == [
        "| us   | ours | theirs |",
        "| ---- | ---: | -----: |",
        "| GET  |  2.0 |  fails |",
        "| POST |  4.0 |      - |",
    ]


def test_the_spread_stands_behind_the_median() -> None:
    assert "| 2.0 (1.0-3.0) |" in render("us", {"GET": {"a": [3.0, 1.0, 2.0]}}, {"a": "ours"}, spread=True)
