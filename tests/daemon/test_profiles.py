"""What a profile is written as, and how it is kept small."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from preforkd.daemon.profiles import collapsed, speedscope, summary
from preforkd.workers import profiling
from preforkd.workers.examining import Order
from preforkd.workers.growth import compared
from preforkd.workers.profiling import Samples

FOUND = {
    "seconds": 1.0,
    "looks": 3,
    "late": 0,
    "sampler_cpu": 0.01,
    "frames": [["(event loop)", "", 0], ["App.run", "/app.py", 7], ["a;b", "/b.py", 1]],
    "stacks": [[0], [0, 1], [0, 1, 2]],
    "threads": ["main thread", "other"],
    "runs": [[0, 1, 10], [0, 0, 5], [0, 1, 20], [1, 2, 35]],
}


def test_each_thread_is_a_profile_of_speedscope_in_the_order_of_time() -> None:
    found = json.loads(speedscope(FOUND, "worker 0"))
    assert found["shared"]["frames"][:2] == [
        {"name": "(event loop)"},
        {"name": "App.run", "file": "/app.py", "line": 7},
    ]
    first, second = found["profiles"]
    assert (first["samples"], first["weights"], first["endValue"]) == ([[0, 1], [0], [0, 1]], [10, 5, 20], 35)
    assert (second["name"], second["weights"]) == ("other", [35])


def test_collapsed_stacks_sum_up_and_no_name_breaks_a_line() -> None:
    assert collapsed(FOUND).splitlines() == [
        "main thread;(event loop) 5",
        "main thread;(event loop);App.run (/app.py:7) 30",
        "other;(event loop);App.run (/app.py:7);a:b (/b.py:1) 35",
    ]


def test_the_summary_is_of_the_main_thread() -> None:
    assert summary(FOUND)[2:] == [" 85.7%  App.run  /app.py:7", " 14.3%  (event loop)"]


def test_what_is_kept_is_bounded_and_no_time_is_lost() -> None:
    samples = Samples()
    for number in range(profiling.MOST_STACKS + 50):
        samples.add(1, "main thread", [f"f{number % 4000}", f"f{number // 4000}"], 3)
    for number in range(2000):
        samples.add(1, "main thread", ["f1", f"f{number % 2}"], 2)
    samples.add(1, "main thread", ["deep"] * 500, 1)
    found = samples.found()
    assert len(found["stacks"]) <= profiling.MOST_STACKS + 1
    assert max(map(len, found["stacks"])) <= profiling.MOST_DEPTH
    assert sum(weight for _, _, weight in found["runs"]) == 3 * (profiling.MOST_STACKS + 50) + 2 * 2000 + 1
    for number in range(profiling.MOST_THREADS + 5):
        samples.add(("other", number), "other", ["f1"], 1)
    assert len(samples.found()["threads"]) == profiling.MOST_THREADS


@pytest.mark.skipif(not Path("/proc/self/timerslack_ns").exists(), reason="the system has no such setting")
def test_only_the_thread_that_looks_has_its_waits_end_in_time() -> None:
    slacks: list[str] = []

    def wait(_until: float) -> bool:
        slacks.append(Path(f"/proc/{threading.get_native_id()}/timerslack_ns").read_text())
        return False

    before = Path("/proc/self/timerslack_ns").read_text()
    loop = asyncio.new_event_loop()
    code = test_only_the_thread_that_looks_has_its_waits_end_in_time.__code__
    thread = threading.Thread(target=profiling.profile, args=(1, 100, wait, loop, code))
    thread.start()
    thread.join()
    loop.close()
    assert slacks == ["1\n"]
    assert Path("/proc/self/timerslack_ns").read_text() == before != "1\n"


def test_what_grows_is_what_was_not_there_at_the_start() -> None:
    first, middle, last = (
        {("a", 1): (10, 1)},
        {("a", 1): (20, 2), ("b", 2): (5, 1)},
        {("a", 1): (50, 5), ("b", 2): (5, 1)},
    )
    assert compared(first, middle, last) == [("a", 1, 40, 4, 30), ("b", 2, 5, 1, 0)]


def test_an_order_survives_the_channel() -> None:
    order = Order(7, "profile", 2.5, 100)
    assert Order.of(order.text()) == order
