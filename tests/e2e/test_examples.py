"""The examples of the README answer curl."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.daemon import EXAMPLES, Daemon

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def curl(daemon: Daemon, path: str, *options: str) -> str:
    """What curl prints."""
    command = [
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "10",
        *options,
        f"http://127.0.0.1:{daemon.port}{path}",
    ]
    return subprocess.run(command, capture_output=True, check=True, timeout=20).stdout.decode()


def test_hello(start: Start) -> None:
    daemon = start(app=f"{EXAMPLES / 'hello.py'}:HttpRequestHandler")
    assert curl(daemon, "/") == "<h1>It Works!</h1>"
    shown = curl(daemon, "/", "--include").lower()
    assert "\r\nconnection: close\r\n" in shown, "it does not ask for keep-alive"
    assert "\r\ncontent-type: text/html\r\n" in shown


def test_get_parameters(start: Start) -> None:
    daemon = start(app=f"{EXAMPLES / 'get.py'}:HttpRequestHandler")
    shown = curl(daemon, "/?name=J%C3%BCrgen&name=two&empty=")
    assert "Jürgen" in shown
    assert "two" in shown


def test_post_data(start: Start) -> None:
    daemon = start(app=f"{EXAMPLES / 'post.py'}:HttpRequestHandler")
    shown = curl(daemon, "/", "--data-urlencode", "name=Jürgen", "--data", "name=two")
    assert "Jürgen" in shown
    assert "two" in shown


def test_another_page_in_hello_is_served_after_a_reload_as_the_readme_says(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "hello.py"
    text = (EXAMPLES / "hello.py").read_text()
    file.write_text(text)
    daemon = start(app=f"{file}:HttpRequestHandler")
    assert text.count("It Works!") == 1
    file.write_text(text.replace("It Works!", "It works anew, and at greater length!"))
    daemon.signal(signal.SIGHUP)
    daemon.until(lambda: "at greater length!</h1>" in curl(daemon, "/"), 10, "the new page, whole")
