"""--admin: probes, status and control, beside the traffic and whatever becomes of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.e2e import client
from tests.e2e.apps import AppFile
from tests.e2e.client import Connection
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import ROOT, SHORT_TRIAL, free_port, listens, title
from tests.e2e.load import load
from tests.e2e.test_container import NAMELESS, READ_ONLY, needs_mounts, needs_users
from tests.e2e.test_pid1 import NAMESPACE
from tests.e2e.test_pid1 import pytestmark as needs_namespace
from tests.e2e.test_privileges import NOBODY, needs_root
from tests.e2e.watching import Admin

pytestmark = pytest.mark.parallel


def test_probes_and_status_say_how_the_daemon_is(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path)
    assert (admin.get("/livez").status, admin.ready()) == (200, (200, []))
    found = admin.status()
    assert (found["version"], found["phase"], found["ready"], found["generation"]) == (1, "serving", True, 1)
    workers = {(one.slot, one.generation, one.pid) for one in admin.daemon.workers()}
    assert {(one["slot"], one["generation"], one["pid"]) for one in found["workers"]} == workers
    assert {one["state"] for one in found["workers"]} == {"ready"}
    assert found["listeners"] == [f"http://127.0.0.1:{admin.daemon.port}"]
    assert any("is ready after" in one["text"] for one in found["events"])
    missing = admin.get("/nowhere")
    assert (missing.status, "/livez, /readyz, /metrics" in missing.text) == (404, True)
    assert admin.daemon.stop() == 0
    assert not admin.path.exists()
    assert not listens(admin.port)


def test_a_daemon_that_boots_lives_but_is_not_ready(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    app = AppFile(tmp_path)
    app.version("1", first=f"import time\nfrom pathlib import Path\nwhile not Path({str(gate)!r}).exists():\n"
                           "    time.sleep(0.01)\n")  # fmt: skip
    admin = Admin(start, tmp_path, app=app.target, wait=False)
    admin.daemon.until(lambda: listens(admin.port), 10, "the admin process listens")
    assert admin.get("/livez").status == 200
    assert admin.ready() == (503, ["no worker has been ready yet"])
    gate.touch()
    admin.daemon.until(lambda: admin.ready()[0] == 200, 10, "ready")


def test_a_daemon_that_drains_lives_but_is_not_ready_until_its_end(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path)
    with Connection(admin.daemon.port, timeout=30) as busy:
        busy.ask(f"/until{tmp_path}/go")
        admin.daemon.until(lambda: admin.status()["requests"]["active"] == 1, 5, "the request is handled")
        assert admin.control("stop") == (
            202, {"version": 1, "result": "accepted", "text": "the daemon stops", "generation": 1, "seconds": 0.0}
        )  # fmt: skip
        admin.daemon.until(lambda: not listens(admin.daemon.port), 5, "nothing is accepted")
        assert admin.get("/livez").status == 200
        assert admin.ready() == (503, ["the daemon stops (stopping)"])
        assert admin.control("scale?workers=3") == (
            409, {"version": 1, "result": "refused", "text": "the daemon is stopping", "generation": 0, "seconds": 0.0}
        )  # fmt: skip
        (tmp_path / "go").touch()
        assert busy.answer().status == 200
    assert admin.daemon.wait_exit() == 0
    admin.daemon.wait_gone()


def ready_workers(admin: Admin, number: int) -> bool:
    found: int = admin.status()["workers_ready"]
    return found == number


def test_half_of_the_workers_are_enough_and_hung_ones_do_not_count(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path, "--stall-timeout", "0")
    for worker in admin.daemon.workers():
        admin.daemon.signal(signal.SIGSTOP, worker.pid)
        left = 1 - worker.slot
        admin.daemon.until(partial(ready_workers, admin, left), 15, "a worker less")
        assert admin.ready() == ((200, []) if left else (503, ["0 of 2 workers are ready, 1 would be enough"]))
    assert admin.get("/livez").status == 200
    for worker in admin.daemon.workers():
        admin.daemon.signal(signal.SIGCONT, worker.pid)
    admin.daemon.until(lambda: admin.ready()[0] == 200, 15, "ready again")


def test_a_master_that_hangs_does_not_live(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path)
    admin.daemon.signal(signal.SIGSTOP)
    admin.daemon.until(lambda: admin.get("/livez").status == 503, 20, "the master hangs")
    assert client.get(admin.daemon.port).status == 200
    admin.daemon.signal(signal.SIGCONT)
    admin.daemon.until(lambda: admin.get("/livez").status == 200, 5, "the master lives")


def test_nobody_notices_the_death_of_the_admin_process_but_the_log(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path)
    first, workers = admin.pid, admin.daemon.worker_pids()
    with load(admin.daemon.port) as result:
        admin.daemon.signal(signal.SIGKILL, first)
        admin.daemon.wait_log("the admin process ended: signal SIGKILL; another one is started")
        admin.daemon.until(lambda: admin.pid not in (0, first), 5, "another one")
        found = admin.status()
    assert result.failed == 0, result.describe()
    assert admin.daemon.worker_pids() == workers
    assert found["admin_lost"] == 1
    assert any("is ready after" in one["text"] for one in found["events"]), "it knows what was before"
    admin.daemon.signal(signal.SIGTERM, admin.pid)
    admin.daemon.wait_log("the admin process ended: exit code 0; another one is started")


def test_control_answers_when_it_is_done(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    tolerated = "Traceback"  # of the version that does not boot
    admin = Admin(start, tmp_path, *SHORT_TRIAL, app=app.target, tolerated=tolerated)
    with load(admin.daemon.port) as result:
        status, answer = admin.control("scale?workers=3&wait=1")
        assert (status, answer["result"], answer["text"]) == (200, "done", "there are 3 workers")
        assert len(admin.daemon.workers()) == 3
        before = {one.slot: one.pid for one in admin.daemon.workers()}
        assert admin.control("restart?slot=1&wait=1")[1]["text"] == "slot 1 has another worker"
        after = {one.slot: one.pid for one in admin.daemon.workers()}
        assert [before[slot] == after[slot] for slot in range(3)] == [True, False, True]
        app.version("2")
        status, answer = admin.control("reload?wait=1")
        assert (status, answer["result"], answer["generation"]) == (200, "done", 2)
        assert answer["seconds"] >= 0.5, "the trial is over"
        line = app.broken()
        status, answer = admin.control("reload?wait=1")
        assert (status, answer["result"]) == (409, "failed")
        assert f"app.py:{line}: RuntimeError: this version is broken" in answer["text"]
        app.path.unlink()
        status, answer = admin.control("reload?wait=1")
        assert (status, answer["result"]) == (409, "refused")
        assert "app.py" in answer["text"]
    assert result.failed == 0, result.describe()
    assert admin.status()["reloads"] == {"done": 1, "rolled_back": 1, "superseded": 0, "refused": 1}
    assert admin.control("stop?wait=1")[1]["text"] == "the daemon has ended"
    assert admin.daemon.wait_exit() == 0


def test_control_is_refused_over_tcp_and_for_what_there_is_not(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path)
    asked = ["stop", "log-level?level=debug", "profile?slot=0", "memory?slot=0", "cancel?ident=1"]
    for method, verb in (("GET", "examination"), *(("POST", verb) for verb in asked)):
        with Connection(admin.port) as connection:
            connection.ask(f"/control/{verb}", method=method)
            answer = connection.answer()
        assert (answer.status, "control is for unix sockets" in answer.text) == (403, True), verb
    status, said = admin.control("dance")
    assert (status, said["result"]) == (400, "wrong")
    assert admin.control("scale")[1]["text"] == "/control/scale needs a number: /control/scale?workers=2"
    assert admin.control("drain?slot=7")[1]["text"] == "slot 7 has no worker that serves"
    assert admin.get("/control/stop").status == 405
    assert client.get(admin.daemon.port).status == 200


ASK_AS_NOBODY = """
import os, sys
from pathlib import Path
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
from tests.e2e.watching import UnixConnection
for method, verb in (("POST", "reload"), ("POST", "log-level?level=debug"), ("POST", "profile?slot=0"),
                     ("POST", "memory?slot=0"), ("POST", "cancel?ident=1"), ("GET", "examination")):
    connection = UnixConnection(Path(sys.argv[1]))
    connection.request(method, f"/control/{verb}")
    response = connection.getresponse()
    print(response.status, response.read().decode().strip())
    connection.close()
