"""What the master says of itself on the scoreboard."""

from __future__ import annotations

from enum import Enum

import pytest

from preforkd.daemon.report import Report
from preforkd.daemon.slots import Loss, Reload, WorkerState
from preforkd.daemon.turn import Phase
from preforkd.workers.admin.snapshot import read
from preforkd.workers.scoreboard import EXITS, PHASES, RELOADS, WORKER_STATES, Field, MasterField, RowState, Scoreboard
from tests.daemon.test_policy import Play


@pytest.mark.parametrize(
    ("kind", "names"),
    [(Phase, PHASES), (WorkerState, WORKER_STATES[1:]), (Loss, EXITS[1:]), (Reload, RELOADS)],
)
def test_the_numbers_on_the_board_stand_for_all_names(kind: type[Enum], names: tuple[str, ...]) -> None:
    assert {one.value for one in kind} == set(names)


def test_what_the_master_knows_is_read_by_others() -> None:
    board, play = Scoreboard(), Play(2).booted()
    report = Report(board, 90.0)
    for worker in play.state.workers.values():
        board.row(worker.row)[Field.SERIAL] = worker.serial + 1
        board.row(worker.row)[Field.SLOT] = worker.slot
    board.used = 2
    report.announce(play.state)
    report.follow(play.state, 100.0)
    found = read(board, 101.0)
    assert (found.phase, found.wanted, found.target, found.committed) == ("serving", 2, 1, 1)
    assert (found.uptime, found.silent) == (11.0, 1.0)
    assert [(one.slot, one.state) for one in found.workers] == [(0, "ready"), (1, "ready")]


def test_a_worker_that_is_gone_keeps_its_counts_and_nothing_else() -> None:
    board, play = Scoreboard(), Play(1).booted()
    row = board.row(0)
    report = Report(board, 90.0)
    report.follow(play.state, 100.0)
    for field, value in ((Field.SERIAL, 1), (Field.CONNECTIONS, 5), (Field.ACCEPTED, 9), (Field.STATE, RowState.READY)):
        row[field] = value
    play.exits(0, None, 9)
    report.announce(play.state)
    report.follow(play.state, 101.0)
    assert [row[f] for f in (Field.SERIAL, Field.CONNECTIONS, Field.STATE)] == [0, 0, RowState.EMPTY]
    assert row[Field.ACCEPTED] == 9
    board.used = 1
    assert not read(board, 101.0).workers
    assert read(board, 101.0).total.cells[Field.ACCEPTED] == 9
    assert read(board, 101.0).exits["killed"] == 1


def test_a_row_that_another_worker_has_already_is_left_alone() -> None:
    board, play = Scoreboard(), Play(1).booted()
    report = Report(board, 90.0)
    report.follow(play.state, 100.0)
    board.row(0)[Field.SERIAL] = 99
    play.exits(0)
    report.follow(play.state, 101.0)
    assert board.row(0)[Field.SERIAL] == 99


def test_a_program_that_has_replaced_another_does_not_start_the_clock_anew() -> None:
    board = Scoreboard()
    Report(board, 5.0)
    Report(board, 9.0)
    assert board.master[MasterField.STARTED] == 5_000_000_000


def test_queues_are_known_or_not() -> None:
    board = Scoreboard()
    Report(board, 1.0).queues([0, None, 3])
    assert list(read(board, 2.0).queues[:4]) == [0, None, 3, None]


def test_the_end_of_a_certificate_and_lost_lines_are_said_and_the_next_program_counts_on() -> None:
    board = Scoreboard()
    first = Report(board, 90.0)
    first.certificate(1_800_000_000.0)
    first.lost(3)
    Report(board, 95.0).lost(4)
    found = read(board, 101.0)
    assert found.certificate_expires == 1_800_000_000
    assert found.lost_lines == {"log": 7, "access_log": 0}
    first.certificate(0.0)
    assert read(board, 101.0).certificate_expires == 0
