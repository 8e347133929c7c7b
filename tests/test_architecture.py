"""What the layout promises: imports go one way, and the master stays free of everything that is the workers'."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", sorted((ROOT / "workers").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_workers_know_nothing_of_the_daemon(path: Path) -> None:
    assert not [name for name in imported(path) if name.startswith("preforkd.daemon")]


@pytest.mark.parametrize("path", sorted((ROOT / "daemon").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_daemon_uses_no_asyncio(path: Path) -> None:
    assert "asyncio" not in imported(path)


def test_the_master_imports_no_event_loop_no_parser_and_starts_no_thread() -> None:
    code = (
        "import sys, threading\n"
        "import preforkd.daemon.command\n"
        "print([m for m in ('asyncio', 'uvloop', 'httptools', 'multidict', 'subprocess') if m in sys.modules])\n"
        "print(threading.active_count())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["[]", "1"]


PURE = (
    "policy", "reconcile", "turn", "deaths", "slots", "backoff", "events", "actions", "attendant", "report",
    "tls_specs", "tls_values",
)  # fmt: skip


@pytest.mark.parametrize("module", PURE)
def test_decisions_touch_no_clock_no_process_and_no_socket(module: str) -> None:
    effects = {"os", "time", "socket", "select", "selectors", "subprocess", "threading", "random", "datetime"}
    assert not imported(ROOT / "daemon" / f"{module}.py") & effects


@pytest.mark.parametrize("module", ["snapshot", "history", "readiness", "status", "metrics"])
def test_what_the_admin_process_says_is_reckoned_without_a_system_call(module: str) -> None:
    effects = {"os", "time", "socket", "select", "subprocess", "threading", "random", "datetime", "psutil", "asyncio"}
    assert not imported(ROOT / "workers" / "admin" / f"{module}.py") & effects


def test_no_package_is_missing_from_the_wheel() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        "preforkd." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in ("daemon", "workers")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert listed == found
