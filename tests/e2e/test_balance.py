"""Held connections are spread evenly over the workers, however they come, and a hung worker gets none."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from statistics import mean

from tests.e2e.client import Connection
from tests.e2e.conftest import Start
from tests.e2e.daemon import Daemon

WORKERS, CONNECTIONS = 4, 200
EVEN, EVEN_BESIDE_A_HUNG_ONE = 1.05, 1.1  # busiest over mean


def one_after_another(daemon: Daemon, stack: ExitStack) -> Counter[int]:
    """Open connections, each when the one before has been answered; how many each worker holds."""
    held: Counter[int] = Counter()
    for _ in range(CONNECTIONS):
        connection = stack.enter_context(Connection(daemon.port))
        held[int(connection.get().text.split()[1])] += 1
    return held


def in_one_burst(daemon: Daemon, stack: ExitStack) -> Counter[int]:
    """Open all connections, then ask on all of them; how many each worker holds."""
    connections = [stack.enter_context(Connection(daemon.port)) for _ in range(CONNECTIONS)]
    for connection in connections:
        connection.ask("/")
    return Counter(int(connection.answer().text.split()[1]) for connection in connections)


def unevenness(held: Counter[int], workers: int) -> float:
    """The busiest worker's share over the mean."""
    return max(held.values()) / mean([*held.values(), *[0] * (workers - len(held))])


def test_connections_opened_one_after_another_are_shared_evenly(start: Start) -> None:
    daemon = start(workers=WORKERS)
    with ExitStack() as stack:
        held = one_after_another(daemon, stack)
    assert unevenness(held, WORKERS) <= EVEN, held


def test_a_burst_of_connections_is_shared_evenly(start: Start) -> None:
    daemon = start(workers=WORKERS)
    with ExitStack() as stack:
        held = in_one_burst(daemon, stack)
    assert unevenness(held, WORKERS) <= EVEN, held


def test_a_hung_worker_gets_no_share(start: Start) -> None:
    daemon = start(workers=WORKERS)
    with ExitStack() as stack:
        victim = stack.enter_context(Connection(daemon.port))
        hung = int(victim.get().text.split()[1])
        victim.ask("/block/60")
        daemon.wait_log("hangs")
        held = one_after_another(daemon, stack)
    assert hung not in held
    assert unevenness(held, WORKERS - 1) <= EVEN_BESIDE_A_HUNG_ONE, held
