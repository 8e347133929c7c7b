"""preforkctl top: live in a terminal, and plain in a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.deadline import until
from tests.e2e.test_ctl import ENVIRONMENT, SCRIPT, ctl
from tests.e2e.watching import Admin

pytestmark = pytest.mark.parallel


class Terminal:
    """A terminal with that many columns, in which a command runs."""

    def __init__(self, columns: int, *command: str) -> None:
        self._master, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""}
        self.process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, env=environment)
        os.close(end)
        os.set_blocking(self._master, False)
        self.text = ""

    def shows(self, text: str) -> bool:
        with contextlib.suppress(OSError):  # nothing new, or its end
            self.text += os.read(self._master, 1 << 20).decode(errors="replace")
        return text in self.text

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)


@pytest.mark.parametrize("columns", [80, 160])
def test_top_is_live_waits_for_a_daemon_that_is_gone_and_ends_by_q(start: Start, tmp_path: Path, columns: int) -> None:
    pytest.importorskip("rich")
    admin = Admin(start, tmp_path, workers=1)
    terminal = Terminal(columns, SCRIPT, "--admin", f"unix:{admin.path}", "top", "--interval", "0.1")
    try:
        until(lambda: terminal.shows("1 of 1 workers ready"), 20, lambda: terminal.text)
        until(lambda: terminal.shows("is ready after"), 20, lambda: terminal.text)
        assert ("LAG" in terminal.text) == (columns == 160)
        assert admin.daemon.stop() == 0
        until(lambda: terminal.shows("waiting for the daemon ..."), 20, lambda: terminal.text)
        terminal.type(b"q")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()


def test_without_rich_it_says_in_one_line_what_to_install(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path, workers=1)
    code = "import sys; sys.modules['rich'] = None; from preforkd.daemon.ctl import main; sys.exit(main())"
    terminal = Terminal(80, sys.executable, "-c", code, "--admin", f"unix:{admin.path}", "top")
    try:
        assert terminal.process.wait(20) == 1
        until(lambda: terminal.shows("\n"), 5, lambda: terminal.text)
        assert terminal.text == "failed: top needs rich: pip install 'preforkd[top]', or use --once\r\n"
    finally:
        terminal.process.kill()
        terminal.process.wait()


def test_in_a_pipe_it_is_plain_text_once(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path)
    for arguments in ([], ["--once"]):
        done = ctl("--admin", f"unix:{admin.path}", "top", *arguments)
        assert done.returncode == 0
        assert "2 of 2 workers ready" in done.stdout
        assert "no request waits for anything" in done.stdout
        assert "\x1b" not in done.stdout
