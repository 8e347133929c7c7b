"""gunicorn.conf.py is read by its syntax tree, and never run."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from preforkd.daemon import command
from preforkd.daemon.migrate import as_toml, refusal, settings

SOURCE = b'''
"""Deployed on Friday."""
import multiprocessing, os
raise SystemExit("it was run")
PORT = 8000
bind = [f"0.0.0.0:{PORT}", "unix:/run/x.sock", "fd://3"]
workers = multiprocessing.cpu_count() * 2 + 1
worker_class = "uvicorn.workers.UvicornWorker"
timeout = 2 * 60
keepalive: int = int("5")
accesslog = "-"
errorlog = "-"
loglevel = os.environ.get("LOG", "info")
preload_app = True
reuse_port = False
daemon = False
pidfile = None
raw_env = ["A=b"]
limit_request_line = -(-8190)
user = "a" + "b"
if os.getenv("X"):
    threads = 4
def post_fork(server, worker):
    timeout = 3
def on_starting(server): pass
'''


def test_what_is_written_is_translated_and_what_would_have_to_be_run_is_said() -> None:
    text = as_toml(SOURCE, "gunicorn.conf.py")
    assert tomllib.loads(text) == {
        "bind": ["0.0.0.0:8000", "unix:/run/x.sock", "fd:3"],
        "workers": "auto",
        "interface": "asgi",
        "stall_timeout": 120,
        "keep_alive": 5,
        "access_log_file": "-",
        "preload": True,
        "limit_request_line": 8190,
        "user": "ab",
    }
    for comment in (
        "# line 7: workers = multiprocessing.cpu_count() * 2 + 1: auto goes by the CPUs",
        "# line 13: loglevel = os.environ.get('LOG', 'info'): not read, for it would have to be run; here it is",
        "# line 18: raw_env = ['A=b']: set the environment where",
        "# line 22: threads = if os.getenv('X'): threads = 4: not read",
        "# line 23: post_fork: --hooks module:object, whose boot() runs",
        "# line 25: on_starting: no code of the app runs in the master",
    ):
        assert comment in text
    assert "PORT" not in text
    assert ": daemon" not in text


def test_a_value_that_is_none_here_is_said() -> None:
    assert "# keep_alive: " in as_toml(b"keepalive = 'soon'", "x.py")


@pytest.mark.parametrize("source", [b"workers = 1 // 0", b"workers = 'a' * x", b"workers = int('x')", b"workers = f()"])
def test_an_expression_that_is_worth_nothing_known_is_not_read(source: bytes) -> None:
    (setting,) = settings(source)
    assert setting.value is None


def test_a_refusal_is_the_table_of_its_settings() -> None:
    first, *lines = refusal("gunicorn.conf.py", SOURCE)
    assert first.endswith("`preforkd migrate gunicorn.conf.py` prints one, without running it")
    assert 'worker_class (line 8) is interface = "asgi"' in lines
    assert "timeout (line 9) is stall_timeout = 120" in lines
    assert refusal("x.py", b"this is not")[1].startswith("it is no Python, either")


def test_the_command_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gunicorn.conf.py"
    file.write_bytes(SOURCE)
    assert command.run(["migrate", str(file)]) == 0
    assert "stall_timeout = 120\n" in capsys.readouterr().out
    file.write_text("x = (")
    assert command.run(["migrate", str(file)]) == 2
    assert "is not Python" in capsys.readouterr().err
    assert command.run(["migrate", str(tmp_path / "none.py")]) == 2
    assert "cannot be read: No such file" in capsys.readouterr().err


def test_such_a_file_is_refused_as_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gunicorn.conf.py"
    file.write_bytes(SOURCE)
    assert command.run(["-c", str(file)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "--config on the command line: " in lines[0]
    assert "preforkd: error: timeout (line 9) is stall_timeout = 120" in lines
    assert not [line for line in lines if "no app given" in line]
