"""An app that uses prometheus-client in multiprocess mode."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.e2e.client import Connection, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import SHORT_TRIAL, Daemon

pytestmark = pytest.mark.parallel
pytest.importorskip("prometheus_client")

APP = """
import os
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess

ASKED = Counter("asked", "Requests.")
WORKERS = Gauge("live_workers", "Workers.", multiprocess_mode="livesum")
BUSY = Gauge("busy", "Requests at a time.")
WORKERS.set(1)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        body = generate_latest(registry)
    else:
        WORKERS.set(1)
        BUSY.inc()
        ASKED.inc()
        if environ["PATH_INFO"] == "/kill":
            os.kill(os.getpid(), 9)
        BUSY.dec()
        body = b"1 %d" % os.getpid()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def metric(daemon: Daemon, name: str) -> list[float]:
    text = get(daemon.port, "/metrics").text
    return [float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)]


@pytest.mark.parametrize("preload", [False, True], ids=["import", "preload"])
def test_counters_go_on_and_dead_workers_leave_neither_files_nor_gauges(
    start: Start, tmp_path: Path, preload: bool
) -> None:
    folder, app = tmp_path / "metrics", tmp_path / "app.py"
    folder.mkdir()
    app.write_text(APP)
    arguments = ["--preload"] if preload else []
    daemon = start(*SHORT_TRIAL, *arguments, app=f"{app}:app", environment={"PROMETHEUS_MULTIPROC_DIR": str(folder)})
    asked = 0
    for _ in range(3):
        known = {worker.pid for worker in daemon.wait_workers(2)}
        for pid in known:
            daemon.connect_to(pid, 1)[0].close()
        asked = int(metric(daemon, "asked_total")[0])
        assert asked >= 2
        since = len(daemon.log())
        for pid in known:
            daemon.signal(signal.SIGKILL, pid)
        # Both: the library fails at the file of a process that has only just made it.
        for slot in range(2):
            daemon.wait_log(rf"worker {slot} \(generation 1\) is ready", since=since)
        daemon.wait_serving(but=known)
        assert metric(daemon, "asked_total") == [asked + 1], "what the dead have counted stays counted"
    with Connection(daemon.port) as connection:
        connection.ask("/kill")
        daemon.wait_log("ended: signal SIGKILL")
    before = len(list(folder.glob("*.db")))
    daemon.wait_workers(2)
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("reload done")
    for worker in daemon.wait_workers(2):
        daemon.connect_to(worker.pid, 1)[0].close()
    daemon.until(lambda: metric(daemon, "live_workers") == [2], 5, "two workers that live")
    assert set(metric(daemon, "busy")) == {0}, "the request of a dead worker is not at work any more"
    names = {path.name.rpartition("_")[2] for path in folder.glob("*.db")}
    assert names <= {f"w{row}.db" for row in range(4)}, "a reload has two workers a slot, and no more files than that"
    assert before <= 3 * 4
    assert daemon.stop() == 0
    assert not list(folder.glob("gauge_live*"))
