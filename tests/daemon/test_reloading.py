"""A reload on trial: by a canary, by deaths, by hanging, and by what its workers answer."""

from __future__ import annotations

import signal

import pytest

from preforkd.daemon.actions import Action, Commit, Fork, Kill, Log, RollBack, Send
from preforkd.daemon.comparison import WINDOW, Answers
from preforkd.daemon.events import (
    HeartbeatsRead,
    RestartAsked,
    ScaleAsked,
    StopAsked,
    WorkerFailed,
    WorkerGotTerm,
    WorkerReady,
    WorkerRetiring,
)
from preforkd.daemon.reloading import MUTE_AFTER
from preforkd.daemon.slots import SERVING, WorkerState
from preforkd.daemon.turn import Phase
from preforkd.workers.channel import Drain, Pause, Resume
from tests.daemon.test_policy import Play, kinds, sent, text

TRIAL = 30.0


class Tried(Play):
    """A master whose workers answer what they are told to, and whose reloads are on trial for 30 s."""

    def __init__(self, size: int = 4, **limits: float) -> None:
        super().__init__(size, **limits)
        self.answered: dict[int, Answers] = {}
        self.beat = 0

    def deploy(self, canary: int = 1, errors: float = 1.0, **more: object) -> list[Action]:
        options = {"trial": TRIAL, "trial_workers": canary, "trial_errors": errors, **more}
        return self.reload(**options)

    def answer(self, share: float, generation: int, requests: int = 100, hangs: frozenset[int] = frozenset()) -> None:
        """Half a second in which each worker of a generation answers so many requests, some of them with a 5xx."""
        for worker in self.state.workers.values():
            serves = worker.state in SERVING and worker.generation == generation
            more = Answers(requests, round(share * requests)) if serves else Answers()
            self.answered[worker.serial] = self.answered.get(worker.serial, Answers()) + more
        self.look(hangs)

    def look(self, hangs: frozenset[int] = frozenset()) -> list[Action]:
        self.beat += 1
        beats = {serial: 0 if serial in hangs else self.beat for serial in self.state.workers}
        answers = {serial: self.answered.get(serial, Answers()) for serial in self.state.workers}
        return self.happens(HeartbeatsRead, beats, frozenset(), answers, after=0.5)

    def serve(self, generation: int) -> list[int]:
        """The slots in which workers of a generation serve."""
        workers = self.state.workers.values()
        return sorted(w.slot for w in workers if w.state in SERVING and w.generation == generation)

    @property
    def ended(self) -> dict[str, object]:
        """What machines are told of the last reload that is over."""
        return next(dict(a.fields) for a in reversed(self.done) if isinstance(a, Log) and a.event == "reload")


def booted(size: int = 4, **limits: float) -> Tried:
    play = Tried(size, **limits)
    play.booted()
    return play


# A canary


def test_a_canary_serves_beside_the_old_generation_and_the_others_follow_when_it_has_passed() -> None:
    play = booted()
    assert [f.slot for f in play.deploy(canary=2) if isinstance(f, Fork)] == [0]
    play.all_ready()
    assert play.is_in(Phase.TRYING)
    assert (play.serve(1), play.serve(2)) == ([2, 3], [0, 1])
    assert sent(play.done, Pause) == [0, 1]
    play.pass_time(TRIAL - 0.1)
    assert play.is_in(Phase.TRYING)
    assert [f.slot for f in play.pass_time(0.1) if isinstance(f, Fork)] == [2]
    play.all_ready()
    assert play.is_in(Phase.PROVING)
    assert (play.serve(1), play.serve(2)) == ([], [0, 1, 2, 3])
    assert not kinds(play.pass_time(TRIAL - 0.1), Commit)
    assert Commit(2) in play.pass_time(0.1)


@pytest.mark.parametrize("canary", [0, 4, 9])
def test_a_canary_that_is_all_of_them_is_none(canary: int) -> None:
    play = booted()
    play.deploy(canary=canary)
    play.all_ready()
    assert play.is_in(Phase.PROVING)


