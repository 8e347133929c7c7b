"""Random walks through the policy: whatever happens in whatever order, these hold after every step."""

from __future__ import annotations

import signal

from hypothesis import given, settings
from hypothesis import strategies as st

from preforkd.daemon.actions import Action, Exit, Fork, Kill, Send
from preforkd.daemon.comparison import Answers
from preforkd.daemon.events import (
    Event,
    ForkFailed,
    HeartbeatsRead,
    ReloadAsked,
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
)
from preforkd.daemon.policy import next_deadline, step
from preforkd.daemon.slots import ENDING, SERVING, Generation, WorkerState
from preforkd.daemon.turn import RUNNING, Phase, State
from preforkd.workers.channel import Drain

STEPS = st.lists(st.tuples(st.integers(0, 15), st.integers(0, 7), st.floats(0, 12)), max_size=60)


class World:
    """A system of processes that do anything at any time, but die when they are killed."""

    def __init__(self, size: int) -> None:
        self.now = 0.0
        self.state = State(Generation(1, size))
        self.alive: dict[int, Fork] = {}
        self.drains: dict[int, int] = {}
        self.answers: dict[int, Answers] = {}
        self.killed: set[int] = set()
        self.stopped = False
        self.exit_code: int | None = None
        self.feed(Started(self.now))

    def feed(self, event: Event) -> None:
        if isinstance(event, WorkerExited):
            self.alive.pop(event.serial, None)
        self.state, actions = step(self.state, event)
        for action in actions:
            self.carry_out(action)
        self.check()

    def carry_out(self, action: Action) -> None:
        match action:
            case Fork(serial):
                assert not self.stopped, "a fork after a stop"
                self.alive[serial] = action
            case Kill(serial, signum):
                assert serial in self.alive, "a signal to a process that is gone"
                if signum == signal.SIGKILL:
                    self.killed.add(serial)
            case Send(serial, Drain(final=False)):
                self.drains[serial] = self.drains.get(serial, 0) + 1
            case Exit(code):
                assert self.exit_code is None, "two exits"
                assert self.stopped or code in (3, 4)
                self.exit_code = code
            case _:
                pass

    def check(self) -> None:
        workers = self.state.workers.values()
        if self.state.phase is not Phase.GONE:
            assert {w.serial for w in workers} == set(self.alive), "every fork is known until its exit"
        assert len({w.row for w in workers}) == len(workers), "two workers with one row"
        assert all(count == 1 for count in self.drains.values()), "a worker that was told to drain twice"
        current = [
            w.slot
            for w in workers
            if w.generation == self.state.target.number and w.state in (WorkerState.STARTING, WorkerState.READY)
        ]
        assert len(current) == len(set(current)), "two workers of one generation in a slot"
        for worker in workers:
            waits = worker.state in (WorkerState.STARTING, WorkerState.DRAINING, WorkerState.DYING)
            assert (worker.deadline is not None) == waits, "a worker that is waited for has a deadline, no other"
        self.check_slots()
        self.check_canary()

    def check_canary(self) -> None:
        """While a canary is tried it serves, and there is one only while there is something to be tried."""
        if self.state.phase is Phase.TRYING:
            ready = [w for w in self.state.workers.values() if w.state in SERVING]
            slots = {w.slot for w in ready if w.generation == self.state.target.number}
            assert slots.issuperset(range(min(self.state.canary, self.state.target.size)))
        elif self.state.phase in RUNNING and self.state.phase is not Phase.RELOADING:
            assert not self.state.canary

    def check_slots(self) -> None:
        if self.state.phase not in RUNNING:
            return
        for slot in range(self.state.target.size):
            here = [w for w in self.state.workers.values() if w.slot == slot and w.state not in ENDING]
            backoff = self.state.backoffs.get(slot)
            waiting = backoff is not None and backoff.until > self.now
            assert waiting or any(w.state is not WorkerState.STANDBY for w in here), (
                "an empty slot that waits for nothing"
            )

    def heartbeats(self, number: int) -> HeartbeatsRead:
        """Everybody lives and has answered something; the newest generation sometimes with errors."""
        for serial, fork in self.alive.items():
            fails = number % 2 and fork.generation == self.state.target.number
            more = Answers(10 * number, 9 * number if fails else 0)
            self.answers[serial] = self.answers.get(serial, Answers()) + more
        answers = {serial: self.answers[serial] for serial in self.alive}
        return HeartbeatsRead(self.now, dict.fromkeys(self.alive, number), frozenset(), answers)

    def serving_slots(self) -> int:
        return len({w.slot for w in self.state.workers.values() if w.state in SERVING})

    def pick(self, number: int) -> int:
        serials = sorted(self.alive)
        return serials[number % len(serials)] if serials else 0

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := next_deadline(self.state, self.now)) is not None and due <= end:
            self.now = max(due, self.now)
            self.feed(TimePassed(self.now))
            self.bury()
        self.now = end

    def bury(self) -> None:
        for serial in sorted(self.killed & set(self.alive)):
            self.exits(serial, None, signal.SIGKILL)

    def exits(self, serial: int, code: int | None, signum: int | None) -> None:
        if serial in self.alive:
            self.feed(WorkerExited(self.now, serial, code, signum, oom=False, in_flight=0))

    def all_obey(self) -> None:
        """Every process does what it is meant to do, until nothing is left to do."""
        for _ in range(400):
            worker = next((w for w in self.state.workers.values() if w.state is WorkerState.STARTING), None)
            leaving = next((w for w in self.state.workers.values() if w.state in ENDING), None)
            if leaving is not None:
                self.exits(leaving.serial, 0, None)
            elif worker is not None:
                self.feed(WorkerReady(self.now, worker.serial))
            elif next_deadline(self.state, self.now) is not None:
                self.pass_time(31)
            else:
                return


