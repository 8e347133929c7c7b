"""The benchmark's command, as far as it does not depend on the machine."""

from __future__ import annotations

import subprocess
import sys

from tests.benchmarks.apps import CASES


def run(*arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": path}, timeout=60, check=False)


def test_it_says_so_when_wrk_is_missing() -> None:
    result = run(path="/nonexistent")
    assert result.returncode == 2
    assert "needs wrk" in result.stderr


def test_an_unknown_case_is_refused_with_the_known_ones() -> None:
    result = run("nonsense", path="/nonexistent")
    assert result.returncode == 2
    assert all(name in result.stderr for name in CASES)
