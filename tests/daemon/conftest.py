"""What the tests of several modules need."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from preforkd.daemon.spawn import PR_SET_CHILD_SUBREAPER, become_subreaper


@pytest.fixture
def subreaper() -> Iterator[None]:
    """The test is a master whose children may have children for it."""
    assert become_subreaper()
    yield
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
