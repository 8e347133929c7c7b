"""How long a command takes: to say its version, and from its start to the first answer with four workers.

Modules have their bytecode, as those of an installed package have: where it is not written (PYTHONDONTWRITEBYTECODE, as
in containers) those of an editable install would be compiled anew at each start. So it is kept in a folder of its own,
and each command is run once before it is measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from tests.benchmarks.servers import Kind, Server
from tests.benchmarks.table import Costs

COMMANDS = {"preforkd-wsgi-1": "preforkd", "gunicorn-wsgi": "gunicorn"}
ANSWER = 20.0  # seconds

Environ = Mapping[str, str]


def version_time(command: str, environ: Environ) -> float:
    """Return milliseconds that `COMMAND --version` takes."""
    path = Path(sys.executable).with_name(command)
    begun = time.perf_counter()
    subprocess.run([path, "--version"], check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environ})
    return (time.perf_counter() - begun) * 1e3


def first_answer(kind: Kind, environ: Environ) -> float:
    """Return milliseconds from the start of a server with four workers to its first answer; the app imports nothing."""
    begun = time.perf_counter()
    server = Server(kind, "tests.benchmarks.apps.wsgi:hello", (*kind.quiet, "--workers", "4"), environ)
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
    return {"--version, ms": _in_turn(kinds, rounds, lambda name, environ: version_time(COMMANDS[name], environ))}


def measure_starts(kinds: Mapping[str, Kind], rounds: int) -> dict[str, dict[str, Costs]]:
    """Measure the servers in turn; return a row of a table."""
    times = _in_turn(kinds, rounds, lambda name, environ: first_answer(kinds[name], environ))
    return {"start to first answer, 4 workers, ms": times}


def _in_turn(kinds: Mapping[str, Kind], rounds: int, measure: Callable[[str, Environ], float]) -> dict[str, Costs]:
    """Return what has been measured in each round but the first, which writes the bytecode."""
    names = [name for name in COMMANDS if name in kinds]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        environ = {"PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        timed = [{name: measure(name, environ) for name in names} for _ in range(rounds + 1)]
    return {name: [each[name] for each in timed[1:]] for name in names}
