"""Hooks run in the workers, at the turns of their life; who a worker is stands in its environment."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.client import get
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import SHORT_TRIAL, Daemon

HOOKS = """
import os, pathlib, sys

def note(*words):
    with open({notes!r}, "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def hook(name):
    def run(slot, generation, reason):
        who = os.environ["PREFORKD_SLOT"] == str(slot) and os.environ["PREFORKD_GENERATION"] == str(generation)
        note(name, slot, generation, reason, who, "shop" in sys.modules)
    return run

boot, ready, drain, exit = map(hook, ("boot", "ready", "drain", "exit"))
"""
APP = """
import hooks, os
from preforkd.workers import Response, ServerHttpProtocol
hooks.note("import", os.environ.get("PREFORKD_SLOT"), os.environ["PREFORKD_GENERATION"])

class App(ServerHttpProtocol):
    async def handle_request(self, message, payload):
        text = f"{os.environ['PREFORKD_SLOT']} {os.environ['PREFORKD_GENERATION']}".encode()
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Length", str(len(text)))
        response.send_headers()
        response.write(text)
        await response.write_eof()
"""


class Notes:
    """What the hooks have written."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notes"
        (folder / "hooks.py").write_text(HOOKS.format(notes=str(self.path)))
        (folder / "shop.py").write_text(APP)

    def all(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def wait(self, daemon: Daemon, *lines: str) -> None:
        daemon.until(lambda: set(lines) <= set(self.all()), 20, f"{lines} in {self.all()}")


def test_hooks_run_at_each_turn_of_a_workers_life_and_are_told_which_and_why(start: Start, tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    daemon = start(*SHORT_TRIAL, "--hooks", "hooks", "--app-dir", str(tmp_path), app="shop:App", workers=1)
    assert notes.all() == ["boot 0 1 start True False", "import 0 1", "ready 0 1 start True True"]
    assert get(daemon.port).text == "0 1"
    mark = daemon.mark()
    daemon.signal(signal.SIGKILL, daemon.workers()[0].pid)
    notes.wait(daemon, "boot 0 1 vacancy True False", "ready 0 1 vacancy True True")
    daemon.wait_log("is ready after", since=mark)  # the master knows it, too
    daemon.signal(signal.SIGHUP)
    notes.wait(daemon, "boot 0 2 reload True False", "ready 0 2 reload True True", "drain 0 1 reload True True")
    daemon.wait_log("reload done")
    notes.wait(daemon, "exit 0 1 reload True True")
    daemon.signal(signal.SIGTERM, daemon.workers()[0].pid)
    notes.wait(daemon, "ready 0 2 retire True True", "drain 0 2 term True True", "exit 0 2 term True True")
    assert daemon.stop() == 0
    assert notes.all()[-2:] == ["drain 0 2 stop True True", "exit 0 2 stop True True"]
    assert len(notes.all()) == len(set(notes.all())) + 2, "the import of the second and the fourth worker are the same"


def test_a_rollback_makes_the_old_workers_ready_again(start: Start, tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    daemon = start("--hooks", "hooks", "--app-dir", str(tmp_path), app="shop:App", workers=2)
    (tmp_path / "shop.py").write_text(f"{APP}\nif os.environ['PREFORKD_SLOT'] == '1': raise OSError('bad')\n")
    daemon.tolerate("Traceback")
    daemon.signal(signal.SIGHUP)
    notes.wait(daemon, "exit 1 2 failed True False", "ready 0 1 resume True True")
    assert daemon.stop() == 0
    assert {"exit 0 1 stop True True", "exit 1 1 stop True True"} <= set(notes.all())


def test_with_a_mold_they_run_in_the_workers_when_the_app_is_there_already(start: Start, tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    hooks = f"{tmp_path / 'hooks.py'}"
    daemon = start("--preload", "--hooks", hooks, "--app-dir", str(tmp_path), app="shop:App", workers=1)
    assert notes.all() == ["import None 1", "boot 0 1 start True True", "ready 0 1 start True True"]
    assert get(daemon.port).text == "0 1"
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_a_boot_hook_that_fails_is_a_boot_that_fails(start: Start, tmp_path: Path) -> None:
    Notes(tmp_path)
    (tmp_path / "bad.py").write_text("def boot(slot, generation, reason):\n    raise OSError('no database')\n")
    arguments = ["--hooks", "bad", "--app-dir", str(tmp_path)]
    daemon = start(*arguments, app="shop:App", workers=1, wait=False, tolerated="Traceback")
    assert daemon.wait_exit() == 3
    assert re.search(r"did not boot: .*--hooks: boot\(\) of bad failed: .*bad.py:2: OSError: no database", daemon.log())
    done = subprocess.run([*COMMAND, "shop:App", *arguments, "--check"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 3
    assert "--hooks: boot() of bad failed" in done.stderr


@pytest.mark.parallel
def test_what_another_hook_raises_is_logged_and_ends_nothing(start: Start, tmp_path: Path) -> None:
    Notes(tmp_path)
    (tmp_path / "bad.py").write_text(
        "class Bad:\n    def ready(self, *_):\n        raise OSError('no metrics')\n"
        "    def drain(self, *_):\n        raise SystemExit\n    def exit(self):\n        pass\n"
    )
    daemon = start("--hooks", "bad:Bad", "--app-dir", str(tmp_path), app="shop:App", workers=1, tolerated="Traceback")
    daemon.wait_log(r"ERROR worker 0.*--hooks: ready\(\) of bad:Bad failed: the worker goes on")
    assert get(daemon.port).text == "0 1"
    assert daemon.stop() == 0
    for which in ("drain", "exit"):
        daemon.wait_log(rf"--hooks: {which}\(\) of bad:Bad failed: the worker goes on")
