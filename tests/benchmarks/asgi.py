"""ASGI hello and WebSocket echo side by side: `python -m tests.benchmarks.asgi`; CPU time as in `tests.benchmarks`.

Each round measures all servers right after each other; the table shows the medians of the rounds' ratios, for hello to
the bare uvloop protocol, and for both to uvicorn. A server that is not installed is left out, and the table says so
(`pip install uvicorn granian`).
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.__main__ import Server, cost, load
from tests.benchmarks.apps import POST
from tests.benchmarks.wsgi import Daemon

APP = "tests.benchmarks.asgi_app:app"
GRANIAN = ["--interface", "asgi", "--workers", "1", "--no-access-log", "--log-level", "warning", APP]
OURS = [sys.executable, "-m", "preforkd.daemon", APP, "--workers", "1", "--no-access-log", "--log-level", "warning"]
SERVERS: dict[str, list[str]] = {
    "preforkd": [*OURS, "--bind", "127.0.0.1:{port}"],
    "uvicorn": ["uvicorn", "--port", "{port}", "--no-access-log", "--log-level", "warning", APP],
    "granian": ["granian", "--port", "{port}", *GRANIAN],
}
CONNECTIONS = 64


def messages(port: int, seconds: float) -> int:
    """Run the WebSocket load; return the number of messages that came back."""
    command = [sys.executable, "-m", "tests.benchmarks.websocket_load", str(port), str(seconds), str(CONNECTIONS)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def cost_of_echo(server: Server, seconds: float) -> float:
    """Return the server's CPU time per message in microseconds."""
    before = server.cpu_seconds()
    count = messages(server.port, seconds)
    return (server.cpu_seconds() - before) / count * 1e6


def command_of(name: str) -> list[str] | None:
    """Return what runs a server; None: it is not installed."""
    first, *rest = SERVERS[name]
    beside = Path(sys.executable).parent / first
    found = str(beside) if beside.exists() else shutil.which(first)
    return [found, *rest] if found else None


Costs = dict[str, list[float]]

# What wrk is told to send, by title of the table.
REQUESTS = {
    "ASGI hello, a request": "",
    "ASGI, POST of 100 bytes": POST,
    "ASGI, a handler that waits": 'wrk.path = "/wait"\n',
}


def measure(rounds: int, seconds: int) -> tuple[dict[str, Costs], Costs]:
    """Measure in turn; return the costs of each kind of request and of echo by server and round, in microseconds."""
    servers: dict[str, Server] = {"bare uvloop": Server("hello", "bare")}
    servers |= {name: Daemon(command) for name in SERVERS if (command := command_of(name)) is not None}
    requests: dict[str, Costs] = {title: {name: [] for name in servers} for title in REQUESTS}
    echo: Costs = {name: [] for name in servers if name != "bare uvloop"}
    try:
        for name, server in servers.items():
            for lua in REQUESTS.values():
                load(server.port, 1, lua)
            if name in echo:
                messages(server.port, 1)
        for _ in range(rounds):
            for title, lua in REQUESTS.items():
                for name, server in servers.items():
                    requests[title][name].append(cost(server, seconds, lua))
            for name in echo:
                echo[name].append(cost_of_echo(servers[name], seconds))
    finally:
        for server in servers.values():
            server.stop()
    return requests, echo


def ratio(costs: Costs, name: str, to: str) -> str:
    """The median of the rounds' ratios, as text."""
    if to not in costs:
        return "-"
    return f"{statistics.median(a / b for a, b in zip(costs[name], costs[to], strict=True)):.2f}"


def report(title: str, costs: Costs, targets: str) -> None:
    """Print a table."""
    print(f"\n{title:28}{'us':>9}{'x limit':>9}{'x uvicorn':>11}   {targets}")
    for name, values in costs.items():
        limit, uvicorn = ratio(costs, name, "bare uvloop"), ratio(costs, name, "uvicorn")
        print(f"{name:28}{statistics.median(values):9.2f}{limit:>9}{uvicorn:>11}")
    for name in SERVERS:
        if name not in costs:
            print(f"{name:28} is not installed")


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.asgi", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each run")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        print("The benchmark needs wrk (Debian: apt install wrk); it is not on the PATH.", file=sys.stderr)
        return 2
    requests, echo = measure(arguments.rounds, arguments.seconds)
    load_average = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPUs, load {load_average}")
    for title, costs in requests.items():
        is_hello = title.startswith("ASGI hello")
        report(title, costs, "targets: preforkd <= 1.8 x limit, <= 0.7 x uvicorn" if is_hello else "")
    report("WebSocket echo, a message", echo, "target: preforkd < 1 x uvicorn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