def test_a_canary_that_dies_is_rolled_back_and_the_old_generation_has_served_all_the_time() -> None:
    play = booted()
    play.deploy()
    play.all_ready()
    play.pass_time(20)
    actions = play.exits(4, 1)
    assert RollBack(2) in actions
    assert sent(actions, Resume) == [0]
    assert play.serve(1) == [0, 1, 2, 3]
    assert not kinds(actions, Fork)
    assert "exit code 1" in str(play.ended["reason"])


def test_a_canary_that_somebody_has_killed_is_replaced_and_tried_anew() -> None:
    play = booted()
    play.deploy()
    play.all_ready()
    play.pass_time(TRIAL - 1)
    assert [f.generation for f in play.exits(4, None, signal.SIGKILL) if isinstance(f, Fork)] == [2]
    assert play.is_in(Phase.RELOADING)
    play.all_ready()
    play.pass_time(TRIAL - 1)
    assert play.is_in(Phase.TRYING)


def test_a_canary_that_does_not_boot_is_rolled_back() -> None:
    play = booted()
    play.deploy()
    assert RollBack(2) in play.happens(WorkerFailed, 4, "import", "broken", "")
    assert play.serve(1) == [0, 1, 2, 3]


def test_an_old_worker_that_dies_beside_a_canary_is_replaced_by_what_there_is_the_new_code() -> None:
    play = booted()
    play.deploy()
    play.all_ready()
    play.now += 60
    assert [(f.slot, f.generation) for f in play.exits(2, None, signal.SIGSEGV) if isinstance(f, Fork)] == [(2, 2)]
    assert play.state.target.number == 2, "that says nothing of the new one"


@pytest.mark.parametrize(
    ("kind", "more"),
    [(WorkerRetiring, (2, "max_requests")), (WorkerGotTerm, (2,)), (RestartAsked, (2, True))],
)
def test_an_old_worker_that_is_to_be_replaced_beside_a_canary_serves_until_the_others_follow(
    kind: type, more: tuple[object, ...]
) -> None:
    play = booted()
    play.deploy()
    play.all_ready()
    assert not kinds(play.happens(kind, *more), Fork)
    assert play.serve(1) == [1, 2, 3]
    assert kinds(play.pass_time(TRIAL), Fork)
    play.all_ready()
    assert play.serve(2) == [0, 1, 2, 3]


def test_scaling_beside_a_canary_adds_new_workers_and_takes_the_last_away() -> None:
    play = booted()
    play.deploy()
    play.all_ready()
    assert [(f.slot, f.generation) for f in play.happens(ScaleAsked, 1) if isinstance(f, Fork)] == [(4, 2)]
    play.all_ready()
    assert sent(play.happens(ScaleAsked, -1), Drain) == [5]
    assert sent(play.happens(ScaleAsked, -1), Pause) == [3]
    assert (play.serve(1), play.serve(2)) == ([1, 2], [0])
    play.exits(4, 1)
    assert play.serve(1) == [0, 1, 2]


def test_scaling_down_to_the_canary_leaves_nobody_without_a_worker() -> None:
    play = booted(2)
    play.deploy()
    play.all_ready()
    play.happens(ScaleAsked, -1)
    assert play.serve(2) == [0]
    play.pass_time(TRIAL)
    assert play.is_in(Phase.PROVING)
    play.pass_time(TRIAL)
    assert play.is_in(Phase.SERVING)


@pytest.mark.parametrize("size", [1, 2, 6])
def test_a_canary_of_a_reload_to_another_number_of_workers_has_all_old_ones_beside_it(size: int) -> None:
    play = booted()
    play.deploy(size=size, canary=1)
    play.all_ready()
    if size > 1:
        new = [0, *range(4, size)]  # slots that have never had a worker are filled at once
        assert (play.serve(1), play.serve(2)) == ([1, 2, 3], new)
        play.pass_time(TRIAL)
        play.all_ready()
    play.pass_time(TRIAL)
    assert play.serve(2) == list(range(size))


def test_a_stop_in_the_middle_of_a_trial_drains_both_generations() -> None:
    play = booted()
    play.deploy()
    play.all_ready()
    assert sorted(sent(play.happens(StopAsked, signal.SIGTERM, delay=True), Drain)) == [0, 1, 2, 3, 4]


