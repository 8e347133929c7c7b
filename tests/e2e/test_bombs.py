"""Ten times what a worker can serve, and clients that begin and never end: the others are served, memory stays flat.

How fast the others are served is printed (`pytest -s`); it is asserted only generously, for the machine has others.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

import psutil

from tests.e2e.client import Connection
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, Daemon

WSGI = f"{APPS / 'wsgi_site.py'}:app"
SECONDS_EACH = 0.1
THREADS = 4
RATE = 10 * THREADS / SECONDS_EACH
LASTS = 4.0
HALF_HEADS = 400


@dataclass
class Outcome:
    """What became of requests: how long those that were served have taken, seconds, and how many were told 503."""

    served: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    lost: int = 0

    def p99(self, of: list[float]) -> float:
        return sorted(of)[int(len(of) * 0.99)]


async def ask(port: int, path: str, outcome: Outcome) -> None:
    """One request on a connection of its own."""
    began = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: tests\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
    except (OSError, TimeoutError):
        outcome.lost += 1
        return
    kinds = {b"200": outcome.served, b"503": outcome.refused}
    if answer[9:12] in kinds and b"\r\n\r\n" in answer:
        kinds[answer[9:12]].append(time.monotonic() - began)
    else:
        outcome.lost += 1


async def load(port: int, path: str, rate: float, seconds: float) -> Outcome:
    """So many requests a second, whether or not the ones before are answered."""
    outcome = Outcome()
    async with asyncio.TaskGroup() as group:
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            group.create_task(ask(port, path, outcome))
            await asyncio.sleep(began + (number + 1) / rate - time.monotonic())
    return outcome


def memory(daemon: Daemon) -> float:
    """What the worker has for itself, MB."""
    (worker,) = daemon.wait_workers(1)
    return float(psutil.Process(worker.pid).memory_full_info().uss) / 1e6


def test_at_ten_times_the_capacity_who_is_served_is_served_soon_and_the_rest_is_told_so(start: Start) -> None:
    daemon = start(
        "--threads", str(THREADS), "--limit-queue-time", str(SECONDS_EACH), "--no-access-log", app=WSGI, workers=1
    )  # fmt: skip
    path = f"/slow/{SECONDS_EACH}"
    unloaded = asyncio.run(load(daemon.port, path, THREADS / SECONDS_EACH / 4, 2.0))
    before = memory(daemon)
    found = asyncio.run(load(daemon.port, path, RATE, LASTS))
    after = memory(daemon)
    usual, loaded = unloaded.p99(unloaded.served), found.p99(found.served)
    print(
        f"\nunloaded p99 {usual * 1000:.0f} ms; at 10 times the capacity: {len(found.served)} served, p99 "
        f"{loaded * 1000:.0f} ms ({loaded / usual:.1f} times); {len(found.refused)} told 503, p99 "
        f"{found.p99(found.refused) * 1000:.0f} ms; {found.lost} lost; memory {before:.0f} -> {after:.0f} MB"
    )
    assert found.lost == unloaded.lost == 0
    assert len(found.served) > THREADS / SECONDS_EACH * LASTS / 2, "it goes on serving what it can"
    assert loaded < 20 * usual
    assert after - before < 30
    assert daemon.stop() == 0


def test_half_heads_cost_the_others_nothing(start: Start) -> None:
    daemon = start("--no-access-log", workers=1)
    unloaded = asyncio.run(load(daemon.port, "/", 100, 1.0))
    before = memory(daemon)
    with ExitStack() as stack:
        halves = [stack.enter_context(Connection(daemon.port)) for _ in range(HALF_HEADS)]
        for half in halves:
            half.send(b"GET / HTTP/1.1\r\nHost: tests\r\nX-Slow: " + b"a" * 1000)
        found = asyncio.run(load(daemon.port, "/", 100, 2.0))
        after = memory(daemon)
    usual, loaded = unloaded.p99(unloaded.served), found.p99(found.served)
    print(
        f"\nunloaded p99 {usual * 1000:.1f} ms; beside {HALF_HEADS} half heads {loaded * 1000:.1f} ms "
        f"({loaded / usual:.1f} times); memory {before:.0f} -> {after:.0f} MB"
    )
    assert (found.lost, len(found.refused)) == (0, 0)
    assert after - before < 30
    assert daemon.stop() == 0
