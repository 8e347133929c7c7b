"""--user, --group, --umask: workers give up what the master keeps."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.e2e.apps import AppFile
from tests.e2e.client import get
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import APPS, SHORT_TRIAL, Daemon
from tests.e2e.load import load

pytestmark = pytest.mark.parallel

NOBODY = pwd.getpwnam("nobody")
NOBODY_ONLY = (*[NOBODY.pw_uid] * 3, *[NOBODY.pw_gid] * 3)  # real, effective and saved
REGAIN = """
async def on_regain(self, payload, argument):
    def may(way):
        try:
            way()
        except PermissionError:
            return False
        return True
    ways = (lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgid(0), lambda: os.setgroups([0]),
            lambda: open("/etc/shadow").close(), lambda: os.kill(os.getppid(), 0))
    await self.answer(json.dumps([may(way) for way in ways]))

async def on_make(self, payload, path):
    open("/" + path, "x").close()
    await self.answer("made")

Site.on_regain, Site.on_make = on_regain, on_make
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can have workers of another user")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may look into: pytest's own are root's alone."""
    with tempfile.TemporaryDirectory(prefix="preforkd-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def readable(folder: Path) -> AppFile:
    """The site in a file that everybody may read."""
    app = AppFile(folder)
    app.version("1", REGAIN)
    app.path.chmod(0o644)
    return app


def low_port() -> int:
    """A port that only root may bind."""
    for port in range(1023, 600, -1):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port below 1024 is free")


def identities(daemon: Daemon) -> set[tuple[int, ...]]:
    """Real, effective and saved user and group of the workers."""
    processes = [psutil.Process(pid) for pid in daemon.worker_pids()]
    return {(*process.uids(), *process.gids()) for process in processes}


@needs_root
def test_workers_are_the_user_and_the_master_binds_what_only_root_may(start: Start, public: Path) -> None:
    port = low_port()
    app = readable(public)
    daemon = start(*SHORT_TRIAL, "--user", "nobody", app=app.target, port=port)
    assert identities(daemon) == {NOBODY_ONLY}
    assert psutil.Process(daemon.pid).uids().effective == 0
    with load(port, expect=r"\d \d+") as result:
        app.version("2", REGAIN)
        app.path.chmod(0o644)
        mark = daemon.mark()
        daemon.signal(signal.SIGHUP)
        daemon.wait_log("reload done", since=mark)
    assert result.failed == 0, result.describe()
    assert get(port).text.startswith("2 ")
    assert identities(daemon) == {NOBODY_ONLY}
    assert daemon.stop() == 0


@needs_root
def test_the_app_cannot_get_back_what_was_given_up(start: Start, public: Path) -> None:
    daemon = start("--user", "nobody", app=readable(public).target)
    assert get(daemon.port, "/regain").text == "[false, false, false, false, false, false]"
    status = Path(f"/proc/{min(daemon.worker_pids())}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")} == {0}
    assert set(map(int, fields["Groups"].split())) == set(os.getgrouplist("nobody", NOBODY.pw_gid))


@needs_root
def test_the_app_finds_the_environment_of_its_user(start: Start, public: Path) -> None:
    daemon = start("--user", "nobody", app=readable(public).target)
    text = get(daemon.port, "/environment").text
    assert f'"HOME": "{NOBODY.pw_dir}"' in text
    assert '"USER": "nobody"' in text
    assert '"LOGNAME": "nobody"' in text


@needs_root
def test_user_and_group_may_be_numbers_that_nobody_knows(start: Start, public: Path) -> None:
    daemon = start("--user", "31415", "--group", "27182", app=readable(public).target)
    assert identities(daemon) == {(*[31415] * 3, *[27182] * 3)}


@needs_root
def test_the_workers_of_a_killed_master_end_also_while_they_boot(start: Start) -> None:
    daemon = start("--user", "nobody", app=f"{APPS / 'slow_import.py'}:Site", wait=False)
    daemon.until(lambda: identities(daemon) == {NOBODY_ONLY}, 10, "workers that have dropped")
    daemon.signal(signal.SIGKILL)
    daemon.wait_exit()
    daemon.wait_gone(2.0)


@needs_root
def test_a_mold_imports_the_app_as_the_user_too(start: Start, public: Path) -> None:
    app = readable(public)
    app.version("1", REGAIN + "\nassert os.geteuid() != 0\n")
    app.path.chmod(0o644)
    daemon = start(*SHORT_TRIAL, "--user", "nobody", "--preload", app=app.target)
    mine = [one for one in psutil.Process(daemon.pid).children() if one.pid not in daemon.worker_pids()]
    assert {(*one.uids(), *one.gids()) for one in mine} == identities(daemon) == {NOBODY_ONLY}
    assert get(daemon.port, "/regain").text == "[false, false, false, false, false, false]"
    mark = daemon.mark()
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("reload done", since=mark)
    assert identities(daemon) == {NOBODY_ONLY}
    daemon.signal(signal.SIGKILL)
    daemon.wait_exit()
    daemon.wait_gone(2.0)


