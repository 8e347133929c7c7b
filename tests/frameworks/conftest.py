"""The fixtures of the end-to-end tests, for the frameworks."""

from __future__ import annotations

from tests.e2e.conftest import pytest_runtest_makereport, start, xprocess

__all__ = ["pytest_runtest_makereport", "start", "xprocess"]
