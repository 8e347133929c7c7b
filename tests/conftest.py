"""Which form of the HTTP parser the tests run on (`pytest --parser pure`), and what is skipped as a whole."""

from __future__ import annotations

import os

import pytest

from preforkd.workers.http import compiled
from tests.e2e import engine


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--parser`, for the tests in this process and for the daemons that they start."""
    parser.addoption("--parser", choices=("auto", "compiled", "pure"), default="auto", help="form of the HTTP parser")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the form."""
    form = config.getoption("--parser")
    compiled.choose(form)
    if form != "auto":
        os.environ["TESTS_PARSER"] = form  # read by tests/e2e/daemon.py


def pytest_report_header() -> list[str]:
    """Say which form it is, and whether the tests with containers are skipped."""
    lacking = engine.missing()
    return [
        f"HTTP parser: {compiled.form()}" + (f" ({compiled.MISSING})" if compiled.MISSING else ""),
        f"Image and systemd units: {f'SKIPPED, {lacking}' if lacking else 'built and run'}",
    ]
