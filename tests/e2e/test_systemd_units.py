"""The units of deploy/systemd in a systemd that runs: in a container, on a copy of the root file system of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.client import Connection, get
from tests.e2e.daemon import free_port
from tests.e2e.deadline import until
from tests.e2e.engine import SCOPE, missing
from tests.e2e.load import load
from tests.e2e.test_load_balancers import loaded, nginx
from tests.e2e.test_nginx_without_retries import without_retries

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"
SERVICE = "preforkd@shop.service"
SECOND = "preforkd@second.service"
PROGRAM = """#!{python}
import sys
sys.path[:0] = ["/opt/preforkd/lib", "/opt/preforkd/site-packages"]
from preforkd.daemon.{module} import main
sys.exit(main())
"""
APP = """
import asyncio, os

async def app(scope, receive, send):
    if scope["type"] == "http":
        body = b"VERSION 0"
        if scope["method"] == "POST":
            size, message = 0, {"more_body": True}
            while message.get("more_body"):
                message = await receive()
                size += len(message.get("body", b""))
            body += b" %d %d" % (os.getpid(), size)
        await asyncio.sleep(1 if scope["path"] == "/slow" else 0)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})
"""
OWN_PYTHON = sys.base_prefix != "/usr"
"""The interpreter is none of the system's: it may lie in a home, which the unit does not see."""
# The limit of open files is what a sandbox may allow, the watchdog what a test can wait for; an interpreter that was
# not installed for the system finds its library where it is shown.
DROP_IN = "[Service]\nLimitNOFILE=4096\nWatchdogSec=4\nEnvironment=LD_LIBRARY_PATH=/opt/preforkd/python/lib\n"


def why_not() -> str:
    if not Path("/lib/systemd/systemd").exists():
        return "needs the Debian package systemd"
    return missing()


why = why_not()
pytestmark = [
    pytest.mark.skipif(bool(why), reason=why),
    pytest.mark.parallel,
    pytest.mark.together,  # the machine is booted once
]


def socket_of(service: str) -> str:
    """The socket unit of a service."""
    return f"{service.removesuffix('.service')}.socket"


