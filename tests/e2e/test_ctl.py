"""preforkctl: a running daemon asked, and controlled, by its address or its pid file."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import client
from tests.e2e.apps import AppFile
from tests.e2e.client import Connection
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import FOREIGN, SHORT_TRIAL, free_port
from tests.e2e.load import load
from tests.e2e.test_container import READ_ONLY, needs_mounts
from tests.e2e.watching import Admin

pytestmark = pytest.mark.parallel

SCRIPT = str(Path(COMMAND[0]).parent / "preforkctl")
ENVIRONMENT = {key: value for key, value in os.environ.items() if not FOREIGN.fullmatch(key)}


def ctl(
    *arguments: str, command: tuple[str, ...] = (SCRIPT,), environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it; it must never show a traceback."""
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=60, env=ENVIRONMENT | (environment or {})
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_it_asks_and_controls_a_daemon_and_costs_no_request(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    pid = tmp_path / "pid"
    admin = Admin(start, tmp_path, *SHORT_TRIAL, "--pid", str(pid), app=app.target, tolerated="Traceback|does not boot")
    by_pid = {"PREFORKD_PID": str(pid)}

    def says(*arguments: str) -> tuple[int, str]:
        done = ctl(*arguments, environment=by_pid)
        return done.returncode, done.stdout + done.stderr

    with load(admin.daemon.port) as result:
        assert says("health") == (0, "ready\n")
        assert json.loads(says("status", "--json")[1])["master_pid"] == admin.daemon.pid
        assert says("scale", "3", "--wait")[1].startswith("there are 3 workers (")
        before = {one.slot: one.pid for one in admin.daemon.workers()}
        assert says("restart", "1", "--wait")[1].startswith("slot 1 has another worker (")
        assert says("drain", "2", "--wait")[1].startswith("slot 2 has another worker (")
        after = {one.slot: one.pid for one in admin.daemon.workers()}
        assert [before[slot] == after[slot] for slot in range(3)] == [True, False, False]
        assert says("restart", "9") == (1, "refused: slot 9 has no worker that serves\n")
        assert says("reopen") == (0, "the logs are opened anew\n")
        app.version("2")
        assert says("reload", "--wait")[1].startswith("generation 2 has replaced the old one (")
        line = app.broken()
        code, text = says("reload", "--wait")
        assert (code, f"app.py:{line}: RuntimeError" in text) == (1, True), text
        code, text = says("upgrade", "--wait")
        assert (code, text.startswith("failed: the new program does not boot: cannot import ")) == (1, True), text
        app.version("3")
        assert says("upgrade", "--wait") == (0, "the new program serves, as generation 4\n")
    assert result.failed == 0, result.describe()
    assert says("stop", "--wait") == (0, "the daemon has ended\n")
    assert admin.daemon.wait_exit() == 0
    code, text = says("status")
    assert (code, text) == (3, f"preforkctl: the pid file {pid} cannot be read: No such file or directory\n")


def test_status_and_requests_are_read_by_people(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path)
    at = ("--admin", f"unix:{admin.path}")
    assert ctl(*at, "requests").stdout == "no request waits for anything\n"
    with Connection(admin.daemon.port) as busy:
        busy.ask(f"/until{tmp_path}/go")
        admin.daemon.until(lambda: admin.status()["in_flight"], 5, "the request is in flight")
        head, row = ctl(*at, "requests").stdout.splitlines()
        assert head.split() == ["AGE", "SLOT", "PID", "METHOD", "PATH"]
        assert row.split()[-2:] == ["GET", f"/until{tmp_path}/go"]
        text = ctl(*at, "status").stdout
        (tmp_path / "go").touch()
        assert busy.answer().status == 200
    assert "ready; serving, generation 1, 2 of 2 workers ready" in text
    assert [line.split()[1:4:2] for line in text.splitlines() if " ready " in line[:30]] == [["1", "ready"]] * 2
    assert "is ready after" in text.partition("last events:")[2]


@pytest.mark.parametrize("path", ["/slow/30", "/block/5"])
def test_it_shows_where_a_worker_is_that_waits_or_is_blocked(start: Start, tmp_path: Path, path: str) -> None:
    admin = Admin(start, tmp_path, "--stall-timeout", "0", workers=1, tolerated="")
    at = ("--admin", f"unix:{admin.path}")
    with Connection(admin.daemon.port) as busy:
        busy.ask(path)
        name = f"on_{path.split('/')[1]}"

        def shown() -> str:
            done = ctl(*at, "stack", "0")
            assert done.returncode == 0, done
            return done.stdout if name in done.stdout else ""

        text = admin.daemon.until(shown, 10, "the handler")
    assert text.startswith("worker 0 (generation 1) is here:\n")
    assert "task " in text
    assert ctl(*at, "stack", "7").stderr == "refused: slot 7 has no worker that serves\n"


def test_it_is_found_by_every_way_and_each_failure_is_one_line(start: Start, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    admin = Admin(start, tmp_path, "--pid", str(pid))
    ways = ({"PREFORKD_ADMIN": f"127.0.0.1:{admin.port},unix:{admin.path}"}, {"PREFORKD_PID": str(pid)})
    for environment in ways:
        assert ctl("reopen", environment=environment).returncode == 0
    tcp = ctl("--admin", f"127.0.0.1:{admin.port}", "reopen")
    assert (tcp.returncode, tcp.stderr) == (1, "forbidden: control is for unix sockets: give --admin unix:PATH\n")
    assert ctl("--admin", f"127.0.0.1:{admin.port}", "health").returncode == 0
    cases = {
        (): "which daemon? Give --admin ADDRESS or --pid FILE",
        ("--admin", f"127.0.0.1:{free_port()}"): "nobody listens on 127.0.0.1:",
        ("--admin", "nonsense"): '"nonsense" is not an address: write "unix:/run/app/admin.sock" or "127.0.0.1:9000"',
        ("--admin", f"127.0.0.1:{admin.daemon.port}"): "that is no admin address of preforkd",
        ("--pid", __file__): "is no pid file",
    }
    for arguments, text in cases.items():
        done = ctl(*arguments, "status")
        assert (done.returncode, len(done.stderr.splitlines())) == (3, 1), done
        assert text in done.stderr
        assert ctl(*arguments, "health").returncode == 1
    without = start("--pid", str(tmp_path / "other"))
    assert "has no admin process" in ctl("--pid", str(tmp_path / "other"), "status").stderr
    assert without.stop() == 0


def test_health_says_why_and_imports_nothing_heavy(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path)
    at = ("--admin", f"unix:{admin.path}")
    code = f"""
import sys
sys.argv[1:] = {[*at, "health"]!r}
from preforkd.daemon import ctl
code = ctl.main()
heavy = {{"click", "json", "email", "http.client", "asyncio", "psutil", "dataclasses", "preforkd.workers"}}
print(code, sorted(heavy & set(sys.modules)))
"""
    # -S: what site imports for an editable installation is not ours.
    paths = [path for path in sys.path if path]
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {paths!r}; import site; site.main()\n{code}"],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert done.stdout == "ready\n0 []\n"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(5):
        assert ctl(*at, "health").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / 5
    assert used < 0.25, "five times what it takes"
    with Connection(admin.daemon.port, timeout=30) as busy:
        busy.ask(f"/until{tmp_path}/go")
        admin.daemon.until(lambda: admin.status()["requests"]["active"] == 1, 5, "the request is handled")
        assert ctl(*at, "stop").stdout == "the daemon stops\n"
        admin.daemon.until(lambda: admin.ready()[0] == 503, 5, "it drains")
        done = ctl(*at, "health")
        assert (done.returncode, done.stderr) == (1, "unhealthy: the daemon stops (stopping)\n")
        assert ctl(*at, "health", "--live").stdout == "alive\n"
        (tmp_path / "go").touch()
        assert busy.answer().status == 200
    assert admin.daemon.wait_exit() == 0


@needs_mounts
def test_it_works_through_a_read_only_root(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path, *SHORT_TRIAL)
    command = (*READ_ONLY, str(tmp_path), SCRIPT)
    done = ctl("--admin", f"unix:{admin.path}", "reload", "--wait", command=command)
    assert done.returncode == 0, done
    assert client.get(admin.daemon.port).status == 200
    at = ("--admin", f"unix:{admin.path}")
    assert ctl(*at, "log-level", "debug", command=command).stdout == "log level of all processes: debug\n"
    assert "workers ready" in ctl(*at, "top", "--once", command=command).stdout
    assert "not given back" in ctl(*at, "memory", "0", "--seconds", "0.2", command=command).stdout
    arguments = (*at, "profile", "0", "--seconds", "0.2", "--format", "collapsed")
    done = ctl(*arguments, "--output", "-", command=command)
    assert (done.returncode, done.stdout.startswith("main thread;")) == (0, True), done
    done = ctl(*arguments, "--output", str(tmp_path / "found"), command=command)
    said = f"{tmp_path}/found cannot be written: Read-only file system;"
    said += " give --output FILE, or --output - for standard output"
    assert (done.returncode, done.stderr) == (1, f"failed: {said}\n")


def test_every_command_has_its_help_and_the_shell_completes_it() -> None:
    text = ctl("--help").stdout
    names = [line.split()[0] for line in text.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()]
    assert "health" in names
    for name in names:
        said = ctl(name, "--help").stdout
        assert f"Usage: preforkctl {name} " in said
        assert "Example" in said, name
        assert f"preforkctl {name}" in said.partition("Example")[2].replace('", "', " ").replace('["', ""), name
    completion = ctl(
        environment={"_PREFORKCTL_COMPLETE": "bash_complete", "COMP_WORDS": "preforkctl re", "COMP_CWORD": "1"}
    )
    assert {line.partition(",")[2] for line in completion.stdout.splitlines()} == {
        "reload",
        "reopen",
        "requests",
        "restart",
    }
    assert ctl("dance").returncode == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("command", "words", "completed"),
    [("preforkctl", "log-level d", "debug"), ("preforkd", "--work", "--workers")],
)
def test_bash_completes_both_commands(command: str, words: str, completed: str) -> None:
    script = f"""
eval "$(_{command.upper()}_COMPLETE=bash_source {command})"
COMP_WORDS=({command} {words}); COMP_CWORD={len(words.split())}
_{command}_completion {command}; echo "${{COMPREPLY[*]}}"
"""
    path = f"{Path(SCRIPT).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=60, env=ENVIRONMENT | {"PATH": path}
    )
    assert (done.stdout, done.stderr) == (f"{completed}\n", "")
