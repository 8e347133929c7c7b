"""What systemd hears of boots, reloads and stops."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from preforkd.daemon.notifier import EXTEND_EVERY, RETRY, Notifier, describe
from preforkd.daemon.slots import Generation, Worker, WorkerState
from preforkd.daemon.systemd import Systemd
from preforkd.daemon.turn import ON_TRIAL, Phase, State


def state(phase: Phase, *, ready: int = 2, number: int = 1, committed: int | None = 1, size: int = 2) -> State:
    workers = {
        serial: Worker(serial, serial, number, serial, WorkerState.READY, started=0.0, deadline=None)
        for serial in range(ready)
    }
    old = None if committed is None else Generation(committed, size)
    return State(Generation(number, size), phase, old, workers)


class Heard:
    """A service manager that reads nothing while it is `busy`, and is not there when it is `gone`."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.busy = self.gone = False

    def __call__(self, address: str, datagram: bytes) -> None:
        assert address == "/notify"
        if self.gone:
            raise FileNotFoundError(2, "No such file or directory")
        if self.busy:
            raise BlockingIOError
        self.messages += datagram.decode().split("\n")

    def take(self, prefix: str = "") -> list[str]:
        """What it has heard since the last call."""
        taken, self.messages = self.messages, []
        return [one for one in taken if one.startswith(prefix)]


@pytest.fixture
def heard() -> Heard:
    return Heard()


def started(heard: Heard, watchdog: float = 0.0) -> Notifier:
    notifier = Notifier(Systemd(notify="/notify", watchdog=watchdog), heard)
    notifier.follow(state(Phase.BOOTING, ready=0, committed=None), 0.0)
    notifier.follow(state(Phase.SERVING), 1.0)
    return notifier


def test_ready_is_said_when_the_daemon_serves_and_only_once(heard: Heard) -> None:
    notifier = Notifier(Systemd(notify="/notify"), heard)
    notifier.follow(state(Phase.NEW, ready=0, committed=None), 0.0)
    notifier.follow(state(Phase.BOOTING, ready=0, committed=None), 0.0)
    assert "READY=1" not in heard.take()
    notifier.follow(state(Phase.SERVING, ready=1), 1.0)
    assert heard.take() == ["READY=1", "STATUS=serving: 1 of 2 workers ready (generation 1)"]
    notifier.follow(state(Phase.SERVING, ready=2), 2.0)
    notifier.follow(state(Phase.SERVING, ready=2), 3.0)
    assert heard.take() == ["STATUS=serving: 2 of 2 workers ready (generation 1)"]