class Machine:
    """A container whose first process is systemd, with the units of deploy/systemd for two instances of one app."""

    def __init__(self) -> None:
        self.port, self.second_port = free_port(), free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="preforkd-systemd-"))
        self.name = f"preforkd-systemd-{os.getpid()}"
        self._mounts: list[Path] = []
        self._podman = ("podman", "--root", self.folder / "root", "--runroot", self.folder / "run", *SCOPE)

    def boot(self) -> None:
        """Lay the machine's files over a copy of this one's, whose /tmp and /run it does not see, and start it."""
        memory = self.folder / "memory"  # what is written may not lie below what it is laid over
        self._mount(memory, "-t", "tmpfs", "tmpfs")
        upper, work, self.root = memory / "upper", memory / "work", memory / "merged"
        for folder, mode in (("tmp", 0o1777), ("run", 0o755), ("opt/preforkd", 0o755), ("srv", 0o755)):
            (upper / folder).mkdir(parents=True)
            (upper / folder).chmod(mode)
            os.setxattr(upper / folder, "trusted.overlay.opaque", b"y")
        work.mkdir()
        self._mount(self.root, "-t", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", "overlay")
        self._install()
        shown: list[tuple[str | Path, str]] = [
            (sysconfig.get_path("purelib"), "site-packages"),
            (ROOT / "daemon", "lib/preforkd/daemon"),
            (ROOT / "workers", "lib/preforkd/workers"),
        ]
        if OWN_PYTHON:
            shown.append((sys.base_prefix, "python"))
        volumes = [f"--volume={source}:/opt/preforkd/{target}:ro" for source, target in shown]
        confined = ("--cap-add=all", "--cap-drop=sys_module,sys_time,sys_boot", "--security-opt=seccomp=unconfined")
        limits = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")
        systemd = ("--systemd=always", "--security-opt=unmask=/proc", "--network=host", *volumes)
        command: list[str | Path] = ["run", "--detach", "--name", self.name, *limits, *confined, *systemd]
        self._run(*command, "--rootfs", self.root, "/lib/systemd/systemd", "--unit=basic.target")
        until(lambda: self.systemctl("is-system-running").stdout.strip() == "running", 20, "systemd has started")

    def _mount(self, point: Path, *arguments: str) -> None:
        point.mkdir(exist_ok=True)
        subprocess.run(["mount", *arguments, point], check=True, timeout=30)
        self._mounts.append(point)

    def _install(self) -> None:
        units = self.root / "etc" / "systemd" / "system"
        for name in ("systemd-modules-load.service", "systemd-remount-fs.service"):  # not for a container
            (units / name).unlink(missing_ok=True)
            (units / name).symlink_to("/dev/null")
        for path in UNITS.glob("preforkd@.*"):
            shutil.copy(path, units)
        for service, port in ((SERVICE, self.port), (SECOND, self.second_port)):
            address = f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n"
            for name, text in ((service, DROP_IN), (socket_of(service), address)):
                (units / f"{name}.d").mkdir()
                (units / f"{name}.d" / "test.conf").write_text(text)
        python = Path(sys.executable).resolve()
        if OWN_PYTHON:
            python = Path("/opt/preforkd/python") / python.relative_to(sys.base_prefix)
        for folder in ("bin", "lib/preforkd/daemon", "lib/preforkd/workers", "site-packages", "python"):
            (self.root / "opt" / "preforkd" / folder).mkdir(parents=True)
        for name, module in (("preforkd", "cli"), ("preforkctl", "ctl")):
            program = self.root / "opt" / "preforkd" / "bin" / name
            program.write_text(PROGRAM.format(python=python, module=module))
            program.chmod(0o755)
        (self.root / "etc" / "preforkd").mkdir()
        text = 'app = "/srv/app.py:app"\nbind = ["systemd:web"]\nworkers = 2\n'
        for name in ("shop", "second"):
            (self.root / "etc" / "preforkd" / f"{name}.toml").write_text(text)
        self.write_app(APP)

    def write_app(self, text: str) -> None:
        """Replace the code of the app."""
        (self.root / "srv" / "app.py").write_text(text)

    def _run(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self._podman, *arguments], cwd=self.folder, check=False, capture_output=True, text=True, timeout=90
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return self._run("exec", self.name, *command, check=False)

    def systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run systemctl in it."""
        return self.execute("systemctl", "--no-pager", *arguments)

    def ordered(self, *arguments: str) -> None:
        """Have systemd do something that must succeed."""
        done = self.systemctl(*arguments)
        assert done.returncode == 0, done.stderr + self.journal()

    def show(self, name: str) -> str:
        """A property of the service."""
        return self.systemctl("show", "--value", f"--property={name}", SERVICE).stdout.strip()

    def journal(self) -> str:
        """What the service has logged."""
        return self.execute("journalctl", "--no-pager", "--unit", SERVICE).stdout

    def close(self) -> None:
        """End it, and remove what was made for it."""
        self._run("rm", "--force", "--time", "0", self.name, check=False)
        for point in reversed(self._mounts):
            subprocess.run(["umount", "--lazy", point], check=True, timeout=30)
        for line in Path("/proc/mounts").read_text().splitlines():
            if (left := line.split()[1]).startswith(f"{self.folder}/"):
                subprocess.run(["umount", left], check=True, timeout=30)
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    machine = Machine()
    try:
        machine.boot()
        yield machine
    finally:
        machine.close()


@pytest.fixture
def served(machine: Machine) -> Iterator[Machine]:
    machine.ordered("start", socket_of(SERVICE))
    machine.ordered("start", SERVICE)
    yield machine
    machine.systemctl("stop", socket_of(SERVICE), SERVICE)
    machine.systemctl("reset-failed")
    machine.write_app(APP)


def test_the_first_connection_starts_the_service_and_is_answered(machine: Machine) -> None:
    machine.ordered("start", socket_of(SERVICE))
    assert machine.show("ActiveState") == "inactive"
    assert get(machine.port).text == "VERSION 0"
    assert machine.show("ActiveState") == "active"
    assert machine.show("StatusText") == "serving: 2 of 2 workers ready (generation 1)"
    machine.ordered("stop", socket_of(SERVICE), SERVICE)
    assert machine.show("Result") == "success"


def test_a_reload_under_load_returns_when_the_new_code_serves_and_says_when_it_does_not(served: Machine) -> None:
    with load(served.port, expect=r"VERSION \d") as result:
        served.write_app(APP.replace("VERSION 0", "VERSION 1"))
        served.ordered("reload", SERVICE)
        assert get(served.port).text == "VERSION 1"
        served.write_app("this is no Python\n")
        assert served.systemctl("reload", SERVICE).returncode != 0
        assert served.show("ActiveState") == "active"
    assert result.failed == 0, result.describe()
    assert get(served.port).text == "VERSION 1"


@pytest.mark.parametrize("mode", ["mixed", "control-group"])
def test_a_restart_under_load_loses_nothing_whomever_systemd_signals(served: Machine, mode: str) -> None:
    served.execute("mkdir", "-p", f"/run/systemd/system/{SERVICE}.d")
    conf = f"/run/systemd/system/{SERVICE}.d/mode.conf"
    served.execute("sh", "-c", f"printf '[Service]\\nKillMode={mode}\\n' > {conf}")
    assert not Path(conf).exists(), "its /run is not this machine's"
    served.ordered("daemon-reload")
    assert served.show("KillMode") == mode
    with load(served.port, expect=r"VERSION \d") as result, Connection(served.port) as connection:
        connection.ask("/slow")
        served.ordered("restart", SERVICE)
        assert connection.answer().status == 200
    assert result.failed == 0, result.describe()
    served.execute("rm", conf)
    served.ordered("daemon-reload")


def test_restarts_one_after_the_other_behind_an_nginx_that_tries_nothing_again_lose_nothing(
    served: Machine, tmp_path: Path
) -> None:
    served.ordered("start", socket_of(SECOND))
    served.ordered("start", SECOND)
    with nginx(served.port, served.second_port, tmp_path, without_retries()) as balanced, loaded(balanced) as result:
        for service in (SERVICE, SECOND):
            served.ordered("restart", service)
    workers = {body.split()[2] for body in result.bodies if len(body.split()) == 4}
    assert len(workers) > 4, f"two workers of each life of an instance, at least three of which have served: {workers}"
    served.ordered("stop", socket_of(SECOND), SECOND)


def test_a_master_that_stands_still_is_replaced_by_the_watchdog(served: Machine) -> None:
    before = served.show("MainPID")
    served.execute("kill", "-STOP", before)
    until(lambda: served.show("MainPID") not in (before, "0") and served.show("ActiveState") == "active", 20, "another")
    assert get(served.port).status == 200
    assert "Watchdog timeout" in served.journal()


def test_the_service_has_no_rights_and_its_user_is_its_own(served: Machine) -> None:
    status = served.execute("cat", f"/proc/{served.show('MainPID')}/status").stdout
    fields = dict(line.split(":", 1) for line in status.splitlines())
    uid = int(fields["Uid"].split()[0])
    assert 61184 <= uid <= 65519, "systemd's range for DynamicUser="
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert (fields["NoNewPrivs"].strip(), fields["Seccomp"].strip()) == ("1", "2")