def test_a_second_reload_has_its_canary_beside_the_generation_that_has_proved_itself() -> None:
    play = booted()
    play.deploy(canary=0)
    play.all_ready()
    assert play.serve(2) == [0, 1, 2, 3]
    actions = play.deploy()
    assert sent(actions, Resume) == [0, 1, 2, 3]
    assert sent(actions, Drain) == [4, 5, 6, 7]
    play.all_ready()
    assert (play.serve(1), play.serve(3)) == ([1, 2, 3], [0])
    assert RollBack(3) in play.exits(8, 1)
    assert play.serve(1) == [0, 1, 2, 3]


def test_without_a_trial_nobody_stands_by() -> None:
    play = booted()
    play.deploy(trial=0.0, canary=0)
    play.all_ready()
    assert Commit(2) in play.pass_time(0)


def test_a_death_counts_to_the_end_of_a_long_trial() -> None:
    play = booted()
    play.deploy(canary=0, trial=600.0)
    play.all_ready()
    play.pass_time(590)
    assert RollBack(2) in play.exits(5, None, signal.SIGSEGV)


# Hanging


@pytest.mark.parametrize("canary", [0, 1])
def test_a_new_worker_that_hangs_is_waited_for_when_the_trial_ends_and_rolled_back_when_it_is_ended(
    canary: int,
) -> None:
    play = booted()
    play.deploy(canary=canary, trial=5.0, stall_timeout=30.0)
    play.all_ready()
    (hangs,) = [w.serial for w in play.state.workers.values() if w.generation == 2 and w.slot == 0]
    for _ in range(58):
        play.look(frozenset({hangs}))
        play.pass_time(0)
        assert play.state.target.number == 2
        assert not kinds(play.done, Commit)
    for _ in range(4):
        play.look(frozenset({hangs}))
    assert Kill(hangs, signal.SIGABRT) in play.done
    assert RollBack(2) in play.done
    assert (play.serve(1), play.serve(2)) == ([0, 1, 2, 3], [])
    assert "hung" in str(play.ended["reason"])


def test_a_new_worker_that_answers_again_passes() -> None:
    play = booted(1)
    play.deploy(canary=0, trial=2.0)
    play.all_ready()
    for _ in range(8):
        play.look(frozenset({1}))
        play.pass_time(0)
    assert play.is_in(Phase.PROVING)
    play.look()
    assert Commit(2) in play.pass_time(MUTE_AFTER)


def test_where_no_worker_is_ended_for_hanging_none_is_waited_for() -> None:
    play = booted(1)
    play.deploy(canary=0, trial=2.0, stall_timeout=0.0)
    play.all_ready()
    for _ in range(5):
        play.look(frozenset({1}))
        play.pass_time(0)
    assert Commit(2) in play.done


# By what is answered