def test_a_reload_is_announced_with_its_time_and_ends_with_ready(heard: Heard) -> None:
    notifier = started(heard)
    heard.take()
    before = time.monotonic_ns() // 1000
    notifier.reload_asked(state(Phase.SERVING))
    begun = heard.take()
    assert begun[0] == "RELOADING=1"
    assert before <= int(begun[1].removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    notifier.follow(state(Phase.RELOADING, ready=0, number=2), 2.0)
    notifier.follow(state(Phase.PROVING, number=2), 3.0)
    assert "READY=1" not in heard.take()
    notifier.follow(state(Phase.SERVING, number=2, committed=2), 8.0)
    assert heard.take() == ["READY=1", "STATUS=serving: 2 of 2 workers ready (generation 2)"]


@pytest.mark.parametrize("refused", [True, False], ids=["refused at once", "rolled back"])
def test_a_reload_that_fails_ends_too_and_the_status_says_so(heard: Heard, refused: bool) -> None:
    notifier = started(heard)
    notifier.reload_asked(state(Phase.SERVING))
    if not refused:
        notifier.follow(state(Phase.RELOADING, ready=0, number=2), 2.0)
    heard.take()
    why = "worker 0 (generation 2) did not boot: import: hello.py:3: SyntaxError"
    notifier.follow(replace(state(Phase.SERVING), failure=f"{why}\nmore"), 3.0)
    said = heard.take()
    assert said[0] == "READY=1"
    assert said[1].endswith(f"; the last reload failed: {why}")
    notifier.reload_asked(state(Phase.SERVING))
    heard.take()
    notifier.follow(state(Phase.SERVING, number=3, committed=3), 9.0)
    assert heard.take() == ["READY=1", "STATUS=serving: 2 of 2 workers ready (generation 3)"]


def test_every_reload_that_is_asked_for_is_announced(heard: Heard) -> None:
    notifier = started(heard)
    for phase in (Phase.SERVING, *ON_TRIAL):
        notifier.reload_asked(state(phase))
    assert heard.take("RELOADING") == ["RELOADING=1"] * 4


def test_a_reload_before_ready_or_after_a_stop_is_none(heard: Heard) -> None:
    notifier = Notifier(Systemd(notify="/notify"), heard)
    notifier.reload_asked(state(Phase.BOOTING, committed=None))
    notifier.follow(state(Phase.SERVING), 0.0)
    notifier.follow(state(Phase.STOPPING), 0.0)
    notifier.reload_asked(state(Phase.STOPPING))
    assert heard.take("RELOADING") == []


@pytest.mark.parametrize("phase", [Phase.LEAVING, Phase.STOPPING, Phase.HALTING, Phase.GONE])
def test_stopping_is_said_once_whatever_the_way(heard: Heard, phase: Phase) -> None:
    notifier = started(heard)
    heard.take()
    notifier.follow(state(phase), 2.0)
    assert heard.take()[0] == "STOPPING=1"
    notifier.follow(state(Phase.GONE, ready=0), 3.0)
    assert heard.take("STOPPING") == []


@pytest.mark.parametrize(
    "phase", [Phase.BOOTING, *sorted(ON_TRIAL, key=str), Phase.LEAVING, Phase.STOPPING, Phase.HALTING]
)
def test_while_it_is_on_the_way_it_asks_for_time_again_and_again(heard: Heard, phase: Phase) -> None:
    notifier = Notifier(Systemd(notify="/notify"), heard)
    for now in (100.0, 101.0, 100.0 + EXTEND_EVERY, 101.0 + EXTEND_EVERY, 100.0 + 2 * EXTEND_EVERY):
        notifier.follow(state(phase), now)
    assert heard.take("EXTEND") == ["EXTEND_TIMEOUT_USEC=15000000"] * 3
    assert notifier.next_deadline() == 100.0 + 3 * EXTEND_EVERY


def test_each_phase_asks_for_time_as_it_begins(heard: Heard) -> None:
    notifier = Notifier(Systemd(notify="/notify"), heard)
    for phase in (Phase.BOOTING, Phase.SERVING, Phase.LEAVING, Phase.STOPPING, Phase.STOPPING):
        notifier.follow(state(phase), 100.0)
    assert heard.take("EXTEND") == ["EXTEND_TIMEOUT_USEC=15000000"] * 3


def test_a_daemon_that_serves_asks_for_no_time_and_wakes_up_for_nothing(heard: Heard) -> None:
    notifier = started(heard)
    heard.take()
    notifier.follow(state(Phase.SERVING), 1000.0)
    assert heard.take() == []
    assert notifier.next_deadline() is None


def test_the_watchdog_hears_from_it_every_half_of_its_time(heard: Heard) -> None:
    notifier = started(heard, watchdog=10.0)
    heard.take()
    for now in (2.0, 4.9, 5.0, 5.1, 9.9, 10.0):
        notifier.follow(state(Phase.SERVING), now)
    assert heard.take("WATCHDOG") == ["WATCHDOG=1"] * 2
    assert notifier.next_deadline() == 15.0


def test_what_a_busy_systemd_could_not_take_comes_later_and_in_order(heard: Heard) -> None:
    notifier = Notifier(Systemd(notify="/notify"), heard)
    heard.busy = True
    notifier.follow(state(Phase.SERVING), 1.0)
    due = notifier.next_deadline()
    assert due is not None
    assert due <= time.monotonic() + RETRY
    notifier.follow(state(Phase.STOPPING), 2.0)
    heard.busy = False
    notifier.follow(state(Phase.STOPPING), 3.0)
    assert [one for one in heard.take() if one.endswith("=1")] == ["READY=1", "STOPPING=1"]


def test_a_systemd_that_is_gone_is_complained_about_once_and_told_again_when_it_is_back(
    heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = started(heard, watchdog=1.0)
    heard.gone = True
    with caplog.at_level("WARNING", "preforkd"):
        notifier.follow(state(Phase.SERVING), 2.0)
        notifier.follow(state(Phase.SERVING), 3.0)
    assert [record.getMessage() for record in caplog.records] == [
        "systemd cannot be told anything (/notify): No such file or directory"
    ]
    heard.gone = False
    heard.take()
    notifier.follow(state(Phase.SERVING), 4.0)
    assert heard.take() == ["WATCHDOG=1"]


def test_without_systemd_nothing_is_said(heard: Heard) -> None:
    notifier = Notifier(Systemd(), heard)
    notifier.follow(state(Phase.SERVING), 1.0)
    notifier.reload_asked(state(Phase.SERVING))
    assert heard.take() == []
    assert notifier.next_deadline() is None


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_has_its_words(phase: Phase) -> None:
    text = describe(state(phase))
    assert "\n" not in text
    assert text.split(":")[0] in ("booting", "serving", "reloading", "stopping", "ending at once", "ended")


def test_one_worker_is_one_worker() -> None:
    one = state(Phase.SERVING, ready=1, size=1)
    assert describe(one) == "serving: 1 of 1 worker ready (generation 1)"
    assert describe(replace(one, phase=Phase.STOPPING)) == "stopping: 1 worker left"
