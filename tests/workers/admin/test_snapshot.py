"""What is read from a scoreboard."""

from __future__ import annotations

from preforkd.workers.scoreboard import Field, MasterField
from tests.workers.admin.boards import Board


def test_counts_of_the_living_and_of_the_dead_make_the_total() -> None:
    board = Board(2)
    for tally in board.tallies:
        tally.request("GET", 200, 0.001)
    board.tallies[0].request("POST", 404, 0.2)
    assert board.read().total.requests == 3
    board.board.row(0)[Field.SERIAL] = 0  # it is dead, and nobody has its row yet
    assert board.read().total.requests == 3
    board.board.settle(0)
    found = board.read()
    assert found.total.requests == 3
    assert found.total.by_class() == [0, 0, 2, 0, 1, 0]
    assert found.total.statuses() == {200: 2, 404: 1}
    assert [one.slot for one in found.workers] == [1]


def test_it_is_read_anew_when_counts_are_moved_meanwhile() -> None:
    board = Board(1)
    board.tallies[0].request("GET", 200, 0.001)
    epochs = iter([1, 1, 2, 3, 4, 4])  # being moved; moved meanwhile; and at rest

    class Master:
        """The master's row, in which the epoch goes on by itself."""

        def __getitem__(self, field: int) -> int:
            return next(epochs) if field == MasterField.EPOCH else 0

        def tolist(self) -> list[int]:
            return board.board.master.tolist()

    class Moving:
        master = Master()
        sums, row, used, cpu = board.board.sums, board.board.row, 1, board.board.cpu

    from preforkd.workers.admin.snapshot import read

    assert read(Moving(), 1000.0).total.requests == 1  # type: ignore[arg-type]  # what a reader uses of a board
    assert not list(epochs)


def test_ages_and_the_requests_in_flight_are_those_of_the_moment() -> None:
    board = Board(1)
    board.board.row(0).text = '[["GET", "/slow", 998.5]]'
    (worker,) = board.read(after=2).workers
    assert (worker.age, worker.silent, worker.state, worker.pid) == (2.0, 2.0, "ready", 100)
    assert worker.in_flight == ({"method": "GET", "path": "/slow", "seconds": 3.5},)
    for nonsense in ("{", "[1]", '[["GET", 1]]', '[["GET", "/", "x"]]'):
        board.board.row(0).text = nonsense
        assert board.read().workers[0].in_flight == ()


def test_cpu_time_of_a_slot_goes_on_with_its_next_worker() -> None:
    board = Board(1)
    board.board.row(0)[Field.CPU] = 2_000_000_000
    assert board.read().cpu == {0: 2.0}
    board.board.settle(0)
    board.worker(0)
    board.board.row(0)[Field.CPU] = 500_000_000
    assert board.read().cpu == {0: 2.5}
