"""What a container takes away: a file system to write to, a user with a name and a home, memory."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.apps import AppFile
from tests.e2e.client import Connection, NoAnswerError, ResetError, get
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import SHORT_TRIAL, Daemon
from tests.e2e.deadline import until
from tests.e2e.load import load

MB = 1 << 20
# Every mount but /proc read-only, as with --read-only of a container engine, and without even its /tmp and /dev/shm.
READ_ONLY = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'while read -r _ folder _; do case "$folder" in /proc*) continue ;; esac;'
    ' mount -o remount,bind,ro "$folder" 2>/dev/null; done </proc/mounts;'
    ' if touch "$0" 2>/dev/null; then echo "still writable"; exit 99; fi; exec "$@"',
)
# A user that no user database knows and that has no home, as OpenShift gives every pod one.
NAMELESS = ("unshare", "--user", "--map-user=1000680000", "--map-group=1000680000", "env", "-u", "HOME")
IN_GROUP = ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"')
EAT = """
EATEN = []

async def on_eat(self, payload, size):
    for _ in range(int(size)):
        EATEN.append(bytearray(os.urandom(1 << 20)))

Site.on_eat = on_eat
"""


def works(*command: str) -> bool:
    """Whether the command can be run here."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(
    not works("unshare", "--mount", "mount", "-o", "remount,bind,ro", "/"),
    reason="needs unshare (util-linux) and the right to mount",
)
needs_users = pytest.mark.skipif(
    not works(*NAMELESS, "true"), reason="needs unshare (util-linux) and the right to make user namespaces"
)


def serves_and_reloads(daemon: Daemon) -> None:
    with load(daemon.port, expect=r"1 \d+") as result:
        mark = daemon.mark()
        daemon.signal(signal.SIGHUP)
        daemon.wait_log("reload done", since=mark)
    assert result.failed == 0, result.describe()
    assert daemon.stop() == 0


@pytest.mark.parallel
@needs_mounts
def test_a_read_only_file_system_is_enough(start: Start, tmp_path: Path) -> None:
    daemon = start(*SHORT_TRIAL, command=[*READ_ONLY, str(tmp_path / "probe"), *COMMAND])
    mounts = [line.split() for line in Path(f"/proc/{daemon.pid}/mounts").read_text().splitlines()]
    assert {options.split(",")[0] for _, folder, _, options, *_ in mounts if folder in ("/", "/tmp")} == {"ro"}
    serves_and_reloads(daemon)


@pytest.mark.parallel
@needs_users
def test_a_user_without_a_name_and_a_home_is_enough(start: Start) -> None:
    daemon = start(*SHORT_TRIAL, command=[*NAMELESS, *COMMAND])
    assert '"HOME"' not in get(daemon.port, "/environment").text
    serves_and_reloads(daemon)


@pytest.mark.parallel
@needs_mounts
@needs_users
def test_both_at_a_time_are_enough_for_the_app_with_a_mold_too(start: Start, tmp_path: Path) -> None:
    daemon = start(*SHORT_TRIAL, "--preload", command=[*READ_ONLY, str(tmp_path / "probe"), *NAMELESS, *COMMAND])
    serves_and_reloads(daemon)


def memory_group() -> Path | None:
    """A new control group for memory, None where none can be made."""
    name = f"preforkd-test-{os.getpid()}"
    for folder, limit in (("memory", "memory.limit_in_bytes"), (".", "memory.max")):
        group = Path("/sys/fs/cgroup", folder, name)
        with suppress(OSError):
            group.mkdir()
            if (group / limit).exists():
                (group / limit).write_text(str(200 * MB))
                with suppress(OSError):  # where swap is not counted there is no such file
                    (group / "memory.memsw.limit_in_bytes").write_text(str(200 * MB))
                with suppress(OSError):
                    (group / "memory.swap.max").write_text("0")
                return group
            group.rmdir()
    return None


@pytest.fixture
def group() -> Iterator[Path]:
    group = memory_group()
    if group is None:
        pytest.skip("needs the right to make a control group with the memory controller")
    yield group
    until(lambda: _removed(group), 5, "the control group is empty")


def _removed(group: Path) -> bool:
    with suppress(OSError):
        group.rmdir()
    return not group.exists()


@pytest.fixture
def grouped(group: Path, start: Start, tmp_path: Path) -> Daemon:
    """A daemon in a group with little memory, whose app eats as much as it is told to."""
    app = AppFile(tmp_path)
    app.version("1", EAT)
    daemon = start(app=app.target, command=[*IN_GROUP, str(group), *COMMAND])
    assert str(daemon.pid) in (group / "cgroup.procs").read_text().split()
    return daemon


@pytest.mark.parallel
def test_a_worker_that_the_kernel_killed_for_memory_is_said_to_have_been(grouped: Daemon) -> None:
    known = grouped.worker_pids()
    with Connection(grouped.port) as connection, pytest.raises((NoAnswerError, ResetError)):
        connection.get("/eat/1000")
    said = grouped.wait_log(r"worker \d \(generation 1\) ended: (.*)")[1]
    assert said.startswith("killed by the kernel, which was out of memory (SIGKILL)")
    grouped.until(lambda: len(grouped.worker_pids() - known) == 1, 5, "a successor")
    assert get(grouped.port).status == 200
    assert grouped.stop() == 0


@pytest.mark.parallel
def test_an_import_that_needs_too_much_memory_is_said_to_have_with_a_mold_too(
    group: Path, start: Start, tmp_path: Path
) -> None:
    app = AppFile(tmp_path)
    app.version("1", "EATEN = [os.urandom(1 << 20) for _ in range(1000)]")
    daemon = start("--preload", app=app.target, command=[*IN_GROUP, str(group), *COMMAND], workers=1, wait=False)
    daemon.wait_log(r"worker 0 \(generation 1\) ended: killed by the kernel, which was out of memory")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit() == 0


@pytest.mark.parallel
def test_a_worker_that_somebody_killed_is_not_said_to_have_been_out_of_memory(grouped: Daemon) -> None:
    grouped.signal(signal.SIGKILL, min(grouped.worker_pids()))
    said = grouped.wait_log(r"worker \d \(generation 1\) ended: (.*)")[1]
    assert re.fullmatch("signal SIGKILL.*", said)
    assert grouped.stop() == 0
