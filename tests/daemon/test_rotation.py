"""When changed certificate files are loaded, when they are refused, and when their end is warned of."""

from __future__ import annotations

import pytest

from preforkd.daemon.rotation import DAY, SETTLED, Watch, failed, seen, stage, warning

OLD, HALF, NEW = ((1,), (1,)), ((2,), (1,)), ((2,), (2,))


def test_files_that_have_not_changed_are_not_loaded() -> None:
    assert seen(Watch(OLD), OLD, 0.0) == (Watch(OLD), False)


def test_a_change_is_tried_at_once_and_again_until_it_fits() -> None:
    watch, is_due = seen(Watch(OLD), HALF, 10.0)
    assert is_due
    watch, is_final = failed(watch, 10.0)
    assert not is_final
    watch, is_due = seen(watch, HALF, 11.0)
    assert is_due
    watch, is_due = seen(watch, NEW, 12.0)
    assert is_due
    assert watch.since == 12.0


def test_what_does_not_fit_is_refused_once_when_it_has_not_changed_for_a_while() -> None:
    watch, _ = seen(Watch(OLD), HALF, 10.0)
    watch, is_final = failed(watch, 10.0 + SETTLED - 0.1)
    assert not is_final
    watch, is_final = failed(watch, 10.0 + SETTLED)
    assert is_final
    assert seen(watch, HALF, 100.0) == (watch, False)


def test_a_change_behind_what_was_refused_is_tried() -> None:
    watch, is_due = seen(Watch(OLD, refused=HALF), NEW, 1.0)
    assert is_due
    assert watch.changed == NEW


def test_files_that_are_as_before_again_are_not_tried() -> None:
    watch, _ = seen(Watch(OLD), HALF, 1.0)
    watch, is_due = seen(watch, OLD, 2.0)
    assert not is_due
    assert watch.changed is None


def test_files_that_change_all_the_time_are_refused_only_when_they_stand_still() -> None:
    watch = Watch(OLD)
    for second in range(30):
        watch, is_due = seen(watch, ((second,), None), float(second))
        assert is_due
        watch, is_final = failed(watch, float(second))
        assert not is_final


@pytest.mark.parametrize(
    ("life", "left", "due"),
    [
        (90 * DAY, 15 * DAY, 0),
        (90 * DAY, 14 * DAY, 1),
        (90 * DAY, 2 * DAY, 1),
        (90 * DAY, DAY, 2),
        (90 * DAY, 1, 2),
        (90 * DAY, 0, 3),
        (90 * DAY, -DAY, 3),
        (28 * DAY, 14 * DAY, 1),
        (27 * DAY, 14 * DAY, 0),  # it would be warned of for more than half of its life
        (7 * DAY, DAY, 1),
        (DAY, 3600, 0),
        (DAY, -1, 1),
    ],
)
def test_warnings_come_14_days_and_1_day_before_the_end_and_at_the_end(life: float, left: float, due: int) -> None:
    assert stage(1e9, 1e9 + life, 1e9 + life - left) == due


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (13.9 * DAY, "expires in 13 days, on 2027-01-15 08:00 UTC: renew it"),
        (1.5 * DAY, "expires in 36 hours,"),
        (7000, "expires in 1 hour,"),
        (30, "expires in 1 hour,"),
        (0, "has expired on 2027-01-15 08:00 UTC"),
    ],
)
def test_what_is_said_of_the_end(left: float, said: str) -> None:
    text = warning("/a.pem", 1800000000.0, 1800000000.0 - left)
    assert text.startswith("the certificate /a.pem ")
    assert said in text
