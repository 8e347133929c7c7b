"""The back-off of a slot."""

from preforkd.daemon.backoff import LONGEST, Backoff


def test_it_doubles_from_a_tenth_of_a_second_to_half_a_minute() -> None:
    backoff, delays = Backoff(), []
    for _ in range(11):
        backoff = backoff.young_death(now=1000.0)
        delays.append(round(backoff.until - 1000.0, 3))
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]


def test_a_crash_loop_that_lasts_a_year_does_not_overflow() -> None:
    assert Backoff(deaths=10**6).young_death(0.0).until == LONGEST
