"""The shared page."""

from __future__ import annotations

import os
import time

from preforkd.workers.scoreboard import FIELDS, FRESH, NOBODY, ROWS, AcceptState, Field, RowState, Scoreboard


def test_what_a_child_writes_its_parent_reads() -> None:
    board = Scoreboard()
    pid = os.fork()
    if pid == 0:
        board.row(3)[Field.HEARTBEAT] = 2**63 + 1
        board.row(3)[Field.STATE] = RowState.READY
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.row(3)[Field.HEARTBEAT] == 2**63 + 1
    assert board.row(3)[Field.STATE] == RowState.READY


def test_rows_do_not_overlap() -> None:
    board = Scoreboard()
    for index in (0, 1, ROWS - 1):
        for field in Field:
            board.row(index)[field] = index * 1000 + field
    for index in (0, 1, ROWS - 1):
        assert [board.row(index)[field] for field in Field] == [index * 1000 + field for field in Field]


def test_a_cleared_row_is_empty() -> None:
    row = Scoreboard().row(0)
    for field in Field:
        row[field] = 7
    row.clear()
    assert {row[field] for field in Field} == {0}


def test_a_row_has_room_for_every_field() -> None:
    assert max(Field) < FIELDS


def test_the_least_loaded_are_those_that_take_connections() -> None:
    board = Scoreboard()
    board.used = 8

    def show(index: int, held: int, accepting: AcceptState, *, state: int = RowState.READY, age: int = 0) -> None:
        row = board.row(index)
        row[Field.STATE], row[Field.CONNECTIONS], row[Field.ACCEPTING] = state, held, accepting
        row[Field.HEARTBEAT] = time.monotonic_ns() - age

    assert board.others(0) is None
    show(0, 0, AcceptState.ACCEPTING)
    assert board.others(0) is None, "its own row does not count"
    show(1, 1, AcceptState.ACCEPTING, state=RowState.DRAINING)
    show(2, 1, AcceptState.ACCEPTING, age=2 * FRESH)
    show(3, 1, AcceptState.FULL)
    show(4, 1, AcceptState.PAUSED)
    show(5, 1, AcceptState.STOPPED)
    assert board.others(0) is None
    show(6, 5, AcceptState.YIELDING)
    assert board.others(0) == (NOBODY, 5)
    show(7, 7, AcceptState.ACCEPTING)
    assert board.others(0) == (7, 5)
    show(6, 9, AcceptState.YIELDING)
    assert board.others(0) == (7, 7)
