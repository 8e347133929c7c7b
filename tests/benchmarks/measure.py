"""CPU time of a server per request."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from tests.benchmarks import wrk
from tests.benchmarks.rows import Row
from tests.benchmarks.servers import Kind, Server, ServerError
from tests.benchmarks.table import Costs

WARM_UP = 1  # seconds: caches, the allocator, the interpreter's specialisation


def cost(server: Server, seconds: float, row: Row) -> float:
    """Return microseconds of CPU time per request of a row (user and system, of the process tree)."""
    before = server.cpu_seconds()
    count = wrk.load(server.port, seconds, row.lua, tls=row.tls) if row.lua else messages(server.port, seconds)
    return (server.cpu_seconds() - before) / count * 1e6


def messages(port: int, seconds: float) -> int:
    """Run the WebSocket load; return the number of messages that came back.

    Raises:
        LoadError: none did.
    """
    module = "tests.benchmarks.websocket_load"
    command = [sys.executable, "-m", module, str(port), str(seconds), str(wrk.CONNECTIONS)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode or not int(result.stdout):
        raise wrk.LoadError(result.stderr.strip().rpartition("\n")[2] or "no message came back")
    return int(result.stdout)


def measure(row: Row, kinds: Mapping[str, Kind], rounds: int, seconds: float) -> dict[str, Costs]:
    """Measure the servers in turn, all of them in each round; they run beside each other, idle but for the one.

    Returns:
        By server the costs of its rounds in microseconds, or why there are none.
    """
    costs: dict[str, list[float]] = {}
    failures: dict[str, str] = {}
    servers: dict[str, Server] = {}
    try:
        for name, kind in kinds.items():
            try:
                servers[name] = Server(kind, row.app_of(kind), row.arguments_of(kind))
                cost(servers[name], WARM_UP, row)
            except (ServerError, wrk.LoadError) as error:
                failures[name] = str(error)
        for _ in range(rounds):
            for name in servers.keys() - failures.keys():
                try:
                    costs.setdefault(name, []).append(cost(servers[name], seconds, row))
                except wrk.LoadError as error:
                    failures[name] = str(error)
    finally:
        for server in servers.values():
            server.stop()
    return {**costs, **failures}
