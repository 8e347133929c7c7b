"""Somebody with a command line of gunicorn or uvicorn gets a running daemon from it in one try."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.client import get
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import free_port

FACTORY = """
def create():
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise RuntimeError("none")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"made"})
    return app

class site:
    class nested:
        app = staticmethod(create())
"""
COMMAND_LINES = {
    "gunicorn": ["shop:create()", "-k", "uvicorn.workers.UvicornWorker", "-w", "1", "-b", "127.0.0.1:{port}",
                 "-t", "90"],
    "uvicorn": ["shop:create", "--factory", "--host", "127.0.0.1", "--port", "{port}", "--workers", "1",
                "--timeout-keep-alive", "5", "--proxy-headers", "--loop", "auto", "--log-level", "info"],
    "nested": ["shop:site.nested.app", "--worker-class=uvicorn_worker.UvicornWorker", "--port", "{port}", "-w1",
               "--access-logfile", "-", "--graceful-timeout", "10"],
}  # fmt: skip
NOTES = {
    "gunicorn": "-t 90 is taken as --stall-timeout 90: a worker whose event loop",
    "uvicorn": r"--host 127.0.0.1 --port \d+ is taken as --bind 127.0.0.1:\d+",
    "nested": "--access-logfile - is taken as --access-log-file -",
}


@pytest.mark.parallel
def test_what_another_server_would_read_is_said_not_to_be(start: Start, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(FACTORY)
    (tmp_path / "gunicorn.conf.py").write_text("raise SystemExit('it was run')")
    command = ["sh", "-c", f'cd {tmp_path} && exec "$0" "$@"', *COMMAND]
    environment = {"GUNICORN_CMD_ARGS": "--workers 3"}
    daemon = start(app="shop:create()", workers=1, command=command, environment=environment)
    daemon.wait_log("WARNING .*GUNICORN_CMD_ARGS in the environment is not read")
    daemon.wait_log("WARNING .*`preforkd migrate gunicorn.conf.py` translates it")
    assert get(daemon.port).text == "made"
    assert daemon.stop() == 0


@pytest.mark.parallel
@pytest.mark.parametrize("server", COMMAND_LINES)
def test_a_command_line_of_another_server_runs(start: Start, tmp_path: Path, server: str) -> None:
    (tmp_path / "shop.py").write_text(FACTORY)
    port = free_port()
    arguments = [argument.format(port=port) for argument in COMMAND_LINES[server]]
    daemon = start("--app-dir", str(tmp_path), *arguments, app=None, workers=None, port=None)
    daemon.wait_log(NOTES[server])
    assert get(port).text == "made"
    assert daemon.stop() == 0
