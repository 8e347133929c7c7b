"""What a worker counts for each request, in both forms."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preforkd.workers import tally
from preforkd.workers.http.connection import HttpConnection
from preforkd.workers.http.states import ConnectionState
from preforkd.workers.scoreboard import BOUNDS, CELLS, METHODS, TEXT_BYTES, Field, Scoreboard
from preforkd.workers.tally import (
    LONGEST_PATH,
    MOST_SHOWN,
    Counting,
    Tally,
    compiled_counter,
    in_flight,
    pure_counter,
)

Make = Callable[[memoryview], Counting | None]
FORMS: tuple[Make, ...] = (pure_counter, compiled_counter)
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(METHODS) | st.text(max_size=5),
        st.just(0) | st.integers(100, 999),
        st.sampled_from(BOUNDS) | st.floats(0, 1e4),
    )
)


def counted(make: Make, requests: list[tuple[str, int, float]]) -> list[int]:
    row = Scoreboard().row(0)
    made = make(row.cells)
    if made is None:
        pytest.skip("the compiled counter was not built")
    for request in requests:
        made.request(*request)
    made.settle()
    made.move(Scoreboard().row(0).cells)
    made.request("GET", 201, 1.0)
    made.settle()
    return row.cells.tolist()


@given(REQUESTS)
def test_both_forms_count_the_same(requests: list[tuple[str, int, float]]) -> None:
    pure, compiled = counted(pure_counter, requests), counted(compiled_counter, requests)
    for sum_at in range(Field.DURATIONS + CELLS - 1, Field.STATUSES, CELLS):
        assert abs(pure[sum_at] - compiled[sum_at]) <= len(requests) + 1, "nanoseconds, cut once or for each request"
        pure[sum_at] = compiled[sum_at] = 0
    assert pure == compiled


@pytest.mark.parametrize("make", FORMS)
def test_a_request_is_counted_by_method_class_and_duration(make: Make) -> None:
    cells = counted(make, [("GET", 200, 0.005), ("GET", 204, 0.0051), ("PATCH", 503, 11.0), ("BREW", 0, 0.1)])
    get = Field.DURATIONS + 2 * CELLS
    assert cells[get : get + 3] == [1, 1, 0], "a bound belongs to the bucket below it"
    assert cells[get + CELLS - 1] == 10_100_000
    patch = Field.DURATIONS + (METHODS.index("PATCH") * 6 + 5) * CELLS
    assert cells[patch + len(BOUNDS)] == 1
    other = Field.DURATIONS + METHODS.index("_OTHER") * 6 * CELLS
    assert cells[other + BOUNDS.index(0.1)] == 1
    assert [cells[Field.STATUSES + status - 100] for status in (200, 204, 503)] == [0, 1, 1]


def test_the_compiled_form_refuses_what_is_no_request() -> None:
    made = compiled_counter(Scoreboard().row(0).cells)
    if made is None:
        pytest.skip("the compiled counter was not built")
    count = made.request
    wrong: list[tuple[Any, ...]] = [
        ("GET",),
        ("GET", "200", 1.0),
        ("GET", 200, "1"),
        ("GET", -700, 1.0),
        ([], 0, 1.0),
    ]
    for arguments in wrong:
        with pytest.raises((TypeError, ValueError)):
            count(*arguments)


@pytest.mark.alone  # it forks
def test_what_a_killed_worker_has_counted_is_there() -> None:
    board = Scoreboard()
    pid = os.fork()
    if pid == 0:
        Tally(board.row(0)).request("GET", 200, 0.001)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert board.row(0).cells[Field.DURATIONS + 2 * CELLS] == 1


@pytest.mark.alone  # it forks
@pytest.mark.parametrize("make", FORMS)
def test_what_the_app_forks_counts_nothing_and_lets_the_page_go(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    if make(Scoreboard().row(0).cells) is None:
        pytest.skip("the compiled counter was not built")
    monkeypatch.setattr(tally, "compiled_counter", make)
    board = Scoreboard()
    counters = Tally(board.row(0))
    count = counters.request  # as a connection keeps it
    pid = os.fork()
    if pid == 0:
        counters.let_go()
        count("GET", 200, 0.001)
        counters.rejected(503)
        counters.beat(())
        before = Path("/proc/self/maps").read_text().count("preforkd-scoreboard")  # other tests may have left some
        board.let_go()
        os._exit(Path("/proc/self/maps").read_text().count("preforkd-scoreboard") >= before)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not any(board.row(0).cells)


def test_refused_and_cut_requests_are_counted() -> None:
    row = Scoreboard().row(0)
    tally = Tally(row)
    for status in (400, 503, 503, 418):
        tally.rejected(status)
    tally.forced(3)
    tally.queued(0.3)
    assert row.cells[Field.REJECTED : Field.REJECTED + 8].tolist() == [1, 0, 0, 0, 0, 0, 2, 1]
    assert row[Field.DRAIN_FORCED] == 3
    assert row.cells[Field.THREAD_QUEUE + BOUNDS.index(0.5)] == 1


def connection(
    began: float, path: str, method: str = "GET", state: ConnectionState = ConnectionState.ACTIVE
) -> HttpConnection:
    request = SimpleNamespace(method=method, path=path)
    return cast("HttpConnection", SimpleNamespace(request_began=began, request=request, state=state))


def test_the_oldest_requests_in_flight_are_shown_first_and_no_more_than_there_is_room_for() -> None:
    many = [connection(float(100 - n), f"/{n}") for n in range(50)]
    idle = connection(1.0, "/idle", state=ConnectionState.IDLE)
    shown = json.loads(in_flight([*many, idle]))
    assert [path for _, path, _ in shown] == [f"/{n}" for n in range(49, 49 - MOST_SHOWN, -1)]
    long = in_flight([connection(float(n), "/" + "\N{SNOWMAN}" * 9999) for n in range(50)])
    assert len(long) < TEXT_BYTES
    assert len(json.loads(long)[0][1]) == LONGEST_PATH


def test_nothing_is_shown_when_nothing_is_in_flight_any_more() -> None:
    row = Scoreboard().row(0)
    tally = Tally(row)
    tally.beat([connection(1.0, "/a")])
    assert json.loads(row.text) == [["GET", "/a", 1.0]]
    tally.beat([])
    assert row.text == ""
    assert row[Field.CPU] > 0
