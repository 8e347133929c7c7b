"""The benchmark's command, as far as it does not depend on the machine."""

from __future__ import annotations

import subprocess
import sys

from tests.benchmarks.rows import ROWS
from tests.benchmarks.servers import KINDS


def run(*arguments: str, path: str = "/nonexistent") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": path}, timeout=60, check=False)


def test_it_says_so_when_wrk_is_missing() -> None:
    result = run()
    assert result.returncode == 2
    assert "needs wrk" in result.stderr


def test_an_unknown_word_is_refused_with_the_known_ones() -> None:
    result = run("--only", "get,nonsense")
    assert result.returncode == 2
    assert "unknown: nonsense" in result.stderr
    assert all(name in result.stderr for name in (*ROWS, *KINDS))
