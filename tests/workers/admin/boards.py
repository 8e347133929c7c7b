"""Scoreboards as a daemon would have written them."""

from __future__ import annotations

from preforkd.workers.admin.snapshot import Snapshot, read
from preforkd.workers.scoreboard import PHASES, WORKER_STATES, Field, MasterField, Scoreboard
from preforkd.workers.tally import Tally

NOW = 1000.0


class Board:
    """A daemon that serves at `NOW` with so many workers, seen on its scoreboard."""

    def __init__(self, workers: int = 2) -> None:
        self.board = Scoreboard()
        self.board.used = workers
        master = self.board.master
        master[MasterField.PHASE] = PHASES.index("serving")
        master[MasterField.WANTED] = workers
        master[MasterField.TARGET] = master[MasterField.COMMITTED] = 1
        master[MasterField.STARTED] = int((NOW - 60) * 1e9)
        master[MasterField.HEARTBEAT] = int(NOW * 1e9)
        self.tallies = [self.worker(index) for index in range(workers)]

    def worker(self, index: int) -> Tally:
        row = self.board.row(index)
        row[Field.SERIAL], row[Field.SLOT], row[Field.PID] = index + 1, index, 100 + index
        row[Field.GENERATION] = 1
        row[Field.MASTER_STATE] = WORKER_STATES.index("ready")
        row[Field.HEARTBEAT] = row[Field.FORKED] = int(NOW * 1e9)
        return Tally(row)

    def read(self, after: float = 0.0) -> Snapshot:
        return read(self.board, NOW + after)
