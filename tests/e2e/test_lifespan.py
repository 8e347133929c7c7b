"""What a lifespan can do wrong, on the real daemon: the log says it, and neither a boot nor a stop takes longer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.client import get
from tests.e2e.conftest import Start

pytestmark = pytest.mark.parallel

APP = """
import sys

COMPLETE = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}


async def lifespan(receive, send):
    await receive()
BODY


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


def write(folder: Path, body: str) -> str:
    path = folder / "living.py"
    path.write_text(APP.replace("BODY", "\n".join(f"    {line}" for line in body.splitlines())))
    return f"{path}:app"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.exit('DATABASE_URL is missing')", "the app's startup failed: DATABASE_URL is missing$"),
        ("sys.exit(7)", r"the app's startup failed: it calls sys\.exit\(7\)$"),
        ("await send(STOPPED)", "RuntimeError: the app has sent 'lifespan.shutdown.complete' while it starts$"),
    ],
)
def test_a_startup_that_ends_otherwise_is_a_failed_boot_with_its_message(
    start: Start, tmp_path: Path, body: str, said: str
) -> None:
    daemon = start(app=write(tmp_path, body), workers=1, wait=False, tolerated="Traceback")
    assert daemon.wait_exit() == 3
    daemon.wait_log(f"did not boot: lifespan: .*{said}")


def test_a_startup_that_takes_too_long_is_named_with_its_option(start: Start, tmp_path: Path) -> None:
    app = write(tmp_path, "import asyncio\nawait asyncio.sleep(60)")
    daemon = start("--startup-timeout", "0.5", app=app, workers=1, wait=False, tolerated="Fatal Python error")
    assert daemon.wait_exit() == 3
    daemon.wait_log(r"it was not ready within 0\.5 s \(--startup-timeout\)")


def test_an_app_that_receives_once_more_after_its_shutdown_does_not_hold_the_stop_up(
    start: Start, tmp_path: Path
) -> None:
    app = write(tmp_path, "await send(COMPLETE)\nawait receive()\nawait send(STOPPED)\nawait receive()\nprint('more')")
    daemon = start("--shutdown-timeout", "20", "--idle-grace", "0", app=app)
    assert get(daemon.port).text == "ok"
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 10, "16 s are what it would have had"
    assert "has not shut down" not in daemon.log()
    assert "ERROR" not in daemon.log()


def test_an_app_that_completes_its_startup_twice_is_told_so_and_serves_on(start: Start, tmp_path: Path) -> None:
    app = write(tmp_path, "await send(COMPLETE)\nawait send(COMPLETE)")
    daemon = start(app=app, workers=1, tolerated="Traceback")
    daemon.wait_log("RuntimeError: the app has sent 'lifespan.startup.complete' before it was told to shut down")
    assert get(daemon.port).text == "ok"
    assert daemon.stop() == 0
    assert "shutdown failed" not in daemon.log()


@pytest.mark.parametrize("leaves", ["raise LookupError('no lifespan')", "return"])
def test_an_app_that_leaves_its_lifespan_before_it_receives_has_none(start: Start, tmp_path: Path, leaves: str) -> None:
    path = tmp_path / "living.py"
    path.write_text(APP.replace("    await receive()\nBODY", f"    {leaves}"))
    daemon = start(app=f"{path}:app", workers=1)
    assert get(daemon.port).text == "ok"
    assert daemon.stop() == 0
    assert "LookupError" not in daemon.log()
