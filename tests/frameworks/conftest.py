"""The fixtures of the end-to-end tests, for the frameworks."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Start, pytest_runtest_makereport, start, xprocess
from tests.e2e.daemon import Daemon

__all__ = ["pytest_runtest_makereport", "start", "xprocess"]

# What the requests that fail have logged, by us and by the frameworks.
WSGI_FAULTS = "Traceback|Exception on|ClientDisconnected|InputError|UnreadablePostError"


@pytest.fixture
def daemon(request: pytest.FixtureRequest, start: Start) -> Daemon:
    """The daemon with the app of the tests' file, `FILE`, in one worker so that its memory is one."""
    return start(app=f"{request.module.FILE}:app", workers=1)


@pytest.fixture(params=["2", "0"], ids=["threads", "loop"])
def wsgi_daemon(request: pytest.FixtureRequest, start: Start) -> Daemon:
    """The same for a WSGI app, in threads and on the loop."""
    return start("--threads", request.param, app=f"{request.module.FILE}:app", workers=1, tolerated=WSGI_FAULTS)
