"""When memory is given back after a flood of connections, and that it is."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys

import pytest

from preforkd.workers import ebb
from preforkd.workers.ebb import MANY, NOT_AGAIN, Ebb


def times(*held: int, every: float = 0.25) -> list[int]:
    """The looks, by number, at which memory is given back when so many connections are held."""
    tide = Ebb(0.0)
    return [number for number, now in enumerate(held) if tide.is_low(now, number * every)]


@pytest.mark.parametrize(
    ("held", "given_back"),
    [
        ((0, 0, 0), []),
        ((MANY - 1, 0, 0, 0), []),
        ((0, MANY, MANY, 0, 0, 0, 0), [4]),  # 3 is still on the way down
        ((MANY * 8, MANY * 8, MANY * 4, MANY * 2, MANY * 2, MANY), [4]),
        ((MANY * 8, MANY * 3, MANY * 3, MANY * 3), []),
        ((MANY, 60, 50, 40, 41, 30, 30), [4]),
    ],
)
def test_it_is_once_for_a_flood_when_most_of_it_has_gone(held: tuple[int, ...], given_back: list[int]) -> None:
    assert times(*held) == given_back


def test_the_next_flood_has_to_wait_for_a_while() -> None:
    assert times(MANY, 0, 0, MANY, 0, 0) == [2]
    assert times(MANY, 0, 0, MANY, 0, 0, every=NOT_AGAIN / 3) == [2, 5]
    assert times(MANY, 0, 0, MANY, 0, 0, 0, every=NOT_AGAIN / 4) == [2, 6]


def test_an_app_without_a_collector_gets_no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    collected: list[bool] = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(True))
    for is_on in (True, False):
        monkeypatch.setattr(gc, "isenabled", lambda is_on=is_on: is_on)
        ebb.give_back()
    assert collected == [True]


HOLES = """
import re
from pathlib import Path
from preforkd.workers.ebb import give_back

def resident():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

many = [bytes(4000) for _ in range(10_000)]
kept = many[::100]
del many
before = resident()
give_back()
assert resident() < before - 20_000, (before, resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc")
def test_what_is_left_within_the_heap_is_given_back() -> None:
    subprocess.run([sys.executable, "-c", HOLES], check=True)
