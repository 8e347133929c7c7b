"""More connections than file descriptors: the daemon waits instead of crashing or spinning, and recovers."""

from __future__ import annotations

import time
from contextlib import ExitStack

import psutil
import pytest

from tests.e2e.client import Connection, get
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import Daemon

FEW_FILES = ("sh", "-c", 'ulimit -n 128; exec "$@"', "sh", *COMMAND)
CALM = 0.2  # the share of a CPU that an exhausted daemon may use


def cpu_seconds(daemon: Daemon) -> float:
    """What all its processes have used."""
    return sum(sum(process.cpu_times()[:2]) for process in daemon.processes())


@pytest.mark.parametrize("limit", [(), ("--limit-connections", "1000")], ids=["limit from the system", "no limit"])
def test_300_connections_on_128_descriptors(start: Start, limit: tuple[str, ...]) -> None:
    daemon = start(*limit, workers=1, command=FEW_FILES)
    before = daemon.worker_pids()
    with ExitStack() as stack:
        served = stack.enter_context(Connection(daemon.port))
        served.get()
        for _ in range(300):
            stack.enter_context(Connection(daemon.port))
        busy, began = cpu_seconds(daemon), time.monotonic()
        while time.monotonic() - began < 2:
            assert served.get().status == 200, "what is connected is served"
            time.sleep(0.1)
        assert (cpu_seconds(daemon) - busy) / (time.monotonic() - began) < CALM
        assert daemon.log().count("cannot accept") <= 1, "it says so, once"
    daemon.until(lambda: get(daemon.port, timeout=5).status == 200, 1.0, "a new connection is served")
    assert daemon.worker_pids() == before
    assert daemon.stop() == 0


def test_a_connection_limit_leaves_the_rest_in_the_queue(start: Start) -> None:
    daemon = start("--limit-connections", "5", workers=1)
    with ExitStack() as stack:
        held = [stack.enter_context(Connection(daemon.port, timeout=1)) for _ in range(5)]
        assert all(connection.get().status == 200 for connection in held)
        waiting = stack.enter_context(Connection(daemon.port))
        waiting.ask("/")
        assert all(connection.get().status == 200 for connection in held)
        assert not waiting.is_closed()
        held[0].close()
        assert waiting.answer().status == 200
    assert psutil.pid_exists(daemon.pid)
