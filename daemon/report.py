"""What the master says of the daemon on the scoreboard, for those who read it without asking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from preforkd.daemon.slots import Loss, Reload, Worker, WorkerState
from preforkd.daemon.turn import Phase, State
from preforkd.workers.scoreboard import (
    EXITS,
    MOST_QUEUES,
    PHASES,
    RELOADS,
    WORKER_STATES,
    Field,
    MasterField,
    Scoreboard,
)

_PHASES: Final = {phase: PHASES.index(phase.value) for phase in Phase}
_STATES: Final = {state: WORKER_STATES.index(state.value) for state in WorkerState}
_EXITS: Final = {loss.value: MasterField.EXITS + EXITS.index(loss.value) for loss in Loss}
_RELOADS: Final = {result.value: MasterField.RELOADS + RELOADS.index(result.value) for result in Reload}
_DRAINED: Final = MasterField.EXITS + EXITS.index("drained")


class Report:
    """Writes what is new in the master's state.

    Args:
        board: where to.
        now: when the daemon was started, seconds of the monotonic clock, unless the program before this one has said.
    """

    def __init__(self, board: Scoreboard, now: float) -> None:
        self._board = board
        self._said: Mapping[int, Worker] = {}
        self._lost_before: int = board.master[MasterField.LOST_LINES]
        if not board.master[MasterField.STARTED]:
            board.master[MasterField.STARTED] = int(now * 1e9)

    def announce(self, state: State) -> None:
        """Say how the daemon is; to be called before anything is done about it, so that nobody sees that first.

        Whoever has been told that the daemon stops finds it not ready, and so does whoever finds nothing listening.

        Args:
            state: of the master.
        """
        master = self._board.master
        master[MasterField.PHASE] = _PHASES[state.phase]
        master[MasterField.WANTED] = state.target.size
        master[MasterField.TARGET] = state.target.number
        master[MasterField.COMMITTED] = 0 if state.committed is None else state.committed.number
        master[_DRAINED] = state.drained
        for loss, number in state.losses.items():
            master[_EXITS[loss]] = number
        for result, number in state.reloads.items():
            master[_RELOADS[result]] = number

    def follow(self, state: State, now: float) -> None:
        """Say what is new of the workers, and that the master lives; to be called after each turn of the master.

        Args:
            state: of the master.
            now: seconds of the monotonic clock.
        """
        self._board.master[MasterField.HEARTBEAT] = int(now * 1e9)
        for serial, worker in self._said.items():
            if serial not in state.workers:
                self._leave(worker)
        for serial, worker in state.workers.items():
            said = self._said.get(serial)
            if said is None or said.state is not worker.state:
                self._board.row(worker.row)[Field.MASTER_STATE] = _STATES[worker.state]
        self._said = state.workers

    def certificate(self, expires: float) -> None:
        """Say when the first certificate expires, seconds since 1970; 0: there is none."""
        self._board.master[MasterField.CERTIFICATE_EXPIRES] = int(expires)

    def lost(self, lines: int) -> None:
        """Say how many lines of its log this program has lost; those of the programs before it count as well."""
        self._board.master[MasterField.LOST_LINES] = self._lost_before + lines

    def queues(self, lengths: Sequence[int | None]) -> None:
        """Say how many connections wait, by listener; None: not known."""
        for index, length in enumerate(lengths[:MOST_QUEUES]):
            self._board.master[MasterField.QUEUES + index] = 0 if length is None else length + 1

    def _leave(self, worker: Worker) -> None:
        """A worker is gone: its counts stay, but it has no state and no connections any more."""
        row = self._board.row(worker.row)
        if row[Field.SERIAL] == worker.serial + 1:  # another may have the row already
            for field in (Field.STATE, Field.MASTER_STATE, Field.CONNECTIONS, Field.ACTIVE, Field.SERIAL):
                row[field] = 0