@needs_root
def test_an_upgrade_keeps_root_for_the_master_alone(start: Start, public: Path) -> None:
    daemon = start(*SHORT_TRIAL, "--user", "nobody", app=readable(public).target)
    with load(daemon.port, expect=r"1 \d+") as result:
        mark = daemon.mark()
        daemon.signal(signal.SIGUSR2)
        daemon.wait_log("reload done", since=mark)
    assert result.failed == 0, result.describe()
    assert psutil.Process(daemon.pid).uids().effective == 0
    assert identities(daemon) == {NOBODY_ONLY}


@needs_root
def test_a_check_runs_no_code_of_the_app_as_root(start: Start, public: Path) -> None:
    app = readable(public)
    app.version("1", "print('imported by', os.getresuid(), flush=True)")
    app.path.chmod(0o644)
    daemon = start("--user", "nobody", "--check", app=app.target, wait=False)
    assert daemon.wait_exit() == 0
    daemon.wait_log(rf"imported by \({NOBODY.pw_uid}, {NOBODY.pw_uid}, {NOBODY.pw_uid}\)", 0.1)


@needs_root
def test_a_user_that_is_reloaded_is_that_of_the_new_workers(start: Start, public: Path) -> None:
    config = public / "preforkd.toml"
    config.write_text('user = "nobody"\n')
    daemon = start(*SHORT_TRIAL, "--config", str(config), app=readable(public).target)
    config.write_text('user = "31415"\ngroup = "27182"\n')
    mark = daemon.mark()
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("reload done", since=mark)
    daemon.until(lambda: identities(daemon) == {(*[31415] * 3, *[27182] * 3)}, 5, "workers of the new user alone")
    config.write_text('user = "nobdy"\n')
    mark = daemon.mark()
    daemon.signal(signal.SIGHUP)
    daemon.wait_log(
        "reload refused: user in .*preforkd.toml: there is no user 'nobdy'; did you mean nobody", since=mark
    )


@needs_root
@pytest.mark.parametrize("which", ["file", "folder"])
def test_an_app_that_its_user_may_not_read_is_said_in_one_line(start: Start, public: Path, which: str) -> None:
    app = readable(public)
    (app.path if which == "file" else public).chmod(0o600)
    daemon = start("--user", "nobody", app=app.target, wait=False)
    assert daemon.wait_exit() == 3
    daemon.wait_log(f"did not boot: import: {app.path} cannot be read: permission denied", 0.1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--user", "nobdy"), "--user on the command line: there is no user 'nobdy'; did you mean nobody"),
        (("--group", "xyzzy"), "--group on the command line: there is no group 'xyzzy'"),
        (("--umask", "9"), '--umask on the command line: "9" is not'),
        (("--umask", "1777"), '--umask on the command line: "1777" is not'),
    ],
)
def test_what_does_not_exist_is_an_error_before_any_fork(start: Start, arguments: tuple[str, ...], said: str) -> None:
    daemon = start(*arguments, wait=False)
    assert daemon.wait_exit(5) == 2
    daemon.wait_log(said, 0.1)


@needs_root
def test_who_is_not_root_is_told_that_it_takes_root(start: Start) -> None:
    # A user namespace in which this process is an ordinary user: it still reads root's files.
    somebody = ("unshare", "--user", "--map-user=31415", "--map-group=27182")
    daemon = start("--user", "nobody", command=[*somebody, *COMMAND], wait=False)
    assert daemon.wait_exit(5) == 2
    daemon.wait_log("--user on the command line: only root can .*this is user 31415, group 27182", 0.1)


def test_the_umask_counts_for_files_of_the_app_and_for_unix_sockets(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    app.version("1", REGAIN)
    unix = tmp_path / "http.sock"
    daemon = start("--umask", "027", "--bind", f"unix:{unix}", app=app.target)
    assert get(daemon.port, f"/make{tmp_path}/made").status == 200
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o640
    assert unix.stat().st_mode & 0o777 == 0o750


@needs_root
def test_a_unix_socket_has_the_mode_and_the_owner_of_its_address(start: Start, tmp_path: Path) -> None:
    unix, plain = tmp_path / "http.sock", tmp_path / "plain.sock"
    group = grp.getgrgid(os.getgrouplist("www-data", 33)[0] if _has("www-data") else NOBODY.pw_gid)
    daemon = start(
        "--bind", f"unix:{unix}?mode=660&user=nobody&group={group.gr_name}", "--bind", f"unix:{plain}", "--umask", "077"
    )
    found = unix.stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o660, NOBODY.pw_uid, group.gr_gid)
    assert plain.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(unix))
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert daemon.stop() == 0
    assert not unix.exists()


def _has(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


@needs_root
def test_a_unix_socket_belongs_to_the_user_of_the_workers_unless_its_address_says_otherwise(
    start: Start, public: Path
) -> None:
    unix, other = public / "http.sock", public / "other.sock"
    start(
        "--user", "nobody", "--bind", f"unix:{unix}", "--bind", f"unix:{other}?user=root",
        app=readable(public).target,
    )  # fmt: skip
    assert (unix.stat().st_uid, unix.stat().st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert (other.stat().st_uid, other.stat().st_gid) == (0, NOBODY.pw_gid)
