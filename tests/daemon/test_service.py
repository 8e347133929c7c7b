"""The pid file follows the daemon, and systemd is told when it is as it should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preforkd.daemon.pidfile import PidFile
from preforkd.daemon.service import Service
from preforkd.daemon.slots import Generation
from preforkd.daemon.systemd import Systemd
from preforkd.daemon.turn import Phase, State


def state(phase: Phase) -> State:
    return State(Generation(1, 1), phase)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pid"


def service(path: Path, *, serving: bool = False) -> Service:
    return Service(Systemd(), PidFile(str(path), os.getpid()), serving=serving)


def test_the_file_is_there_from_the_first_ready_worker_to_the_end(path: Path) -> None:
    shown = service(path)
    there = []
    reloading = (Phase.RELOADING, Phase.TRYING, Phase.PROVING)
    for phase in (Phase.NEW, Phase.BOOTING, Phase.SERVING, *reloading, Phase.LEAVING, Phase.STOPPING, Phase.GONE):
        shown.follow(state(phase), 0.0)
        there.append(path.exists())
    assert there == [False, False, True, True, True, True, True, True, False]


@pytest.mark.parametrize("phase", [Phase.STOPPING, Phase.HALTING, Phase.GONE])
def test_a_boot_that_ends_leaves_none(path: Path, phase: Phase) -> None:
    shown = service(path)
    for one in (Phase.BOOTING, phase):
        shown.follow(state(one), 0.0)
    assert not path.exists()


def test_a_program_that_has_replaced_another_writes_it_anew_and_removes_it(path: Path) -> None:
    PidFile(str(path), os.getpid()).write()
    shown = service(path, serving=True)
    shown.follow(state(Phase.RELOADING), 0.0)
    shown.follow(state(Phase.GONE), 0.0)
    assert not path.exists()


def test_a_daemon_that_fails_removes_it(path: Path) -> None:
    shown = service(path)
    shown.follow(state(Phase.SERVING), 0.0)
    shown.end()
    assert not path.exists()


def test_a_file_that_cannot_be_written_stops_nobody(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shown = service(path / "below")
    with caplog.at_level("ERROR", "preforkd"):
        shown.follow(state(Phase.SERVING), 0.0)
        shown.follow(state(Phase.SERVING), 1.0)
        shown.follow(state(Phase.GONE), 2.0)
    assert len(caplog.records) == 1
    assert "--pid" in caplog.records[0].getMessage()


def test_without_a_file_there_is_none(tmp_path: Path) -> None:
    shown = Service(Systemd(), None, serving=False)
    shown.follow(state(Phase.SERVING), 0.0)
    shown.follow(state(Phase.GONE), 0.0)
    assert list(tmp_path.iterdir()) == []
    assert shown.next_deadline() is None
