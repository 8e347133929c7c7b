"""The policy of the master, each promise a test; then every (phase, event) pair, and random walks with invariants."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest

from preforkd.daemon.actions import (
    Action,
    Announce,
    CloseListeners,
    Commit,
    DumpStacks,
    Exit,
    Fork,
    ForkNoMore,
    Kill,
    Log,
    ReopenLogs,
    RollBack,
    Send,
    Show,
)
from preforkd.daemon.events import (
    Event,
    ForkFailed,
    HaltAsked,
    HeartbeatsRead,
    ReloadAsked,
    ReloadRefused,
    ReopenAsked,
    RestartAsked,
    ScaleAsked,
    StacksAsked,
    Started,
    StopAsked,
    TimePassed,
    WorkerExited,
    WorkerFailed,
    WorkerGotTerm,
    WorkerReady,
    WorkerRetiring,
    WorkerStacks,
)
from preforkd.daemon.policy import _ROWS, MOST_WORKERS, SILENT_BOOTS, TABLE, next_deadline, step
from preforkd.daemon.slots import Generation, WorkerState
from preforkd.daemon.turn import Phase, State
from preforkd.workers.channel import INTERNAL, Drain, Pause, Reopen, Resume

TRIAL = Generation(1, 1).trial
KINDS: tuple[type, ...] = (
    Started,
    StopAsked,
    HaltAsked,
    ReloadAsked,
    ReloadRefused,
    RestartAsked,
    StacksAsked,
    ScaleAsked,
    ReopenAsked,
    ForkFailed,
    WorkerReady,
    WorkerFailed,
    WorkerGotTerm,
    WorkerRetiring,
    WorkerStacks,
    WorkerExited,
    HeartbeatsRead,
    TimePassed,
)


class Play:
    """A master without a system: tell it what happens, see what it does."""

    def __init__(self, size: int = 2, **limits: float) -> None:
        self.generation = Generation(1, size, **limits)  # type: ignore[arg-type]  # all limits are floats
        self.state = State(self.generation)
        self.now = 100.0
        self.done: list[Action] = []

    def happens(self, kind: Callable[..., Event], *args: object, after: float = 0.0, **more: object) -> list[Action]:
        """Feed one event; returns the actions."""
        self.now += after
        self.state, actions = step(self.state, kind(self.now, *args, **more))
        self.done += actions
        return list(actions)

    def exits(self, serial: int, code: int | None = 0, signum: int | None = None, oom: bool = False) -> list[Action]:
        return self.happens(WorkerExited, serial, code=code, signum=signum, oom=oom, in_flight=0)

    def in_state(self, state: WorkerState) -> list[int]:
        return [w.serial for w in self.state.workers.values() if w.state is state]

    def booted(self) -> Play:
        """All first workers are ready."""
        self.happens(Started)
        self.all_ready()
        self.done.clear()
        return self

    def all_ready(self) -> None:
        while starting := self.in_state(WorkerState.STARTING):
            self.happens(WorkerReady, starting[0], after=0.1)

    def reload(self, **changes: object) -> list[Action]:
        generation = Generation(0, **{"size": self.generation.size, **changes})  # type: ignore[arg-type]  # as above
        return self.happens(ReloadAsked, generation)

    def pass_time(self, seconds: float) -> list[Action]:
        """Let time pass, with a turn at each deadline on the way."""
        end = self.now + seconds
        actions: list[Action] = []
        while (due := next_deadline(self.state, self.now)) is not None and due <= end:
            actions += self.happens(TimePassed, after=due - self.now)
        self.now = end
        return actions + self.happens(TimePassed)

    def is_in(self, phase: Phase) -> bool:
        return self.state.phase is phase

    @property
    def exit_code(self) -> int | None:
        return next((a.code for a in self.done if isinstance(a, Exit)), None)


def kinds(actions: list[Action], kind: type) -> list[Action]:
    return [action for action in actions if isinstance(action, kind)]


def sent(actions: list[Action], kind: type) -> list[int]:
    return [a.serial for a in actions if isinstance(a, Send) and isinstance(a.message, kind)]


def text(actions: list[Action]) -> str:
    return "\n".join(a.text for a in actions if isinstance(a, Log))


# Boot


def test_all_workers_are_forked_at_the_start_each_with_its_own_row() -> None:
    play = Play(3)
    forks = [a for a in play.happens(Started) if isinstance(a, Fork)]
    assert [(f.slot, f.generation, f.row) for f in forks] == [(0, 1, 0), (1, 1, 1), (2, 1, 2)]


def test_the_first_ready_worker_announces_the_daemon_once() -> None:
    play = Play(2)
    play.happens(Started)
    assert kinds(play.happens(WorkerReady, 1), Announce)
    assert not kinds(play.happens(WorkerReady, 0), Announce)
    assert play.is_in(Phase.SERVING)


def test_a_first_boot_that_fails_says_so_once_and_exits_3_when_no_worker_is_left() -> None:
    play = Play(2)
    play.happens(Started)
    failed = play.happens(WorkerFailed, 0, "import", "hello.py:3: no module named x", "Traceback ...")
    assert "hello.py:3: no module named x\nTraceback ..." in text(failed)
    assert not play.happens(WorkerFailed, 1, "import", "hello.py:3: no module named x", "")
    assert {a.serial for a in play.done if isinstance(a, Kill)} == {0, 1}
    play.exits(0, 3)
    assert play.exit_code is None
    play.exits(1, 3)
    assert play.exit_code == 3


def test_a_first_boot_that_hangs_is_aborted_for_its_stack_and_exits_3() -> None:
    play = Play(1, startup_timeout=10)
    play.happens(Started)
    actions = play.pass_time(10)
    assert Kill(0, signal.SIGABRT) in actions
    assert "--startup-timeout" in text(actions)
    assert Kill(0, signal.SIGKILL) in play.pass_time(1)
    play.exits(0, None, signal.SIGKILL)
    assert play.exit_code == 3


def test_an_app_that_ends_the_process_at_import_exits_3() -> None:
    play = Play(1)
    play.happens(Started)
    play.exits(0, 7)
    assert play.exit_code == 3


def test_a_failure_of_our_own_start_is_no_fault_of_the_app_and_exits_1() -> None:
    play = Play(1)
    play.happens(Started)
    failed = text(play.happens(WorkerFailed, 0, INTERNAL, "TypeError: x", "Traceback ..."))
    assert "this is a bug in preforkd: TypeError: x\nTraceback ..." in failed
    play.exits(0, 1)
    assert play.exit_code == 1


def test_a_process_that_ends_where_no_code_of_the_app_runs_is_no_fault_of_the_app_and_exits_1() -> None:
    play = Play(1)
    play.happens(Started)
    died = text(play.happens(WorkerExited, 0, code=7, signum=None, oom=False, in_flight=0, loading=False))
    assert "the app ended" not in died
    assert play.exit_code == 1


def test_workers_that_signals_end_before_any_was_ready_are_tried_again_and_then_given_up_with_4() -> None:
    play = Play(1)
    play.happens(Started)
    for serial in range(SILENT_BOOTS):
        play.exits(serial, None, signal.SIGSEGV)
        play.pass_time(5)
    assert len(kinds(play.done, Fork)) == SILENT_BOOTS
    assert play.exit_code == 4


# Death


def test_a_worker_that_is_killed_is_replaced_in_the_same_turn() -> None:
    play = Play(2).booted()
    play.now += 60
    forks = kinds(play.exits(0, None, signal.SIGKILL), Fork)
    assert [(f.slot, f.generation) for f in forks if isinstance(f, Fork)] == [(0, 1)]


def test_killing_a_young_worker_every_second_never_delays_its_successor() -> None:
    play = Play(1).booted()
    for serial in range(10):
        play.now += 1
        assert kinds(play.exits(serial, None, signal.SIGKILL), Fork)
        play.all_ready()


def test_workers_that_die_young_are_replaced_ever_more_slowly_and_never_end_the_daemon() -> None:
    play = Play(1).booted()
    gaps = []
    for _ in range(12):
        serial = play.in_state(WorkerState.READY)[0]
        assert not kinds(play.exits(serial, 1), Fork)
        died = play.now
        deadline = next_deadline(play.state, play.now)
        assert deadline is not None
        assert kinds(play.pass_time(deadline - play.now), Fork)
        gaps.append(round(play.now - died, 3))
        play.all_ready()
    assert gaps == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0]
    assert play.exit_code is None


def test_one_long_life_ends_the_back_off() -> None:
    play = Play(1).booted()
    play.exits(0, 1)
    play.pass_time(1)
    play.all_ready()
    play.now += 60
    assert kinds(play.exits(1, 1), Fork)
    assert play.state.backoffs == {}


def test_an_oom_kill_counts_as_a_young_death() -> None:
    play = Play(1).booted()
    actions = play.exits(0, None, signal.SIGKILL, oom=True)
    assert not kinds(actions, Fork)
    assert "out of memory" in text(actions)


def test_a_replacement_that_cannot_boot_is_tried_again_and_the_others_serve() -> None:
    play = Play(2).booted()
    play.exits(0, None, signal.SIGKILL)
    play.happens(WorkerFailed, 2, "import", "broken", "")
    play.exits(2, 3)
    assert play.in_state(WorkerState.READY) == [1]
    assert kinds(play.pass_time(0.2), Fork)


def test_a_fork_that_fails_is_tried_again() -> None:
    play = Play(1).booted()
    play.exits(0, None, signal.SIGKILL)
    actions = play.happens(ForkFailed, 1, "Cannot allocate memory")
    assert "Cannot allocate memory" in text(actions)
    assert kinds(play.pass_time(0.2), Fork)


def test_the_log_says_why_a_worker_ended_and_what_it_cost() -> None:
    play = Play(1).booted()
    actions = play.happens(WorkerExited, 0, code=None, signum=signal.SIGSEGV, oom=False, in_flight=3)
    expected = "worker 0 (generation 1) ended: signal SIGSEGV, with 3 requests in flight at its last heartbeat"
    assert f"{expected}; crashed: 1 since the start" in text(actions)


def test_lost_workers_are_counted_by_cause_and_summed_up_at_the_end() -> None:
    play = Play(1, stall_timeout=3).booted()
    play.now += 60
    play.exits(0, None, signal.SIGKILL)
    play.all_ready()
    play.now += 60
    assert "killed: 2 since the start" in text(play.exits(1, None, signal.SIGKILL))
    play.all_ready()
    for _ in range(8):
        beats(play, {2: 7})
    play.exits(2, None, signal.SIGABRT)
    play.all_ready()
    play.happens(StopAsked, signal.SIGTERM, delay=True)
    assert "workers lost since the start: 2 killed, 1 hung" in text(play.exits(3))


def test_a_worker_that_has_drained_is_not_lost() -> None:
    play = Play(1).booted()
    play.happens(StopAsked, signal.SIGTERM, delay=True)
    play.exits(0)
    assert play.state.losses == {}


def test_a_worker_that_somebody_has_sent_a_term_serves_until_its_successor_is_ready() -> None:
    play = Play(1, graceful_timeout=25, shutdown_timeout=5).booted()
    actions = play.happens(WorkerGotTerm, 0)
    assert kinds(actions, Fork)
    assert not kinds(actions, Send)
    assert not kinds(play.happens(WorkerGotTerm, 0), Fork), "told twice is told once"
    assert sent(play.happens(WorkerReady, 1), Drain) == [0]
    assert not kinds(play.exits(0, 0), Fork)


@pytest.mark.parametrize("master_first", [True, False])
def test_a_term_to_all_is_one_stop_with_one_clock_whoever_hears_it_first(master_first: bool) -> None:
    play = Play(2, drain_delay=3).booted()
    stopped = play.now
    if master_first:
        actions = play.happens(StopAsked, signal.SIGTERM, delay=True)
        assert not play.happens(WorkerGotTerm, 0, after=0.01)
        assert not play.happens(WorkerGotTerm, 1)
    else:
        play.happens(WorkerGotTerm, 0)
        play.happens(WorkerGotTerm, 1)
        actions = play.happens(StopAsked, signal.SIGTERM, delay=True)
        assert Kill(2, signal.SIGTERM) in actions, "the successor that is booting"
    told = {a.serial: a.message for a in actions if isinstance(a, Send)}
    assert told == dict.fromkeys([0, 1], Drain(stopped + 3, stopped + 28, final=True))
    assert not kinds(play.happens(WorkerGotTerm, 1), Fork)


def test_an_old_worker_that_stands_by_goes_when_it_gets_a_term_and_comes_back_with_a_rollback() -> None:
    play = Play(2).booted()
    play.reload()
    play.all_ready()
    assert sent(play.happens(WorkerGotTerm, 0), Drain) == [0]
    actions = play.exits(2, 1)
    assert sent(actions, Resume) == [1]
    assert [f.slot for f in actions if isinstance(f, Fork)] == [0], "the generation before has a worker less"


def test_a_worker_of_the_old_generation_that_gets_a_term_serves_until_the_new_one_is_ready() -> None:
    play = Play(1).booted()
    play.reload()
    assert not play.happens(WorkerGotTerm, 0) or not sent(play.done, Drain)
    assert sent(play.happens(WorkerReady, 1), Pause) == [0]


def test_a_term_to_a_worker_that_boots_has_it_replaced_and_is_no_reason_to_roll_back() -> None:
    play = Play(1).booted()
    play.reload()
    assert "killed: 1" in text(play.exits(1, None, signal.SIGTERM))
    assert play.is_in(Phase.RELOADING)
    assert kinds(play.pass_time(0.1), Fork)


def test_an_app_whose_boot_sends_itself_a_term_is_given_up_like_any_other_that_does_not_boot() -> None:
    play = Play(1).booted()
    play.reload()
    for _ in range(SILENT_BOOTS):
        (serial,) = play.in_state(WorkerState.STARTING)
        play.exits(serial, None, signal.SIGTERM)
        play.pass_time(5)
    assert play.is_in(Phase.RELOADING)
    play.exits(play.in_state(WorkerState.STARTING)[0], None, signal.SIGTERM)
    assert play.is_in(Phase.SERVING)
    assert play.state.target.number == 1

    play = Play(1)
    play.happens(Started)
    while play.in_state(WorkerState.STARTING):
        play.exits(play.in_state(WorkerState.STARTING)[0], None, signal.SIGTERM)
        play.pass_time(31)
    assert play.exit_code == 4


def test_terms_to_workers_of_the_first_boot_do_not_make_the_daemon_give_up() -> None:
    play = Play(8)
    play.happens(Started)
    for serial in range(8):
        play.exits(serial, None, signal.SIGTERM)
    assert play.is_in(Phase.BOOTING)
    play.happens(StopAsked, signal.SIGTERM, delay=True)
    for serial in play.in_state(WorkerState.DYING):
        play.exits(serial, None, signal.SIGTERM)
    assert play.exit_code == 0


# Reload


def test_a_reload_relieves_a_worker_only_when_its_successor_is_ready() -> None:
    play = Play(2).booted()
    forks = kinds(play.reload(), Fork)
    assert [(f.slot, f.generation) for f in forks if isinstance(f, Fork)] == [(0, 2)]
    assert sent(play.done, Pause) == []
    actions = play.happens(WorkerReady, 2)
    assert sent(actions, Pause) == [0]
    assert kinds(actions, Fork), "the next slot follows"


@pytest.mark.parametrize(("surge", "booting"), [(0, 2), (1, 1), (5, 5), (99, 8)])
def test_a_reload_boots_a_quarter_of_the_workers_at_a_time_or_as_many_as_it_is_told(surge: int, booting: int) -> None:
    play = Play(8).booted()
    assert len(kinds(play.reload(surge=surge), Fork)) == booting


def test_the_old_generation_stands_by_until_the_new_one_has_proved_itself() -> None:
    play = Play(2).booted()
    play.reload()
    play.all_ready()
    assert play.is_in(Phase.PROVING)
    assert play.in_state(WorkerState.STANDBY) == [0, 1]
    actions = play.pass_time(TRIAL)
    assert Commit(2) in actions
    assert sent(actions, Drain) == [0, 1]
    assert play.is_in(Phase.SERVING)


def test_a_generation_that_fails_to_boot_is_rolled_back() -> None:
    play = Play(2).booted()
    play.reload()
    actions = play.happens(WorkerFailed, 2, "import", "hello.py:3: SyntaxError", "")
    assert "hello.py:3: SyntaxError" in text(actions)
    assert RollBack(2) in actions
    play.exits(2, 3)
    assert play.in_state(WorkerState.READY) == [0, 1]
    assert not kinds(play.pass_time(60), Fork)


def test_a_generation_that_hangs_at_import_is_rolled_back() -> None:
    play = Play(2, startup_timeout=10).booted()
    play.reload(startup_timeout=10)
    assert RollBack(2) in play.pass_time(10)
    assert play.in_state(WorkerState.READY) == [0, 1]


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_a_generation_that_dies_soon_after_ready_is_rolled_back_to_the_one_that_stands_by(seconds: float) -> None:
    play = Play(2).booted()
    play.reload()
    play.all_ready()
    play.pass_time(seconds)
    actions = play.exits(2, 1)
    assert sent(actions, Resume) == [0, 1]
    assert sent(actions, Drain) == [3]
    assert play.in_state(WorkerState.READY) == [0, 1]
    assert not kinds(actions, Fork)


def test_a_kill_of_a_worker_on_trial_is_no_reason_to_roll_back() -> None:
    play = Play(2).booted()
    play.reload()
    play.all_ready()
    assert kinds(play.exits(2, None, signal.SIGKILL), Fork)
    assert play.is_in(Phase.PROVING)


def test_a_good_reload_after_a_bad_one_works() -> None:
    play = Play(1).booted()
    play.reload()
    play.happens(WorkerFailed, 1, "import", "broken", "")
    play.exits(1, 3)
    play.reload()
    play.all_ready()
    play.pass_time(TRIAL)
    assert play.state.committed is not None
    assert play.state.committed.number == 3


def test_a_second_reload_supersedes_the_first_and_can_still_be_rolled_back_to_the_generation_before_both() -> None:
    play = Play(2).booted()
    play.reload()
    play.happens(WorkerReady, 2)
    actions = play.reload()
    assert RollBack(2) in actions
    assert Kill(3, signal.SIGTERM) in actions, "the one that was still booting"
    newest = play.in_state(WorkerState.STARTING)
    play.happens(WorkerFailed, newest[0], "import", "broken", "")
    assert play.in_state(WorkerState.READY) == [0, 1]
    assert play.state.workers[2].state is WorkerState.DRAINING


def test_a_reload_before_anything_has_served_boots_the_new_generation_instead() -> None:
    play = Play(1).booted()
    play = Play(1)
    play.happens(Started)
    actions = play.reload()
    assert Kill(0, signal.SIGTERM) in actions
    assert kinds(actions, Fork)
    play.exits(0, None, signal.SIGTERM)
    play.all_ready()
    assert play.is_in(Phase.SERVING)
    assert play.exit_code is None


def test_a_reload_to_fewer_workers_keeps_the_others_until_all_new_ones_serve() -> None:
    play = Play(3).booted()
    play.reload(size=1)
    assert sent(play.done, Pause) == []
    play.all_ready()
    assert sent(play.done, Pause) == [0, 1, 2]
    play.pass_time(TRIAL)
    assert sent(play.done, Drain) == [0, 1, 2]


def test_a_reload_to_more_workers_fills_the_new_slots_too() -> None:
    play = Play(1).booted()
    play.reload(size=3)
    play.all_ready()
    assert play.is_in(Phase.PROVING)
    assert len(play.in_state(WorkerState.READY)) == 3


# Scaling and recycling


def test_ttin_adds_a_worker_and_ttou_drains_the_last() -> None:
    play = Play(2).booted()
    assert [f.slot for f in play.happens(ScaleAsked, 1) if isinstance(f, Fork)] == [2]
    play.all_ready()
    assert sent(play.happens(ScaleAsked, -1), Drain) == [2]


def test_scaling_stops_at_one_and_at_what_the_scoreboard_holds() -> None:
    play = Play(1).booted()
    assert "refused" in text(play.happens(ScaleAsked, -1))
    assert play.state.target.size == 1
    play.reload(size=MOST_WORKERS)
    assert "refused" in text(play.happens(ScaleAsked, 1))


def test_a_worker_that_retires_serves_until_its_successor_is_ready() -> None:
    play = Play(2).booted()
    assert kinds(play.happens(WorkerRetiring, 0, "max_requests"), Fork)
    assert sent(play.done, Drain) == []
    assert sent(play.happens(WorkerReady, 2), Drain) == [0]


def test_only_one_worker_is_recycled_at_a_time() -> None:
    play = Play(3).booted()
    play.happens(WorkerRetiring, 0, "max_requests")
    assert not kinds(play.happens(WorkerRetiring, 1, "max_requests"), Fork)
    assert [f.slot for f in play.happens(WorkerReady, 3) if isinstance(f, Fork)] == [1]


# Hung workers


def beats(
    play: Play, values: dict[int, int], seconds: float = 0.5, frozen: frozenset[int] = frozenset()
) -> list[Action]:
    return play.happens(HeartbeatsRead, values, frozen, after=seconds)


def test_a_worker_without_a_heartbeat_is_reported_once_and_then_aborted_killed_and_replaced() -> None:
    play = Play(2, stall_timeout=3).booted()
    actions: list[Action] = []
    for turn in range(1, 12):
        actions += beats(play, {0: 7, 1: turn})
    assert len(kinds(actions, DumpStacks)) == 1
    assert Kill(0, signal.SIGABRT) in actions
    assert [f.slot for f in actions if isinstance(f, Fork)] == [0]
    assert Kill(0, signal.SIGKILL) in play.pass_time(1)
    assert play.in_state(WorkerState.READY) == [1]


def test_nobody_is_killed_because_the_master_has_slept() -> None:
    play = Play(1, stall_timeout=1).booted()
    beats(play, {0: 1})
    actions = beats(play, {0: 1}, seconds=40)
    actions += beats(play, {0: 2})
    assert not kinds(actions, Kill)
    assert not kinds(actions, DumpStacks)


def test_a_worker_that_somebody_has_stopped_does_not_hang() -> None:
    play = Play(1, stall_timeout=3).booted()
    actions = [action for _ in range(20) for action in beats(play, {0: 1}, frozen=frozenset({0}))]
    assert not kinds(actions, Kill)
    assert not kinds(actions, DumpStacks)


def test_a_worker_that_answers_again_is_left_alone() -> None:
    play = Play(1, stall_timeout=30).booted()
    for _ in range(5):
        beats(play, {0: 1})
    assert "answers again" in text(beats(play, {0: 2}))


def test_a_stall_timeout_of_0_never_kills() -> None:
    play = Play(1, stall_timeout=0).booted()
    assert not [a for _ in range(100) for a in beats(play, {0: 1}) if isinstance(a, Kill)]


# Stop


def test_term_drains_all_closes_the_listeners_and_exits_0() -> None:
    play = Play(2).booted()
    actions = play.happens(StopAsked, signal.SIGTERM, delay=True)
    assert sent(actions, Drain) == [0, 1]
    assert kinds(actions, CloseListeners)
    assert not kinds(play.exits(0), Fork)
    play.exits(1)
    assert play.exit_code == 0
    assert play.is_in(Phase.GONE)


@pytest.mark.parametrize("drain_delay", [0, 3])
@pytest.mark.parametrize(
    ("ask", "final"),
    [
        (lambda play: play.reload(), False),
        (lambda play: play.happens(ScaleAsked, -1), False),
        (lambda play: play.happens(StopAsked, signal.SIGTERM, delay=True), True),
    ],
    ids=["reload", "scale", "stop"],
)
def test_a_worker_that_is_ready_when_it_is_told_to_end_drains(
    ask: Callable[[Play], object], final: bool, drain_delay: float
) -> None:
    play = Play(1, drain_delay=drain_delay).booted()
    play.happens(ScaleAsked, 1)
    (late,) = play.in_state(WorkerState.STARTING)
    ask(play)
    assert play.in_state(WorkerState.DYING) == [late]
    actions = play.happens(WorkerReady, late)
    stop = play.now + (drain_delay if final else 0)
    assert [a.message for a in actions if isinstance(a, Send) and a.serial == late] == [
        Drain(stop, stop + 25, final=final)
    ]
    assert not [a for a in play.pass_time(20) if isinstance(a, Kill) and a.serial == late]


def test_a_worker_that_is_ready_when_it_is_found_overdue_ends() -> None:
    play = Play(1).booted()
    play.happens(ScaleAsked, 1)
    (late,) = play.in_state(WorkerState.STARTING)
    play.pass_time(60)
    assert play.in_state(WorkerState.DYING) == [late]
    assert not kinds(play.happens(WorkerReady, late), Send)


def test_term_goes_on_accepting_for_the_drain_delay_and_int_does_not() -> None:
    play = Play(1, drain_delay=3).booted()
    actions = play.happens(StopAsked, signal.SIGTERM, delay=True)
    assert not kinds(actions, CloseListeners)
    assert kinds(actions, ForkNoMore)
    drains = [a.message for a in actions if isinstance(a, Send)]
    assert drains == [Drain(play.now + 3, play.now + 28, final=True)]
    assert kinds(play.pass_time(3), CloseListeners)

    play = Play(1, drain_delay=3).booted()
    assert kinds(play.happens(StopAsked, signal.SIGINT, delay=False), CloseListeners)


def test_a_worker_that_outlives_the_budget_is_killed() -> None:
    play = Play(1, graceful_timeout=25, shutdown_timeout=5).booted()
    play.happens(StopAsked, signal.SIGTERM, delay=True)
    assert not kinds(play.pass_time(30), Kill)
    assert Kill(0, signal.SIGKILL) in play.pass_time(1)
    play.exits(0, None, signal.SIGKILL)
    assert play.exit_code == 0


@pytest.mark.parametrize("second", [StopAsked, HaltAsked])
def test_a_second_stop_or_quit_ends_at_once(second: Callable[..., Event]) -> None:
    play = Play(2).booted()
    play.happens(StopAsked, signal.SIGTERM, delay=True)
    more = {"delay": True} if second is StopAsked else {}
    signum = signal.SIGTERM if second is StopAsked else signal.SIGQUIT
    actions = play.happens(second, signum, **more)
    assert kinds(actions, Kill) == [Kill(0, signal.SIGKILL), Kill(1, signal.SIGKILL)]
    play.exits(0, None, signal.SIGKILL)
    play.exits(1, None, signal.SIGKILL)
    assert play.exit_code == 128 + signum


def test_quit_ends_at_once() -> None:
    play = Play(1).booted()
    play.happens(HaltAsked, signal.SIGQUIT)
    play.exits(0, None, signal.SIGKILL)
    assert play.exit_code == 131


def test_a_master_that_halts_does_not_wait_for_ever_for_a_worker_in_the_kernel() -> None:
    play = Play(1).booted()
    play.happens(HaltAsked, signal.SIGQUIT)
    play.pass_time(5)
    assert play.exit_code == 131


def test_term_in_the_middle_of_the_boot_is_obeyed_at_once() -> None:
    play = Play(2)
    play.happens(Started)
    actions = play.happens(StopAsked, signal.SIGTERM, delay=True)
    assert kinds(actions, Kill) == [Kill(0, signal.SIGTERM), Kill(1, signal.SIGTERM)]
    play.exits(0, None, signal.SIGTERM)
    play.exits(1, None, signal.SIGTERM)
    assert play.exit_code == 0


def test_term_in_the_middle_of_a_reload_ends_the_booting_and_drains_the_rest() -> None:
    play = Play(2).booted()
    play.reload()
    play.happens(WorkerReady, 2)
    actions = play.happens(StopAsked, signal.SIGTERM, delay=True)
    assert kinds(actions, Kill) == [Kill(3, signal.SIGTERM)]
    assert sorted(sent(actions, Drain)) == [0, 1, 2]


def test_an_old_worker_never_ends_the_listening_before_the_drain_delay_is_over() -> None:
    play = Play(1, drain_delay=3).booted()
    play.reload(drain_delay=3)
    play.all_ready()
    actions = play.happens(StopAsked, signal.SIGTERM, delay=True)
    finals = {a.serial: a.message.final for a in actions if isinstance(a, Send) and isinstance(a.message, Drain)}
    assert finals == {0: False, 1: True}


def test_a_drain_that_is_under_way_is_never_given_more_time() -> None:
    play = Play(2, graceful_timeout=25).booted()
    play.happens(ScaleAsked, -1)
    until = play.now + 25
    play.now += 20
    play.happens(StopAsked, signal.SIGTERM, delay=True)
    assert play.state.workers[1].graceful_until == until


def test_usr1_reaches_every_worker() -> None:
    play = Play(2).booted()
    actions = play.happens(ReopenAsked)
    assert sent(actions, Reopen) == [0, 1]
    assert kinds(actions, ReopenLogs)


# What those who watch the daemon want to know


def test_every_end_of_a_reload_is_counted_and_a_failure_says_why() -> None:
    play = Play(1).booted()
    play.reload()
    play.all_ready()
    play.pass_time(TRIAL)
    play.reload()
    play.happens(WorkerFailed, 2, "import", "hello.py:3: SyntaxError", "")
    assert play.state.failure == "worker 0 (generation 3) did not boot: import: hello.py:3: SyntaxError"
    play.exits(2, 3)
    play.reload()
    play.reload()
    play.happens(ReloadRefused, ("workers in preforkd.toml: too many",))
    assert play.state.failure == "workers in preforkd.toml: too many"
    assert play.state.reloads == {"done": 1, "rolled_back": 1, "superseded": 1, "refused": 1}


def test_workers_that_have_drained_are_counted_apart_from_those_that_were_lost() -> None:
    play = Play(2).booted()
    play.happens(ScaleAsked, -1)
    play.exits(1)
    play.exits(0, None, signal.SIGKILL)
    assert (play.state.drained, play.state.losses) == (1, {"killed": 1})


def test_a_restart_has_the_successor_ready_first_and_a_drain_has_not() -> None:
    play = Play(2).booted()
    assert kinds(play.happens(RestartAsked, 0, first=True), Fork)
    assert play.in_state(WorkerState.RETIRING) == [0]
    assert sent(play.happens(WorkerReady, 2), Drain) == [0]
    actions = play.happens(RestartAsked, 1, first=False)
    assert (sent(actions, Drain), len(kinds(actions, Fork))) == ([1], 1)


def test_a_worker_of_a_slot_is_asked_where_it_is() -> None:
    play = Play(2).booted()
    assert play.happens(StacksAsked, 1) == [DumpStacks(1)]
    assert play.happens(StacksAsked, 7) == []


def test_where_a_worker_hangs_is_shown_but_not_logged_again() -> None:
    play = Play(1).booted()
    actions = play.happens(WorkerStacks, 0, "line 7")
    assert actions == [Show("warning", "worker 0 (generation 1) is here:\nline 7")]
    assert not play.happens(WorkerStacks, 9, "of one that is gone")


# Every pair

NOTHING: dict[type, set[Phase]] = {
    Started: set(Phase) - {Phase.NEW},
    StopAsked: {Phase.NEW, Phase.HALTING, Phase.GONE},
    HaltAsked: {Phase.NEW, Phase.HALTING, Phase.GONE},
    ReloadAsked: {Phase.NEW, Phase.LEAVING, Phase.STOPPING, Phase.HALTING, Phase.GONE},
    ReloadRefused: {Phase.NEW, Phase.LEAVING, Phase.STOPPING, Phase.HALTING, Phase.GONE},
    RestartAsked: {Phase.NEW, Phase.LEAVING, Phase.STOPPING, Phase.HALTING, Phase.GONE},
    StacksAsked: {Phase.NEW, Phase.LEAVING, Phase.STOPPING, Phase.HALTING, Phase.GONE},
    ScaleAsked: {Phase.NEW, Phase.LEAVING, Phase.STOPPING, Phase.HALTING, Phase.GONE},
    ReopenAsked: {Phase.NEW, Phase.HALTING, Phase.GONE},
    ForkFailed: {Phase.NEW, Phase.LEAVING, Phase.STOPPING, Phase.HALTING, Phase.GONE},
    WorkerReady: {Phase.NEW, Phase.HALTING, Phase.GONE},
    WorkerFailed: {Phase.NEW, Phase.LEAVING, Phase.STOPPING, Phase.HALTING, Phase.GONE},
    WorkerGotTerm: {Phase.NEW, Phase.LEAVING, Phase.STOPPING, Phase.HALTING, Phase.GONE},
    WorkerRetiring: {Phase.NEW, Phase.LEAVING, Phase.STOPPING, Phase.HALTING, Phase.GONE},
    WorkerStacks: {Phase.NEW, Phase.HALTING, Phase.GONE},
    WorkerExited: {Phase.NEW, Phase.GONE},
    HeartbeatsRead: {Phase.NEW, Phase.HALTING, Phase.GONE},
    TimePassed: {Phase.NEW, Phase.GONE},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", Phase)
def test_every_pair_of_phase_and_event_has_a_rule_and_those_that_mean_nothing_are_known(
    phase: Phase, kind: type
) -> None:
    rule = TABLE[phase, kind]  # a KeyError: nobody has decided what it means
    assert (rule.__name__ == "_ignore") == (phase in NOTHING[kind])


def test_the_table_has_exactly_one_rule_for_each_pair_and_each_kind_of_event() -> None:
    assert set(KINDS) == set(get_args(Event))
    given = [(phase, kind) for kind, rules in _ROWS for phases in rules for phase in phases]
    assert len(given) == len(set(given)), "a pair with two rules"
    assert set(given) == {(phase, kind) for phase in Phase for kind in get_args(Event)}


def test_in_development_nobody_stands_by_and_a_boot_that_fails_waits_for_the_next_reload() -> None:
    play = Play(1)
    play.state = State(replace(play.generation, development=True))
    play.happens(Started)
    assert not [a for a in play.happens(WorkerFailed, 0, "import", "bad", "") if isinstance(a, Exit | CloseListeners)]
    play.happens(WorkerExited, 0, 0, None, False, 0)
    assert not [a for a in play.happens(TimePassed, after=3600.0) if isinstance(a, Fork)]
    forked = play.happens(ReloadAsked, replace(play.generation, development=True))
    assert [a.generation for a in forked if isinstance(a, Fork)] == [2]
    play.happens(WorkerReady, 1)
    play.happens(ReloadAsked, replace(play.generation, development=True))
    play.happens(WorkerReady, 2)
    done = play.happens(TimePassed)
    assert Commit(3) in done
    assert [a.serial for a in done if isinstance(a, Send) and isinstance(a.message, Drain)] == [1]


def test_events_are_told_to_machines_with_their_names() -> None:
    play = Play(1)
    play.happens(Started)
    told = [a for a in play.happens(WorkerReady, 0, after=1.5) if isinstance(a, Log) and a.event]
    assert [(a.event, a.fields) for a in told] == [("worker_ready", {"slot": 0, "generation": 1, "seconds": 1.5})]
    (died,) = [a for a in play.happens(WorkerExited, 0, None, 9, False, 2) if isinstance(a, Log) and a.event]
    assert died.event == "worker_exit"
    assert (died.fields["cause"], died.fields["signal"], died.fields["in_flight"]) == ("killed", "SIGKILL", 2)
    assert died.fields["exit_code"] is None


def test_a_worker_is_told_why_it_is_forked() -> None:
    play = Play(2)
    reasons = [a.reason for a in play.happens(Started) if isinstance(a, Fork)]
    assert reasons == ["start", "start"]
    play.happens(WorkerReady, 0)
    play.happens(WorkerReady, 1)
    for serial, kind, arguments, reason in (
        (2, WorkerExited, (0, None, 9, False, 0), "vacancy"),
        (3, WorkerRetiring, (1, "enough"), "retire"),
        (4, ScaleAsked, (1,), "vacancy"),
        (5, ReloadAsked, (play.generation,), "reload"),
    ):
        forked = [(a.serial, a.reason) for a in play.happens(kind, *arguments) if isinstance(a, Fork)]
        assert forked == [(serial, reason)]
        play.happens(WorkerReady, serial)


def test_in_development_an_app_that_ends_its_process_is_waited_for_as_well() -> None:
    play = Play(1)
    play.state = State(replace(play.generation, development=True))
    play.happens(Started)
    ended = play.happens(WorkerExited, 0, 7, None, False, 0, True)
    assert not [a for a in ended if isinstance(a, Exit | CloseListeners | Fork)]
    assert "the next try is when a file has been saved" in text(ended)
