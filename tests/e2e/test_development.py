"""--reload: what is saved is served, a mistake is shown and got over, and nobody stands by."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.e2e.apps import AppFile
from tests.e2e.client import Connection, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, Daemon, title
from tests.e2e.websocket_client import RawWebSocket

pytest.importorskip("watchfiles")
pytestmark = pytest.mark.parallel


def watching(start: Start, *arguments: str, app: str, **more: object) -> Daemon:
    daemon = start("--reload", *arguments, app=app, workers=None, wait=False, **more)  # type: ignore[arg-type]
    daemon.wait_log(r"INFO watcher\[\d+\] --reload: watching ")
    return daemon


def wait_version(daemon: Daemon, wanted: str) -> None:
    daemon.until(lambda: get(daemon.port).text.split()[0] == wanted, 20, f"version {wanted}")


def test_what_is_saved_is_served_at_once_by_one_worker_on_the_same_port(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = watching(start, app=app.target)
    daemon.wait_log(rf"INFO master\[\d+\] open http://127.0.0.1:{daemon.port}/$")
    wait_version(daemon, "1")
    assert len(daemon.workers()) == 1
    took = []
    for version in "234":
        with Connection(daemon.port) as idle:
            idle.get()
            app.version(version)
            began = time.monotonic()
            wait_version(daemon, version)
            took.append(time.monotonic() - began)
            idle.expect_close()
        daemon.wait_log(f"reload done: generation {version} ")
    print(f"seconds from the save to the new answer: {took}")
    assert min(took) < 5, "0.3 s on an idle machine"
    daemon.wait_workers(1)
    assert "stands by" not in daemon.log()
    assert daemon.log().count(f"reload: {app.path} was saved") == 3, "and what Python itself writes does not count"
    assert daemon.stop() == 0
    daemon.wait_gone()


def test_a_mistake_is_shown_and_got_over_also_the_first_one(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    app.deploy("def nonsense(:\n")
    daemon = watching(start, app=app.target, tolerated="Traceback|nonsense")
    daemon.wait_log(rf"did not boot: import: cannot import .*{app.path.name}:1: SyntaxError")
    daemon.wait_log("the next try is when a file has been saved")
    app.version("1")
    daemon.wait_log("stop: kill -TERM")
    wait_version(daemon, "1")
    app.version("2")
    wait_version(daemon, "2")
    daemon.wait_log("reload done: generation 3 ")
    line = app.broken()
    daemon.wait_log(rf"{app.path.name}:{line}: RuntimeError: this version is broken")
    daemon.wait_log("reload failed: generation 3 goes on")
    wait_version(daemon, "2")
    app.version("3")
    wait_version(daemon, "3")
    assert daemon.stop() == 0


def test_an_idle_websocket_is_told(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path, APPS / "asgi_site.py", "app")
    daemon = watching(start, app=app.target)
    daemon.wait_log("stop: kill -TERM")
    with RawWebSocket(daemon.port, "/") as websocket:
        app.version("2")
        reply = websocket.reply()
        assert reply is not None
        assert isinstance(reply.payload, tuple)
        assert reply.payload[0] == 1012
    assert daemon.stop() == 0


def test_folders_and_patterns_say_which_files_count(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    (pages := tmp_path / "pages").mkdir()
    (config := tmp_path / "some.toml").write_text("reload = true\nlog_level = 'info'\n")
    arguments = ["--reload-dir", str(pages), "--reload-include", "*.html", "--reload-exclude", "draft*"]
    daemon = watching(start, *arguments, "--config", str(config), app=app.target)
    daemon.wait_log("stop: kill -TERM")
    app.version("2")
    (pages / "draft.html").touch()
    (pages / "x.css").touch()
    (pages / "index.html").touch()
    daemon.wait_log(rf"reload: {pages}/index.html was saved")
    daemon.wait_log("reload done: generation 2 ")
    config.write_text("reload = true\nlog_level = 'debug'\n")
    daemon.wait_log(rf"reload: {config} was saved")
    daemon.wait_log("reload done: generation 3 ")
    assert daemon.log().count("was saved") == 2
    assert daemon.stop() == 0


def test_a_watcher_that_is_killed_is_missed_and_an_upgrade_gets_a_new_one(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = watching(start, app=app.target)
    daemon.wait_log("stop: kill -TERM")
    mark = daemon.mark()
    daemon.signal(signal.SIGUSR2)
    daemon.wait_log("upgrade: this is the new program", since=mark)
    daemon.wait_log("--reload: watching", since=mark)
    daemon.wait_log("reload done", since=mark)
    (watcher,) = [process for process in daemon.processes() if title(process) == "preforkd: watcher"]
    app.version("2")
    wait_version(daemon, "2")
    watcher.kill()
    daemon.wait_log("the watching process has ended: saved files are not noticed any more")
    daemon.wait_log("reload done: generation 3 ", since=mark)
    assert daemon.stop() == 0


def test_a_watcher_goes_with_its_master(start: Start, tmp_path: Path) -> None:
    daemon = watching(start, app=AppFile(tmp_path).target)
    daemon.wait_log("stop: kill -TERM")
    daemon.signal(signal.SIGKILL)
    daemon.wait_exit()
    daemon.wait_gone(10)
