"""What it costs to be watched: `python -m tests.benchmarks.watching` (with wrk; a minute).

First the counting of a request, in both forms: nanoseconds of CPU time of one call, the least of the rounds, which
take turns. Then the CPU time of a request without --admin, with it, and with it while /metrics is scraped every second
under full load, all in turn in each round; and what part of the daemon's CPU time its admin process needs, which is
what a scrape takes from the workers when there is no CPU left. Compare figures of one run only.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from preforkd.workers.scoreboard import Scoreboard
from preforkd.workers.tally import Count, compiled_counter, pure_counter
from tests.benchmarks import wrk
from tests.benchmarks.rows import ROWS
from tests.benchmarks.servers import KINDS, Server
from tests.e2e.daemon import free_port, title

CALLS = 200_000
EVERY = 1.0  # seconds between two scrapes
KIND, ROW = KINDS["preforkd-protocol"], ROWS["get"]


def loop_time(count: Count | None) -> float:
    """Return nanoseconds of CPU time of one call, with those of the loop around it; None: of the loop alone."""
    statuses, times = (200, 200, 200, 404), (0.0002, 0.003, 0.02, 0.4)
    requests = list(zip(statuses, times, strict=True)) * (CALLS // len(times))
    begun = time.process_time_ns()
    if count is None:
        for _status, _seconds in requests:
            pass
    else:
        for status, seconds in requests:
            count("GET", status, seconds)
    return (time.process_time_ns() - begun) / CALLS


def counting(rounds: int) -> dict[str, float]:
    """Return nanoseconds of a count by form."""
    made = {"pure": pure_counter(Scoreboard().row(0).cells), "compiled": compiled_counter(Scoreboard().row(0).cells)}
    forms = {name: one.request for name, one in made.items() if one is not None}
    costs: dict[str, list[float]] = {name: [] for name in ("", *forms)}
    for _ in range(rounds):
        for name in costs:
            costs[name].append(loop_time(forms.get(name)))
    return {name: min(costs[name]) - min(costs[""]) for name in forms}


@dataclass(frozen=True)
class Cost:
    """Of one run of wrk.

    Attributes:
        request: microseconds of CPU time of the daemon for each.
        rate: requests a second.
        admin: part of the daemon's CPU time that its admin process has used.
    """

    request: float
    rate: float
    admin: float


@contextmanager
def scraping(port: int) -> Iterator[None]:
    """Scrape /metrics every second, as Prometheus does, if there is a port."""
    over = threading.Event()

    def scrape() -> None:
        while port and not over.is_set():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                answer.read()
            over.wait(EVERY)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def cpu_of_admin(server: Server) -> float:
    """Return the CPU time of the admin process, seconds; 0.0 when there is none.

    In nanoseconds from Linux: what it counts in ticks is one of them, or two, in a run.
    """
    pids = [one.pid for one in server.processes() if title(one) == "preforkd: admin"]
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


def run(server: Server, seconds: float, port: int) -> Cost:
    """Load a server with wrk; `port`: of its admin process, if that is to be scraped meanwhile."""
    before, admin = server.cpu_seconds(), cpu_of_admin(server)
    with scraping(port):
        count = wrk.load(server.port, seconds, ROW.lua)
    used = server.cpu_seconds() - before
    return Cost(used / count * 1e6, count / seconds, (cpu_of_admin(server) - admin) / used)


def watching(rounds: int, seconds: int, workers: int) -> dict[str, list[Cost]]:
    """Return the costs by who watches: nobody, the admin process, and a scrape every second."""
    port = free_port()
    arguments = (*KIND.quiet, "--workers", str(workers))
    alone = Server(KIND, ROW.app_of(KIND), arguments)
    watched = Server(KIND, ROW.app_of(KIND), (*arguments, "--admin", f"127.0.0.1:{port}"))
    costs: dict[str, list[Cost]] = {"without --admin": [], "with --admin": [], "scraped every second": []}
    try:
        for server in (alone, watched):
            wrk.load(server.port, 1, ROW.lua)
        runs = list(zip(costs, (alone, watched, watched), (0, 0, port), strict=True))
        for _ in range(rounds):
            runs.append(runs.pop(0))  # who is measured first may have an advantage
            for name, server, scraped in runs:
                costs[name].append(run(server, seconds, scraped))
    finally:
        alone.stop()
        watched.stop()
    return costs


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.watching", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3, help="of each run of wrk (3)")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    for name, nanoseconds in counting(arguments.rounds).items():
        print(f"counting a request, {name}: {nanoseconds:.0f} ns")
    if shutil.which("wrk") is None:
        print("The rest needs wrk (Debian: apt install wrk); it is not on the PATH.", file=sys.stderr)
        return 2
    costs = watching(arguments.rounds, arguments.seconds, arguments.workers)
    base = costs["with --admin"]
    for name, found in costs.items():
        ratio = statistics.median(one.request / other.request for one, other in zip(found, base, strict=True))
        print(
            f"{name}: {statistics.median(one.request for one in found):.2f} us CPU a request ({ratio:.4f} of --admin),"
            f" {statistics.median(one.rate for one in found):.0f} requests/s,"
            f" {statistics.median(one.admin for one in found) * 100:.2f} % of the CPU time in the admin process"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
