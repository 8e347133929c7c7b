"""A real browser, with a private authority: it fetches a page by TLS and opens a WebSocket."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.certificates import Authority, needs_openssl
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, BOOT

CHROMIUM, CERTUTIL = shutil.which("chromium"), shutil.which("certutil")

pytestmark = [needs_openssl, pytest.mark.parallel]


@pytest.mark.skipif(CHROMIUM is None, reason="install the Debian package chromium")
@pytest.mark.skipif(CERTUTIL is None, reason="install the Debian package libnss3-tools, by which chromium trusts")
def test_chromium_fetches_a_page_and_opens_a_websocket(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "localhost")
    for place in (".pki/nssdb", ".local/share/pki/nssdb"):  # the second since version 132
        trusted = tmp_path / place
        trusted.mkdir(parents=True)
        database = f"sql:{trusted}"
        subprocess.run(["certutil", "-d", database, "-N", "--empty-password"], check=True)
        add = ["certutil", "-d", database, "-A", "-t", "C,,", "-n", "tests", "-i", str(authority.certificate)]
        subprocess.run(add, check=True)
    daemon = start(
        "--certfile", str(certificate), "--keyfile", str(key), app=f"{APPS / 'tls_site.py'}:asgi", workers=1
    )  # fmt: skip
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0",
        f"https://localhost:{daemon.port}/page",
    ]  # fmt: skip
    environment = {**os.environ, "HOME": str(tmp_path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as browser:  # fmt: skip
        try:
            daemon.wait_log(r'"GET /page HTTP/1.1" 200 ', BOOT)
            daemon.wait_log(r'"GET /said-wss HTTP/1.1" 200 ', BOOT)
        finally:
            browser.terminate()
    assert "/failed" not in daemon.log()
