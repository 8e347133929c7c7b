"""The shared page."""

from __future__ import annotations

import os
import time
from itertools import pairwise

import pytest

from preforkd.workers.scoreboard import (
    CELLS,
    CLASSES,
    EXITS,
    FIELDS,
    FRESH,
    METHODS,
    NOBODY,
    REJECTIONS,
    ROWS,
    TEXT_BYTES,
    AcceptState,
    Field,
    MasterField,
    RowState,
    Scoreboard,
)


@pytest.mark.alone  # it forks
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


def test_the_counts_of_a_row_that_is_given_to_another_worker_are_kept() -> None:
    board = Scoreboard()
    for worker in (1, 2):
        row = board.settle(5)
        row[Field.SLOT], row[Field.CPU] = 3, 10
        row[Field.ACCEPTED], row[Field.CONNECTIONS], row[Field.DURATIONS] = worker, 9, 7
    board.settle(5)
    assert (board.sums[Field.ACCEPTED], board.sums[Field.DURATIONS]) == (3, 14)
    assert board.sums[Field.CONNECTIONS] == 0, "it is no counter"
    assert board.cpu[3] == 20
    assert board.master[MasterField.EPOCH] == 6


def test_a_text_is_read_as_it_was_left_and_not_while_it_changes() -> None:
    row = Scoreboard().row(0)
    assert row.text == ""
    row.text = "first \N{SNOWMAN}"
    row.text = "second"
    assert row.text == "second"
    row.text = "x" * 2 * TEXT_BYTES
    assert len(row.text) == TEXT_BYTES - 1
    row.cells[Field.TEXT_VERSION] += 1
    assert row.text == ""


def test_the_parts_of_a_row_do_not_overlap() -> None:
    parts = [
        (Field.THREAD_QUEUE, CELLS),
        (Field.CPU, 1),
        (Field.REJECTED, len(REJECTIONS)),
        (Field.DURATIONS, len(METHODS) * CLASSES * CELLS),
        (Field.STATUSES, 500),
        (Field.TEXT, TEXT_BYTES // 8),
    ]
    for (first, size), (following, _) in pairwise(parts):
        assert first + size <= following
    assert Field.TEXT + TEXT_BYTES // 8 == FIELDS
    assert MasterField.EXITS + len(EXITS) <= MasterField.QUEUES


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
