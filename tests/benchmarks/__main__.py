"""CPU time per request against a bare uvloop protocol: `python -m tests.benchmarks`, in under three minutes.

What is measured is user and system time of the server's process tree over a run of wrk with 64 keep-alive connections
and ten request headers. The figure is a ratio to a bare uvloop protocol that writes fixed bytes, run in turn with ours:
each round measures both right after each other, and the table shows the median of the rounds' ratios. So another
machine, or another program on it, shifts both sides alike.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

import psutil

from tests.benchmarks.apps import CASES

HEADERS = {
    "Host": "127.0.0.1:8080",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br",
    "Connection": "keep-alive",
    "Cookie": "session=0123456789abcdef; theme=dark",
    "Upgrade-Insecure-Requests": "1",
    "Cache-Control": "max-age=0",
    "DNT": "1",
}


class Server:
    """A process that serves one side of a case."""

    def __init__(self, case: str, side: str) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.server", case, side]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._watched = psutil.Process(self._process.pid)

    def cpu_seconds(self) -> float:
        """Return user and system time of the process and its children."""
        processes = [self._watched, *self._watched.children(recursive=True)]
        return sum(times.user + times.system for times in (process.cpu_times() for process in processes))

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def load(port: int, seconds: float, lua: str) -> int:
    """Run wrk; return the number of requests that were answered.

    Raises:
        SystemExit: an answer was not 2xx, or a connection failed.
    """
    script = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in HEADERS.items()) + lua
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "-s", file.name, f"http://127.0.0.1:{port}/"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or re.search(r"Socket errors: .*(connect|read|write|timeout) [1-9]", output):
        raise SystemExit(f"wrk had errors:\n{output}")
    found = re.search(r"(\d+) requests in", output)
    if found is None:
        raise SystemExit(f"wrk said nothing of requests:\n{output}")
    return int(found[1])


@dataclass
class Row:
    """What was measured of a case, in microseconds per request."""

    bare: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return statistics.median(ours / bare for ours, bare in zip(self.ours, self.bare, strict=True))


def cost(server: Server, seconds: float, lua: str) -> float:
    """Return the server's CPU time per request in microseconds."""
    before = server.cpu_seconds()
    requests = load(server.port, seconds, lua)
    return (server.cpu_seconds() - before) / requests * 1e6


def measure(names: list[str], rounds: int, seconds: int) -> dict[str, Row]:
    """Measure the cases in turn, all of them in each round."""
    rows = {name: Row() for name in names}
    servers = {name: (Server(name, "bare"), Server(name, "preforkd")) for name in names}
    try:
        for number in range(rounds):
            for name in names:
                bare, ours = servers[name]
                lua = CASES[name].lua
                if number == 0:
                    load(bare.port, 1, lua)  # warm: caches, the allocator, the interpreter's specialisation
                    load(ours.port, 1, lua)
                rows[name].bare.append(cost(bare, seconds, lua))
                rows[name].ours.append(cost(ours, seconds, lua))
    finally:
        for pair in servers.values():
            for server in pair:
                server.stop()
    return rows


def report(rows: dict[str, Row]) -> bool:
    """Print the table; return whether every target was met."""
    load_average = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPUs, load {load_average}")
    print(f"{'':28}{'bare us':>9}{'ours us':>9}{'ratio':>8}{'range':>14}{'target':>8}")
    met = True
    for name, row in rows.items():
        ratios = sorted(ours / bare for ours, bare in zip(row.ours, row.bare, strict=True))
        target = CASES[name].target
        met &= target is None or row.ratio <= target
        bare, ours = statistics.median(row.bare), statistics.median(row.ours)
        span = f"{ratios[0]:.2f}-{ratios[-1]:.2f}"
        print(f"{name:28}{bare:9.2f}{ours:9.2f}{row.ratio:8.2f}{span:>14}{target or '':>8}")
    return met


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"which of: {', '.join(CASES)} (all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of each run of wrk")
    arguments = parser.parse_args()
    unknown = set(arguments.cases) - set(CASES)
    if unknown:
        parser.error(f"unknown case: {', '.join(sorted(unknown))}; known are: {', '.join(CASES)}")
    if shutil.which("wrk") is None:
        print("The benchmark needs wrk (Debian: apt install wrk); it is not on the PATH.", file=sys.stderr)
        return 2
    begun = time.monotonic()
    met = report(measure(arguments.cases or list(CASES), arguments.rounds, arguments.seconds))
    print(f"{time.monotonic() - begun:.0f} s; {'all targets met' if met else 'a target was missed'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
