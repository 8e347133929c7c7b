"""WSGI hello side by side: `python -m tests.benchmarks.wsgi`; CPU time per request as in `tests.benchmarks`.

Each round measures all servers right after each other, and the table shows the median of the rounds' ratios to the bare
uvloop protocol. A server that is not installed is left out, and the table says so (`pip install granian gunicorn`).
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.benchmarks.__main__ import Server, cost, load
from tests.benchmarks.apps import POST
from tests.e2e.daemon import free_port, listens

APP = "tests.benchmarks.wsgi_app:app"
ROOT = Path(__file__).parents[2]
GRANIAN = ["--interface", "wsgi", "--workers", "1", "--no-access-log", "--log-level", "warning", APP]
GUNICORN = ["--workers", "1", "--worker-class", "gthread", "--keep-alive", "75", "--log-level", "warning", APP]
OURS = [sys.executable, "-m", "preforkd.daemon", APP, "--workers", "1", "--no-access-log", "--log-level", "warning"]

# What is run, with {port} filled in, and the ratio to stay below.
SERVERS: dict[str, tuple[list[str], float | None]] = {
    "preforkd --threads 0": ([*OURS, "--threads", "0", "--bind", "127.0.0.1:{port}"], 1.6),
    "preforkd --threads 1": ([*OURS, "--threads", "1", "--bind", "127.0.0.1:{port}"], 2.1),
    "preforkd --threads 4": ([*OURS, "--threads", "4", "--bind", "127.0.0.1:{port}"], None),
    "granian, 1 thread": (["granian", "--port", "{port}", "--blocking-threads", "1", *GRANIAN], None),
    "granian, 4 threads": (["granian", "--port", "{port}", "--blocking-threads", "4", *GRANIAN], None),
    "gunicorn, 1 thread": (["gunicorn", "--bind", "127.0.0.1:{port}", "--threads", "1", *GUNICORN], None),
}


class Daemon(Server):
    """A server that is started by its own command."""

    def __init__(self, command: list[str]) -> None:
        self.port = free_port()
        line = [word.format(port=self.port) for word in command]
        self._process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, text=True)
        self._watched = psutil.Process(self._process.pid)
        deadline = time.monotonic() + 15
        while not listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"did not start: {' '.join(line)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it and its workers."""
        children = self._watched.children(recursive=True)
        self._process.terminate()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for child in children:
            if child.is_running():
                child.kill()


def command_of(name: str) -> list[str] | None:
    """Return what runs a server; None: it is not installed."""
    first, *rest = SERVERS[name][0]
    beside = Path(sys.executable).parent / first
    found = str(beside) if beside.exists() else shutil.which(first)
    return [found, *rest] if found else None


def measure(names: list[str], rounds: int, seconds: int, lua: str) -> tuple[list[float], dict[str, list[float]]]:
    """Measure in turn; return the cost of the bare protocol and of each server by round, in microseconds."""
    bare = Server("hello", "bare")
    servers = {name: Daemon(command) for name in names if (command := command_of(name)) is not None}
    costs: dict[str, list[float]] = {name: [] for name in servers}
    limits: list[float] = []
    try:
        for server in (bare, *servers.values()):
            load(server.port, 1, lua)
        for _ in range(rounds):
            limits.append(cost(bare, seconds, lua))
            for name, server in servers.items():
                costs[name].append(cost(server, seconds, lua))
    finally:
        for server in (bare, *servers.values()):
            server.stop()
    return limits, costs


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.wsgi", description=__doc__)
    parser.add_argument("servers", nargs="*", help=f"which of: {', '.join(SERVERS)} (all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each run of wrk")
    parser.add_argument("--post", action="store_true", help="POST with a body of 100 bytes instead of GET")
    arguments = parser.parse_args()
    unknown = set(arguments.servers) - set(SERVERS)
    if unknown:
        parser.error(f"unknown server: {', '.join(sorted(unknown))}; known are: {', '.join(SERVERS)}")
    if shutil.which("wrk") is None:
        print("The benchmark needs wrk (Debian: apt install wrk); it is not on the PATH.", file=sys.stderr)
        return 2
    names = arguments.servers or list(SERVERS)
    limits, costs = measure(names, arguments.rounds, arguments.seconds, POST if arguments.post else "")
    load_average = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPUs, load {load_average}")
    print(f"{'bare uvloop protocol':24}{statistics.median(limits):9.2f} us")
    for name in names:
        if name not in costs:
            print(f"{name:24} is not installed")
            continue
        ratios = sorted(ours / bare for ours, bare in zip(costs[name], limits, strict=True))
        span, target = f"{ratios[0]:.2f}-{ratios[-1]:.2f}", SERVERS[name][1]
        cell = f"target {target}" if target and not arguments.post else ""
        median = statistics.median(ratios)
        print(f"{name:24}{statistics.median(costs[name]):9.2f} us{median:7.2f} x {span:>12}  {cell}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
