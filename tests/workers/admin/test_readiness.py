"""When traffic may come."""

from __future__ import annotations

import pytest

from preforkd.workers.admin.readiness import MASTER_SILENT, WORKER_SILENT, alive, unready
from preforkd.workers.scoreboard import PHASES, WORKER_STATES, Field, MasterField
from tests.workers.admin.boards import Board


@pytest.mark.parametrize(
    ("phase", "reasons"),
    [
        ("booting", ["no worker has been ready yet"]),
        ("serving", []),
        ("reloading", []),
        ("proving", []),
        ("leaving", ["the daemon stops (leaving)"]),
        ("stopping", ["the daemon stops (stopping)"]),
        ("halting", ["the daemon stops (halting)"]),
    ],
)
def test_it_is_ready_while_it_serves(phase: str, reasons: list[str]) -> None:
    board = Board()
    board.board.master[MasterField.PHASE] = PHASES.index(phase)
    assert unready(board.read()) == reasons
    assert alive(board.read())


@pytest.mark.parametrize(("workers", "ready", "is_ready"), [(1, 0, False), (1, 1, True), (3, 1, False), (3, 2, True)])
def test_half_of_the_workers_are_enough(workers: int, ready: int, is_ready: bool) -> None:
    board = Board(workers)
    for index in range(ready, workers):
        board.board.row(index)[Field.MASTER_STATE] = WORKER_STATES.index("starting")
    assert (unready(board.read()) == []) is is_ready


def test_workers_that_hang_do_not_count_and_a_master_that_hangs_does_not_live() -> None:
    board = Board(2)
    board.board.master[MasterField.HEARTBEAT] += int(60e9)
    assert unready(board.read(after=WORKER_SILENT - 0.1)) == []
    assert unready(board.read(after=WORKER_SILENT)) == ["0 of 2 workers are ready, 1 would be enough"]
    assert not alive(board.read(after=60 + MASTER_SILENT))
    assert "the master has not turned its loop for 10 s" in unready(board.read(after=60 + MASTER_SILENT))
