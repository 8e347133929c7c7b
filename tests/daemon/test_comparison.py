"""Whether a new generation answers 5xx more often: by figures, and never by chance or by a handful of requests."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preforkd.daemon.comparison import LEAST, SAMPLE_EVERY, WINDOW, Answers, Record, evidence

figures = st.integers(0, 5000).flatmap(lambda total: st.builds(Answers, st.just(total), st.integers(0, total)))


def record(old: tuple[int, int], new: tuple[int, int]) -> Record:
    return Record(old=Answers(*old), new=Answers(*new))


@pytest.mark.parametrize(
    ("old", "new", "worse"),
    [
        ((4000, 0), (2, 2), False),  # two requests decide nothing
        ((4000, 0), (LEAST - 1, LEAST - 1), False),
        ((4000, 0), (LEAST, LEAST), True),
        ((LEAST - 1, 0), (4000, 4000), False),
        ((0, 0), (4000, 4000), False),  # there is nothing to compare with
        ((LEAST, 0), (LEAST, LEAST), True),
        ((4000, 0), (LEAST, 1), False),  # one error may be chance
        ((4000, 0), (LEAST, 3), False),
        ((4000, 0), (LEAST, 4), True),
        ((LEAST, 0), (LEAST, 4), False),  # of the old too little is known
        ((4000, 40), (4000, 40), False),
        ((4000, 40), (4000, 80), False),  # just as much as is allowed
        ((4000, 40), (4000, 160), True),
        ((4000, 4000), (4000, 4000), False),
        ((4000, 2000), (4000, 0), False),
        ((10**9, 10**7), (10**9, 3 * 10**7), True),
    ],
)
def test_a_percent_more_of_errors_is_allowed_and_more_than_that_has_to_be_certain(
    old: tuple[int, int], new: tuple[int, int], worse: bool
) -> None:
    assert record(old, new).is_worse(1.0) is worse


@given(figures, figures, st.floats(0, 100))
def test_whatever_the_figures_there_is_an_answer_and_only_a_greater_share_is_worse(
    old: Answers, new: Answers, percent: float
) -> None:
    found = Record(old=old, new=new)
    assert evidence(old, new, percent / 100) >= 0
    if found.is_worse(percent):
        assert new.share > old.share + percent / 100
        assert min(old.total, new.total) >= LEAST
    assert not found.is_worse(0.0)


@pytest.mark.parametrize(("rate", "per_look"), [(0.0, 20), (0.002, 20), (0.02, 20), (0.2, 5)])
def test_two_generations_that_are_alike_are_hardly_ever_told_apart_in_a_minute_of_looks(
    rate: float, per_look: int
) -> None:
    dice = random.Random(1)  # always the same ones
    rolled_back = 0
    for _ in range(300):
        old = Answers(2000, sum(dice.random() < rate for _ in range(2000)))
        new = Answers()
        for _ in range(120):
            new += Answers(per_look, sum(dice.random() < rate for _ in range(per_look)))
            if Record(old=old, new=new).is_worse(0.5):
                rolled_back += 1
                break
    assert rolled_back <= 1


def test_what_the_old_generation_has_answered_in_the_last_minutes_counts_and_not_what_came_before() -> None:
    found = Record()
    for second in range(3600):
        found = Record(found.old + Answers(10, 10 if second < 600 else 0), found.new, found.before, found.samples)
        found = found.sampled(float(second))
    assert found.begun().counted.errors == 0
    assert WINDOW * 10 <= found.begun().counted.total <= (WINDOW + 2 * SAMPLE_EVERY) * 10
    assert len(found.samples) <= WINDOW / SAMPLE_EVERY + 2


def test_a_generation_that_is_younger_than_that_counts_as_a_whole() -> None:
    assert Record(old=Answers(7, 1)).begun().counted == Answers(7, 1)
    assert Record(old=Answers(700, 70), new=Answers(7, 1)).taken_over().begun().counted == Answers(7, 1)


def test_side_by_side_only_what_is_answered_from_then_on_counts() -> None:
    found = Record(old=Answers(700, 70)).begun().side_by_side()
    assert found.counted == Answers()


def test_figures_are_said_to_people_and_to_machines() -> None:
    found = record((4211, 0), (210, 34))
    assert found.said() == "5xx for 34 of 210 requests (16.2 %), before it for 0 of 4,211 requests"
    assert found.fields() == {"answered": 210, "errors": 34, "answered_before": 4211, "errors_before": 0}