def walk(world: World, steps: list[tuple[int, int, float]]) -> None:
    for what, number, seconds in steps:
        world.pass_time(seconds if what != 11 else seconds / 10)
        if world.state.phase is Phase.GONE:
            return
        serial, now = world.pick(number), world.now
        if what == 0 and serial in world.alive:
            world.exits(serial, (0, 1, None)[number % 3], None if number % 3 < 2 else signal.SIGSEGV)
        elif what == 8 and serial in world.alive and world.state.workers[serial].state is WorkerState.STARTING:
            world.alive.pop(serial)
            world.feed(ForkFailed(now, serial, "no memory"))
        else:
            events: dict[int, Event] = {
                1: WorkerReady(now, serial),
                2: WorkerReady(now, serial),
                3: WorkerFailed(now, serial, "import", "broken", ""),
                4: WorkerGotTerm(now, serial),
                5: WorkerRetiring(now, serial, "max_requests"),
                6: ReloadAsked(now, Generation(0, 1 + number % 4)),
                7: ScaleAsked(now, 1 if number % 2 else -1),
                9: ReopenAsked(now),
                12: RestartAsked(now, number % 4, first=True),
                13: RestartAsked(now, number % 4, first=False),
                14: StacksAsked(now, number % 4),
                10: world.heartbeats(number) if what == 10 else TimePassed(now),
                15: ReloadAsked(now, Generation(0, 1 + number % 4, trial_workers=1 + number // 4, trial_errors=1.0)),
            }
            world.feed(events.get(what, TimePassed(now)))
        world.bury()


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4), STEPS)
def test_whatever_happens_the_table_of_workers_stays_true(size: int, steps: list[tuple[int, int, float]]) -> None:
    walk(World(size), steps)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4), STEPS, STEPS)
def test_a_stop_at_any_moment_forks_nothing_more_and_always_comes_to_its_end(
    size: int, steps: list[tuple[int, int, float]], more: list[tuple[int, int, float]]
) -> None:
    world = World(size)
    walk(world, steps)
    if world.state.phase not in RUNNING:
        return
    world.stopped = True
    begun = world.now
    world.feed(StopAsked(world.now, signal.SIGTERM, delay=True))
    walk(world, more)
    world.pass_time(max(begun + 60 - world.now, 0))
    assert world.exit_code == 0
    assert not world.alive


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4), STEPS)
def test_when_all_obey_in_the_end_every_slot_is_served_by_one_worker(
    size: int, steps: list[tuple[int, int, float]]
) -> None:
    world = World(size)
    walk(world, steps)
    if world.state.phase not in RUNNING:
        return
    world.all_obey()
    assert world.state.phase is Phase.SERVING
    assert sorted(w.slot for w in world.state.workers.values()) == list(range(world.state.target.size))


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from([1, 5, 6, 10, 11, 15]), st.integers(0, 7), st.floats(0, 5)), max_size=60),
)
def test_reloading_and_recycling_never_cost_capacity(size: int, steps: list[tuple[int, int, float]]) -> None:
    world = World(size)
    for serial in sorted(world.alive):
        world.feed(WorkerReady(world.now, serial))
    for what, number, seconds in steps:
        # A reload to as many workers as there are: only then is less never wanted.
        same = {6: size - 1, 15: size - 1 + number // 4 * 4}
        walk(world, [(what, same.get(what, number), seconds)])
        assert world.serving_slots() == size
