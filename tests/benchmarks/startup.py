"""How long a command takes: to say its version, and from its start to the first answer with four workers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from tests.benchmarks.servers import Kind, Server
from tests.benchmarks.table import Costs

COMMANDS = {"preforkd-wsgi-1": "preforkd", "gunicorn-wsgi": "gunicorn"}
ANSWER = 20.0  # seconds


def version_time(command: str) -> float:
    """Return milliseconds that `COMMAND --version` takes."""
    begun = time.perf_counter()
    subprocess.run([Path(sys.executable).with_name(command), "--version"], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begun) * 1e3


def first_answer(kind: Kind) -> float:
    """Return milliseconds from the start of a server with four workers to its first answer; the app imports nothing."""
    begun = time.perf_counter()
    server = Server(kind, "tests.benchmarks.apps.wsgi:hello", (*kind.quiet, "--workers", "4"))
    try:
        while time.perf_counter() - begun < ANSWER:
            with suppress(OSError, HTTPException):
                connection = HTTPConnection("127.0.0.1", server.port, timeout=ANSWER)
                connection.request("GET", "/")
                if connection.getresponse().status == 200:
                    return (time.perf_counter() - begun) * 1e3
        raise TimeoutError(f"no answer in {ANSWER:g} s")
    finally:
        server.stop()


def measure_versions(kinds: Mapping[str, Kind], rounds: int) -> dict[str, dict[str, Costs]]:
    """Measure the commands in turn; return a row of a table."""
    costs: dict[str, Costs] = {}
    names = [name for name in COMMANDS if name in kinds]
    timed = [(name, version_time(COMMANDS[name])) for _ in range(rounds) for name in names]
    for name in names:
        costs[name] = [milliseconds for of, milliseconds in timed if of == name]
    return {"--version, ms": costs}


def measure_starts(kinds: Mapping[str, Kind], rounds: int) -> dict[str, dict[str, Costs]]:
    """Measure the servers in turn; return a row of a table."""
    costs: dict[str, Costs] = {}
    names = [name for name in COMMANDS if name in kinds]
    timed = [(name, first_answer(kinds[name])) for _ in range(rounds) for name in names]
    for name in names:
        costs[name] = [milliseconds for of, milliseconds in timed if of == name]
    return {"start to first answer, 4 workers, ms": costs}
