"""Workers that are replaced on purpose, by requests, age or memory: their successors are ready first."""

from __future__ import annotations

import re
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.apps import AppFile
from tests.e2e.client import get
from tests.e2e.conftest import Start
from tests.e2e.daemon import Daemon
from tests.e2e.load import load

MB = 1 << 20
GROW = """
HOARD = []

async def on_grow(self, payload, size):
    HOARD.append(b"x" * (int(size) << 20))
    await self.answer(f"{VERSION} {os.getpid()}")

Site.on_grow = on_grow
"""
RETIRES = re.compile(r"worker (\d) \(generation 1\) retires: (.*)")


def retirements(daemon: Daemon) -> list[tuple[str, str]]:
    """Slot and reason of each so far."""
    return RETIRES.findall(daemon.log())


@pytest.mark.parallel
def test_ten_workers_that_have_had_their_requests_are_replaced_and_no_request_fails(start: Start) -> None:
    daemon = start("--max-requests", "200", "--max-requests-jitter", "50")
    first = daemon.worker_pids()
    with load(daemon.port, expect=r"1 \d+") as result:
        daemon.until(lambda: len(retirements(daemon)) >= 10, 60, "ten retirements")
    assert result.failed == 0, result.describe()
    assert all(re.fullmatch(r"\d+ requests \(--max-requests\)", why) for _, why in retirements(daemon))
    daemon.until(lambda: len(daemon.workers()) == 2 and not first & daemon.worker_pids(), 10, "two other workers")
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_one_worker_alone_is_replaced_without_a_gap(start: Start) -> None:
    daemon = start("--max-requests", "100", "--max-requests-jitter", "0", workers=1)
    with load(daemon.port, expect=r"1 \d+") as result:
        daemon.until(lambda: len(retirements(daemon)) >= 3, 30, "three retirements")
    assert result.failed == 0, result.describe()
    assert result.slowest < 0.5


def test_one_worker_at_a_time_is_replaced(start: Start) -> None:
    daemon = start("--max-lifetime", "1", workers=4)
    most = 0

    def all_replaced() -> bool:
        nonlocal most
        most = max(most, len([one for one in daemon.workers() if one.generation == 1]))
        return len(re.findall(r"worker \d \(generation 1\) is ready", daemon.log())) >= 8

    daemon.until(all_replaced, 20, "four successors")
    assert most <= 4 + 2, "one successor boots while its predecessor serves and another may still drain"


@pytest.mark.parallel
def test_a_worker_that_is_old_enough_is_replaced(start: Start) -> None:
    daemon = start("--max-lifetime", "2", workers=1)
    began = time.monotonic()
    with load(daemon.port, expect=r"1 \d+") as result:
        daemon.until(lambda: len(retirements(daemon)) >= 2, 15, "two retirements")
    assert time.monotonic() - began > 3
    assert result.failed == 0, result.describe()
    assert {why for _, why in retirements(daemon)} == {"it has served for 2 s (--max-lifetime)"}


@pytest.mark.parallel
def test_a_worker_that_has_grown_too_large_is_replaced(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    app.version("1", GROW)
    daemon = start("--max-rss", "120M", app=app.target)
    known = daemon.worker_pids()
    with load(daemon.port, expect=r"1 \d+") as result:
        large = int(get(daemon.port, "/grow/150").text.split()[1])
        daemon.until(lambda: large not in daemon.worker_pids(), 20, "the large worker is gone")
    assert result.failed == 0, result.describe()
    (why,) = [why for _, why in retirements(daemon)]
    assert re.fullmatch(r"it has 1[5-9]\d MB of its own memory, more than 120 MB \(--max-rss\)", why)
    assert len(known & daemon.worker_pids()) == 1, "the other one has not grown"
    assert all(psutil.Process(pid).memory_info().rss < 150 * MB for pid in daemon.worker_pids())
