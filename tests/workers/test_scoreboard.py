"""The shared page."""

from __future__ import annotations

import os

from preforkd.workers.scoreboard import FIELDS, ROWS, Field, RowState, Scoreboard


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
