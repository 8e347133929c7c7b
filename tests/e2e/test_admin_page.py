"""The page of the admin process, in a real browser."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.client import Connection
from tests.e2e.conftest import Start
from tests.e2e.daemon import ROOT
from tests.e2e.watching import Admin

pytestmark = pytest.mark.parallel

BROWSER = shutil.which("chromium")
PAGE = ROOT / "workers" / "admin" / "page.html"


def test_the_page_asks_nobody_but_its_daemon() -> None:
    text = PAGE.read_text()
    assert set(re.findall(r"https?://[^'\" )]+", text)) == {"http://www.w3.org/2000/svg"}, "the name of a format"
    assert not re.findall(r"\b(?:src|href)=\"(?!data:)", text)
    assert "innerHTML" not in text, "what clients have sent is text"


@pytest.mark.skipif(BROWSER is None, reason="needs chromium (the Debian package)")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_shows_the_daemon(start: Start, tmp_path: Path, dark: bool) -> None:
    admin = Admin(start, tmp_path)
    daemon = admin.daemon
    victim = daemon.workers()[0].pid
    daemon.signal(signal.SIGKILL, victim)
    daemon.wait_serving(but={victim})
    with Connection(daemon.port) as slow, Connection(daemon.port) as connection:
        slow.ask('/slow/60?name=<script>alert("gotcha")</script>')
        for _ in range(20):
            connection.get()
        connection.get("/nowhere")
        daemon.until(lambda: admin.status()["in_flight"], 5, "a request in flight")
        command = [
            str(BROWSER),
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
            *(f"--user-data-dir={tmp_path}/profile", "--window-size=1280,1200", "--virtual-time-budget=5000"),
            *("--enable-logging=stderr", "--v=0", "--dump-dom"),
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
            f"http://127.0.0.1:{admin.port}/",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    shown = done.stdout
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert '<section class="card" id="lost" role="status" hidden="">' in shown, "it has got its answers"
    assert ">serving</span>" in shown
    for worker in daemon.workers():
        assert f"<td>{worker.pid}</td>" in shown
    assert "/slow/60?name=&lt;script&gt;" in shown
    assert "ended: signal SIGKILL" in shown
    assert re.search(r"workers killed <b>1</b>", shown)
    assert re.search(r'<button id="theme" type="button">(Dark|Light)</button>', shown)
    assert (">Light</button>" in shown) is dark
