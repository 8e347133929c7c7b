"""What is asked of the daemon, and what is answered when."""

from __future__ import annotations

import signal

import pytest

from preforkd.daemon.control import Pending, RefusedError, begun, event_of, outcome
from preforkd.daemon.events import (
    HaltAsked,
    ReopenAsked,
    RestartAsked,
    ScaleAsked,
    StacksAsked,
    StopAsked,
    WorkerFailed,
    WorkerReady,
)
from preforkd.daemon.policy import step
from preforkd.workers.channel import Ask
from tests.daemon.test_policy import TRIAL, Play


def ask(verb: str, number: int = 0) -> Ask:
    return Ask(7, verb, number, wait=True, by="process 1 of user 0")


class Asked(Play):
    """A master that is asked something."""

    def asked(self, verb: str, number: int = 0) -> Pending:
        newest = self.state.next_serial
        if verb == "reload":
            self.reload()
        else:
            self.state, _ = step(self.state, event_of(ask(verb, number), self.state, self.now))
        return Pending(ask(verb, number), self.now, self.state.target.number, newest)

    def outcome(self, pending: Pending) -> tuple[str, str] | None:
        answer = outcome(pending, self.state, self.now)
        return None if answer is None else (answer.result, answer.text)


def booted(size: int = 2) -> Asked:
    play = Asked(size)
    play.booted()
    return play


def test_verbs_that_are_signals() -> None:
    state = booted().state
    assert event_of(ask("stop"), state, 1.0) == StopAsked(1.0, signal.SIGTERM, delay=True)
    assert event_of(ask("halt"), state, 1.0) == HaltAsked(1.0, signal.SIGQUIT)
    assert event_of(ask("reopen"), state, 1.0) == ReopenAsked(1.0)
    assert event_of(ask("scale", 5), state, 1.0) == ScaleAsked(1.0, 3)
    assert event_of(ask("drain", 1), state, 1.0) == RestartAsked(1.0, 1, first=False)
    assert event_of(ask("restart", 1), state, 1.0) == RestartAsked(1.0, 1, first=True)
    assert event_of(ask("stack", 1), state, 1.0) == StacksAsked(1.0, 1)


@pytest.mark.parametrize(
    ("verb", "number", "why"),
    [("dance", 0, '"dance" is not one of reload, upgrade, reopen'), ("drain", 2, "slot 2 has no worker that serves")],
)
def test_what_cannot_be_done_is_refused(verb: str, number: int, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        event_of(ask(verb, number), booted().state, 1.0)


def test_a_daemon_that_stops_does_not_scale_but_can_be_stopped_again() -> None:
    play = booted()
    play.asked("stop")
    with pytest.raises(RefusedError, match="the daemon is stopping"):
        event_of(ask("scale", 3), play.state, play.now)
    assert event_of(ask("halt"), play.state, play.now)


def test_who_does_not_wait_is_told_what_has_begun() -> None:
    play = booted()
    answer = begun(play.asked("reload"), play.state)
    assert (answer.ident, answer.result, answer.text, answer.generation) == (7, "accepted", "generation 2 boots", 2)
    answer = begun(play.asked("scale", 100_000), play.state)
    assert (answer.result, answer.text) == ("refused", "there cannot be 100000 workers")


def test_a_reload_is_done_when_the_new_generation_has_proved_itself() -> None:
    play = booted()
    pending = play.asked("reload")
    assert play.outcome(pending) is None
    play.all_ready()
    play.pass_time(TRIAL - 0.1)
    assert play.outcome(pending) is None
    play.pass_time(0.2)
    assert play.outcome(pending) == ("done", "generation 2 has replaced the old one")


def test_a_reload_that_fails_says_why() -> None:
    play = booted()
    pending = play.asked("reload")
    play.happens(WorkerFailed, 2, "import", "hello.py:3: SyntaxError", "")
    result, text = play.outcome(pending) or ("", "")
    assert result == "failed"
    assert text.endswith("generation 2 is given up, 1 goes on: worker 0 (generation 2) did not boot: import: "
                         "hello.py:3: SyntaxError")  # fmt: skip


def test_a_reload_may_be_superseded_or_overtaken_by_a_stop() -> None:
    play = booted()
    first, second = play.asked("reload"), play.asked("reload")
    assert play.outcome(first) == ("failed", "generation 2 is superseded by 3")
    play.asked("stop")
    assert play.outcome(second) == ("failed", "the daemon is stopping")


def test_scaling_is_done_when_all_serve_or_the_others_are_gone() -> None:
    play = booted()
    more = play.asked("scale", 3)
    assert play.outcome(more) is None
    play.happens(WorkerReady, 2)
    assert play.outcome(more) == ("done", "there are 3 workers")
    less = play.asked("scale", 1)
    assert play.outcome(less) is None
    play.exits(1)
    play.exits(2)
    assert play.outcome(less) == ("done", "there are 1 workers")
    assert play.outcome(more) == ("failed", "another size has been asked for meanwhile: 1")


@pytest.mark.parametrize("verb", ["drain", "restart"])
def test_a_restart_is_done_when_the_slot_has_only_its_new_worker(verb: str) -> None:
    play = booted()
    pending = play.asked(verb, 1)
    assert play.outcome(pending) is None
    play.all_ready()
    assert play.outcome(pending) is None
    play.exits(1)
    assert play.outcome(pending) == ("done", "slot 1 has another worker")


@pytest.mark.parametrize("verb", ["reopen", "stack"])
def test_who_waits_for_what_is_over_at_once_is_answered_at_once(verb: str) -> None:
    play = booted()
    assert (play.outcome(play.asked(verb, 1)) or ("",))[0] == "done"


def test_a_stop_has_no_outcome_but_the_end() -> None:
    play = booted()
    assert play.outcome(play.asked("stop")) is None
