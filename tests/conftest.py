"""Which form of the HTTP parser the tests run on (`pytest --parser pure`), and which of them run beside others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from preforkd.workers.http import compiled
from tests.e2e import engine

# How long an example takes is the machine's business, not the code's.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

WITH_DAEMONS = [Path(__file__).parent / name for name in ("e2e", "frameworks")]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--parser`, for the tests in this process and for the daemons that they start."""
    parser.addoption("--parser", choices=("auto", "compiled", "pure"), default="auto", help="form of the HTTP parser")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the form."""
    form = config.getoption("--parser")
    compiled.choose(form)
    if form != "auto":
        os.environ["TESTS_PARSER"] = form  # read by tests/e2e/daemon.py


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs beside others: of the tests without a daemon all that are not `alone`.

    First come those that belong together: `--dist worksteal` gives each process a row of tests, and others steal from
    the end of a row. They also take longest.
    """
    for item in items:
        with_daemon = any(folder in item.path.parents for folder in WITH_DAEMONS)
        if not with_daemon and item.get_closest_marker("alone") is None:
            item.add_marker(pytest.mark.parallel)
    items.sort(key=lambda item: item.get_closest_marker("together") is None)


@pytest.fixture
def pure_form() -> Iterator[None]:
    """Have the pure form run, for what there is in no other: its memories."""
    before = compiled.form()
    compiled.choose("pure")
    yield
    compiled.choose(before)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes that are no text by their parameter: frames with random masks would be other tests in each process."""
    return argname if isinstance(val, bytes) and not val.isascii() else None


def pytest_report_header() -> list[str]:
    """Say which form it is, and whether the tests with containers are skipped."""
    lacking = engine.missing()
    return [
        f"HTTP parser: {compiled.form()}" + (f" ({compiled.MISSING})" if compiled.MISSING else ""),
        f"Image and systemd units: {f'SKIPPED, {lacking}' if lacking else 'built and run'}",
    ]
