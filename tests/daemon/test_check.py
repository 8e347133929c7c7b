"""`--check`: the outcome of one throw-away boot, with the exit code of each way it can go."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "preforkd.daemon", "--check"]
HANDLER = "from preforkd.workers import ServerHttpProtocol\nclass Handler(ServerHttpProtocol): pass\n"


def check(folder: Path, app: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "hello.py").write_text(app)
    command = [*COMMAND, "hello.py:Handler", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=20)


def test_a_good_app_is_fine_although_its_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = check(tmp_path, HANDLER, "--bind", f"127.0.0.1:{port}", "--workers", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("hello.py:Handler is fine (protocol, loaded in ")
    assert done.stdout.endswith(f"on http://127.0.0.1:{port} by 3 workers (--workers on the command line)\n")


def test_an_app_that_fails_is_3_with_its_traceback_and_one_line(tmp_path: Path) -> None:
    done = check(tmp_path, "1 / 0")
    assert (done.returncode, done.stdout) == (3, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == 'preforkd: error: cannot import "hello.py": hello.py:1: ZeroDivisionError: division by zero'


def test_an_interface_that_the_app_cannot_have_is_3(tmp_path: Path) -> None:
    done = check(tmp_path, "def Handler(environ, start_response): return []", "--interface", "asgi")
    assert (done.returncode, done.stdout) == (3, "")
    assert "cannot be served as --interface asgi: it does not take the three arguments of ASGI" in done.stderr


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "the process was killed by SIGKILL while"),
        ("import os; os._exit(7)", "the process ended with exit code 7 while"),
    ],
)
def test_an_app_that_ends_its_process_is_3(tmp_path: Path, app: str, said: str) -> None:
    done = check(tmp_path, app)
    assert done.returncode == 3
    assert said in done.stderr


def test_an_app_that_hangs_at_import_is_3_after_the_startup_timeout(tmp_path: Path) -> None:
    began = time.monotonic()
    done = check(tmp_path, "import time; time.sleep(60)", "--startup-timeout", "0.3")
    assert done.returncode == 3
    assert done.stderr == "preforkd: error: hello.py:Handler has not loaded within 0.3 s (--startup-timeout)\n"
    assert time.monotonic() - began < 10


def test_a_wrong_option_is_2(tmp_path: Path) -> None:
    done = check(tmp_path, HANDLER, "--workers", "x")
    assert done.returncode == 2
    assert "--workers" in done.stderr


def test_a_terminated_check_is_no_success(tmp_path: Path) -> None:
    started = tmp_path / "started"
    (tmp_path / "hello.py").write_text(f"open({str(started)!r}, 'w')\nimport time; time.sleep(60)")
    with subprocess.Popen([*COMMAND, "hello.py:Handler"], cwd=tmp_path, process_group=0) as process:
        deadline = time.monotonic() + 10
        while not started.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        subprocess.run(["kill", "-TERM", "--", f"-{process.pid}"], check=True)
        assert process.wait(10) == -15


def test_a_process_that_the_import_forks_has_nothing_to_say_of_the_check(tmp_path: Path) -> None:
    forks = "import os\nif (pid := os.fork()):\n    assert os.wait()[1] == 0\n"
    done = check(tmp_path, HANDLER + forks, "--workers", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("is fine") == 1