"""


@needs_root
def test_control_is_for_root_and_the_master_and_not_for_the_user_of_the_workers(start: Start) -> None:
    with tempfile.TemporaryDirectory(prefix="preforkd-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        app = AppFile(folder)
        app.path.chmod(0o644)
        admin = Admin(start, folder, "--user", "nobody", app=app.target)
        assert admin.get("/livez").status == 200
        assert psutil.Process(admin.pid).uids().real == NOBODY.pw_uid
        admin.daemon.until(lambda: all(one["memory"] for one in admin.status()["workers"]), 10, "what it uses is seen")
        # The interpreter may lie in a folder that is root's alone, so all is imported before the user is changed.
        code = ASK_AS_NOBODY.replace("os.setgid", "import tests.e2e.watching; os.setgid")
        command = [sys.executable, "-c", code, str(admin.path), str(NOBODY.pw_uid)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        refused = f"control is for user {os.getuid()} and root, not for user {NOBODY.pw_uid}"
        lines = done.stdout.splitlines()
        assert len(lines) == 6
        assert all(line.startswith("403 ") and refused in line for line in lines), done
        assert admin.control("reopen")[0] == 202
        assert "process" in admin.daemon.wait_log(r"process \d+ of user 0 asks for: reopen")[0]
        assert admin.daemon.stop() == 0


def test_a_reload_may_change_its_addresses_and_keeps_the_one_that_stays(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "preforkd.toml"
    admin = Admin(start, tmp_path, *SHORT_TRIAL)
    port, other = admin.port, admin.path.with_name("other.sock")
    admin.daemon.stop()
    config.write_text(f'admin = ["127.0.0.1:{port}", "unix:{admin.path}"]')
    daemon = admin.daemon = start(*SHORT_TRIAL, "--config", str(config))
    first = admin.pid
    assert admin.control("reload?wait=1")[0] == 200
    assert admin.pid == first, "nothing has changed for it"
    config.write_text(f'admin = ["127.0.0.1:{port}", "unix:{other}"]')
    status, answer = admin.control("reload?wait=1")
    assert (status, answer["generation"]) == (200, 3), "the old process gives the answer that is due"
    admin.path = other
    daemon.until(lambda: admin.pid not in (0, first), 10, "another process")
    daemon.until(lambda: admin.control("reopen")[0] == 202, 5, "the new address")
    assert not (tmp_path / "admin.sock").exists()
    config.write_text("admin = []")
    assert admin.control("reload?wait=1")[1]["result"] == "done"
    daemon.until(lambda: not listens(port) and not other.exists(), 10, "no admin process")
    assert client.get(daemon.port).status == 200


def test_an_upgrade_brings_an_admin_process_of_the_new_program(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path, *SHORT_TRIAL)
    first, uptime = admin.pid, admin.status()["uptime"]
    status, answer = admin.control("upgrade")
    assert (status, answer["result"]) == (202, "accepted")
    admin.daemon.wait_log("this is the new program")
    admin.daemon.until(lambda: admin.pid not in (0, first), 10, "another admin process")
    found = admin.status()
    assert found["uptime"] > uptime, "the daemon has not been started anew"
    admin.daemon.until(lambda: admin.status()["generation"] == 2, 15, "the upgrade is over")
    assert admin.daemon.stop() == 0
    admin.daemon.wait_gone()


def test_a_killed_master_takes_its_admin_process_with_it(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path)
    admin.daemon.signal(signal.SIGKILL)
    admin.daemon.wait_exit()
    admin.daemon.wait_gone(5)
    assert not listens(admin.port)


def test_the_stack_of_a_worker_that_hangs_is_among_the_events(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path, "--stall-timeout", "0", "--log-level", "error", workers=1, wait=False)
    admin.daemon.until(lambda: listens(admin.daemon.port), 10, "it serves")
    texts = [one["text"] for one in admin.status()["events"]]
    assert any("is ready after" in one for one in texts), "also what the log does not say"
    with Connection(admin.daemon.port) as connection:
        connection.ask("/block/4")

        def stack() -> str:
            return next((one["text"] for one in admin.status()["events"] if " is here:" in one["text"]), "")

        text = admin.daemon.until(stack, 5, "a stack")
        assert text.startswith("worker 0 (generation 1) is here:\n")
        assert "in on_block" in text
        assert connection.answer().status == 200


def test_an_address_that_is_taken_is_an_error_at_once(start: Start, tmp_path: Path) -> None:
    daemon = start()
    second = start("--admin", f"127.0.0.1:{daemon.port}", wait=False)
    assert second.wait_exit() == 2
    assert f"cannot bind 127.0.0.1:{daemon.port}: the port is in use" in second.log()


@pytest.mark.parametrize(
    "confined",
    [
        pytest.param(NAMESPACE, marks=needs_namespace, id="as PID 1"),
        pytest.param((*READ_ONLY, str(ROOT)), marks=needs_mounts, id="read-only"),
        pytest.param(NAMELESS, marks=needs_users, id="nameless"),
    ],
)
def test_it_needs_no_more_than_a_container_gives(start: Start, confined: tuple[str, ...]) -> None:
    port = free_port()
    daemon = start("--admin", f"127.0.0.1:{port}", "--admin", f"unix:@preforkd-{port}", command=[*confined, *COMMAND])
    assert client.get(port, "/readyz").status == 200
    found = json.loads(client.get(port, "/status").text)
    assert [one["state"] for one in found["workers"]] == ["ready", "ready"]
    (admin,) = [one for one in daemon.processes() if title(one) == "preforkd: admin"]
    admin.kill()
    daemon.until(lambda: json.loads(client.get(port, "/status").text)["admin_lost"] == 1, 10, "another one")
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(30)
        control.connect(f"\0preforkd-{port}")
        control.sendall(b"POST /control/stop HTTP/1.1\r\nHost: x\r\n\r\n")
        assert control.recv(65536).startswith(b"HTTP/1.1 202 ")
    assert daemon.wait_exit() == 0
