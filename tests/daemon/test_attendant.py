"""When an admin process is begun, dismissed and killed."""

from __future__ import annotations

from preforkd.daemon.attendant import (
    LEAVE_WITHIN,
    SILENT_FOR,
    Attendant,
    Begin,
    Dismiss,
    End,
    Order,
    ended,
    next_deadline,
    tend,
)


class Play:
    """A master with nothing but admin processes."""

    def __init__(self) -> None:
        self.now = 100.0
        self.state = Attendant()
        self.plan: int | None = 1
        self.beat = 0

    def tend(self, after: float = 0.0, *, beats: bool = True) -> list[Order]:
        self.now += after
        self.beat += beats
        self.state, orders = tend(self.state, self.plan, self.beat, self.now)
        return list(orders)

    def ends(self, number: int) -> None:
        self.state = ended(self.state, number, self.now)


def test_none_is_begun_for_nobody() -> None:
    play = Play()
    play.plan = None
    assert play.tend() == []
    assert next_deadline(play.state, None, play.now) is None


def test_one_is_begun_once() -> None:
    play = Play()
    assert play.tend() == [Begin(0, 1)]
    assert play.tend(1) == []


def test_one_that_has_died_is_replaced_and_ever_later_when_they_die_young() -> None:
    play = Play()
    play.tend()
    gaps = []
    for number in range(5):
        play.ends(number)
        assert play.tend() == []
        due = next_deadline(play.state, 1, play.now)
        assert due is not None
        gaps.append(round(due - play.now, 3))
        assert play.tend(due - play.now) == [Begin(number + 1, 1)]
    assert gaps == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert play.state.lost == 5


def test_one_that_has_lived_long_is_replaced_at_once() -> None:
    play = Play()
    play.tend()
    play.tend(60)
    play.ends(0)
    assert play.tend() == [Begin(1, 1)]


def test_another_plan_begins_another_and_lets_the_old_one_finish() -> None:
    play = Play()
    play.tend()
    play.plan = 2
    assert play.tend() == [Dismiss(0), Begin(1, 2)]
    play.ends(0)
    assert play.tend() == []
    assert (play.state.current, play.state.lost) == (1, 0)


def test_one_that_does_not_leave_is_killed() -> None:
    play = Play()
    play.tend()
    play.plan = None
    assert play.tend() == [Dismiss(0)]
    assert next_deadline(play.state, None, play.now) == play.now + LEAVE_WITHIN
    (order,) = play.tend(LEAVE_WITHIN)
    assert isinstance(order, End)
    assert order.number == 0


def test_one_that_hangs_is_killed_and_then_replaced() -> None:
    play = Play()
    play.tend()
    play.tend(10)
    due = next_deadline(play.state, 1, play.now)
    assert due == play.now + SILENT_FOR
    assert play.tend(SILENT_FOR - 1, beats=False) == []
    assert play.tend(1, beats=False) == [End(0, "it has hung for 30 s")]
    play.ends(0)
    assert play.tend() == [Begin(1, 1)]