@pytest.mark.parametrize("canary", [0, 1])
def test_more_errors_than_before_roll_a_reload_back_with_the_figures(canary: int) -> None:
    play = booted()
    play.answer(0.0, 1)
    play.deploy(canary=canary)
    play.all_ready()
    play.answer(0.0, 1)
    play.answer(0.1, 2)
    assert RollBack(2) in play.done
    assert play.serve(1) == [0, 1, 2, 3]
    new = 100 if canary else 400
    old = 300 if canary else 400
    why = f"5xx for {new // 10} of {new} requests (10 %), before it for 0 of {old} requests: "
    why += "more than --trial-errors 1 allows"
    assert play.state.failure == why
    assert play.ended.pop("seconds")
    assert play.ended["result"] == "rolled_back"
    told = {"reason": why, "answered": new, "errors": new // 10, "answered_before": old, "errors_before": 0}
    assert {name: play.ended[name] for name in told} == told
    assert f"generation 2 is given up: {why}" in text(play.done)
    assert play.state.reloads == {"rolled_back": 1}


@pytest.mark.parametrize("canary", [0, 1])
@pytest.mark.parametrize(
    ("old", "new", "requests", "errors"),
    [
        (0.5, 0.5, 100, 1.0),  # it was no better before
        (0.0, 1.0, 100, 0.0),  # nobody has asked
        (0.0, 1.0, 2, 1.0),  # two requests decide nothing
        (0.0, 0.05, 100, 10.0),  # within what is allowed
    ],
)
def test_errors_that_are_no_more_than_before_or_too_few_to_tell_are_let_pass(
    canary: int, old: float, new: float, requests: int, errors: float
) -> None:
    play = booted()
    for _ in range(3):
        play.answer(old, 1)
    play.deploy(canary=canary, errors=errors)
    play.all_ready()
    play.answer(old, 1)
    play.answer(new, 2, requests=requests)
    play.pass_time(TRIAL)
    play.all_ready()
    play.pass_time(TRIAL)
    assert Commit(2) in play.done


def test_a_canary_is_compared_with_what_the_old_generation_answers_meanwhile() -> None:
    play = booted()
    play.answer(0.0, 1, requests=10_000)
    play.deploy()
    play.all_ready()
    play.answer(0.3, 1)  # a database is down: for both
    play.answer(0.3, 2)
    play.pass_time(TRIAL)
    assert play.state.target.number == 2
    assert "has passed its first trial (5xx for 30 of 100 requests (30 %), before it for 90 of 300" in text(play.done)


def test_without_a_canary_the_last_minutes_before_the_reload_count() -> None:
    play = booted()
    for _ in range(30):
        play.answer(0.5, 1)  # an hour ago
    play.now += 3600
    for _ in range(2 * int(WINDOW) + 60):
        play.answer(0.0, 1)
    play.deploy(canary=0)
    play.all_ready()
    play.answer(0.1, 2)
    assert RollBack(2) in play.done


def test_errors_before_the_last_new_worker_is_ready_count_too() -> None:
    play = booted()
    play.answer(0.0, 1)
    play.deploy(canary=0)
    play.happens(WorkerReady, 4)
    play.answer(1.0, 2)
    assert RollBack(2) in play.done
    assert play.serve(1) == [0, 1, 2, 3]


def test_the_result_of_a_trial_by_errors_says_what_was_compared_or_that_it_was_too_little() -> None:
    play = booted()
    play.answer(0.0, 1)
    play.deploy(canary=0)
    play.all_ready()
    play.answer(0.0, 2, requests=1)
    play.pass_time(TRIAL)
    said = " (5xx for 0 of 4 requests, before it for 0 of 400 requests: fewer than 20 decide nothing)"
    assert play.state.findings == said
    assert f"reload done: generation 2 has replaced the old one{said}" in text(play.done)
    assert (play.ended["result"], play.ended["answered"], play.ended["answered_before"]) == ("done", 4, 400)


def test_who_was_rolled_back_is_compared_with_the_same_again() -> None:
    play = booted()
    play.answer(0.0, 1)
    for generation in (2, 3):
        play.deploy(canary=0)
        play.all_ready()
        play.answer(1.0, generation)
        assert RollBack(generation) in play.done
    play.deploy(canary=0)
    play.all_ready()
    play.answer(0.0, 4)
    play.pass_time(TRIAL)
    assert Commit(4) in play.done
    play.deploy(canary=0)
    play.all_ready()
    play.answer(1.0, 5)
    assert RollBack(5) in play.done, "compared with generation 4"


def test_in_development_there_is_no_canary_and_no_trial() -> None:
    play = booted()
    play.deploy(development=True)
    play.all_ready()
    assert Commit(2) in play.pass_time(0)
    assert not play.in_state(WorkerState.STANDBY)


def test_nothing_is_sent_twice_when_errors_and_a_hang_come_in_one_look() -> None:
    play = booted()
    play.answer(0.0, 1)
    play.deploy(canary=0, stall_timeout=1.0)
    play.all_ready()
    play.look(frozenset({4, 5}))
    play.answer(1.0, 2, hangs=frozenset({4, 5}))
    play.answer(1.0, 2, hangs=frozenset({4, 5}))
    assert len([a for a in play.done if isinstance(a, RollBack)]) == 1
    drained = [a.serial for a in play.done if isinstance(a, Send) and isinstance(a.message, Drain)]
    assert len(drained) == len(set(drained))
