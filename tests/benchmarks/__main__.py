"""CPU time per request beside other servers, as a table in Markdown: `python -m tests.benchmarks`.

What is measured is user and system time of the server's process tree, divided by the requests that were answered: one
worker, wrk with 64 keep-alive connections, ten request headers; each request has an X-Request-Id and a query of its
own. The limit is a bare uvloop protocol that writes fixed bytes and parses nothing. The servers of a row are measured
in turn, once a round, and the table shows the median of the rounds: compare figures within a row.

A word of --only is the name of a row, of a server, or a part of a server's: --only post,asgi is one row with our ASGI
and its peers. Without words of one kind all of that kind are measured. A row in 20 seconds:
--only post,preforkd-asgi,uvicorn
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks import idle, interpreter, startup
from tests.benchmarks.choice import choose
from tests.benchmarks.measure import measure
from tests.benchmarks.rows import ROWS
from tests.benchmarks.servers import KINDS, Kind, is_installed
from tests.benchmarks.table import Costs, render

ASIDE = ("idle", "version", "start")
LIBRARIES = ("uvloop", "httptools", "websockets", "fastapi", "flask")


def environment(kinds: Mapping[str, Kind]) -> str:
    """Return what the figures depend on."""
    now = datetime.datetime.now(datetime.UTC).astimezone()
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    peers = {kind.package for kind in kinds.values() if kind.package}
    missing = sorted(name for name in (*peers, *LIBRARIES) if not is_installed(name))
    packages = [name for name in ("preforkd", *sorted(peers), *LIBRARIES) if name not in missing]
    machine = f"{processor()}, {os.cpu_count()} CPUs, load {load}, {platform.system()} {platform.release()}"
    lines = [
        f"{now:%Y-%m-%d %H:%M}, {machine}",
        interpreter.describe(),
        ", ".join(f"{name} {version(name)}" for name in packages),
    ]
    if missing:
        lines.append(f"Not installed: {', '.join(missing)}")
    return "\n\n".join(lines)


def processor() -> str:
    """Return the name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def progress(text: str) -> None:
    """Say on standard error what is done meanwhile."""
    print(text, file=sys.stderr, flush=True)


def measure_rows(names: list[str], kinds: Mapping[str, Kind], rounds: int, seconds: int) -> dict[str, dict[str, Costs]]:
    """Measure one row after the other."""
    rows: dict[str, dict[str, Costs]] = {}
    for name in names:
        row = ROWS[name]
        asked = {server: kind for server, kind in kinds.items() if row.concerns(kind)}
        progress(f"{row.title}: {', '.join(asked)}")
        rows[row.title] = measure(row, asked, rounds, seconds)
    return rows


def measure_aside(names: list[str], kinds: Mapping[str, Kind], rounds: int) -> dict[str, dict[str, Costs]]:
    """Measure what is not a cost per request."""
    servers = {name: kind for name, kind in kinds.items() if kind.interface != "bare"}
    rows: dict[str, dict[str, Costs]] = {}
    for name in names:
        progress(name)
        if name == "idle":
            rows |= idle.measure(servers)
        else:
            rows |= (startup.measure_versions if name == "version" else startup.measure_starts)(servers, rounds)
    return rows


def tell_failures(rows: Mapping[str, Mapping[str, Costs]]) -> None:
    """Say on standard error why there are no figures of a server."""
    for title, costs in rows.items():
        for server, reason in costs.items():
            if isinstance(reason, str):
                progress(f"{title}: {server} fails: {reason}")


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everything = f"rows: {', '.join((*ROWS, *ASIDE))}; servers: {', '.join(KINDS)} (all)"
    parser.add_argument("--only", default="", metavar="WORD[,WORD]...", help=everything)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of each run of wrk (2)")
    parser.add_argument(
        "--spread", action="store_true", help="show the least and the greatest figure of the rounds too"
    )
    arguments = parser.parse_args()
    try:
        rows, servers = choose(filter(None, arguments.only.split(",")), (*ROWS, *ASIDE), KINDS)
    except ValueError as error:
        parser.error(str(error))
    if shutil.which("wrk") is None:
        print("The benchmark needs wrk (Debian: apt install wrk); it is not on the PATH.", file=sys.stderr)
        return 2
    wanted = {name: KINDS[name] for name in servers}
    kinds = {name: kind for name, kind in wanted.items() if kind.is_installed}
    titles = {name: kind.title for name, kind in KINDS.items()}
    head = environment(wanted)
    costs = measure_rows([name for name in rows if name in ROWS], kinds, arguments.rounds, arguments.seconds)
    aside = measure_aside([name for name in rows if name in ASIDE], kinds, arguments.rounds)
    tell_failures({**costs, **aside})
    print(head)
    if costs:
        print("\n" + render("CPU us per request", costs, titles, spread=arguments.spread))
    if aside:
        print("\n" + render("beside requests", aside, titles, spread=arguments.spread))
    return 0


if __name__ == "__main__":
    sys.exit(main())
