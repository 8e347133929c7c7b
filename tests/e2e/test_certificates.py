"""Certificates that change while they are served: loaded without a restart, whoever writes them, or refused once."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

from tests.certificates import Authority, needs_openssl
from tests.e2e.client import Connection, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import Daemon
from tests.e2e.load import load
from tests.e2e.test_metrics import metrics
from tests.e2e.test_privileges import NOBODY_ONLY, needs_root, readable
from tests.e2e.watching import Admin

pytestmark = [needs_openssl, pytest.mark.parallel]

WITHIN = 10.0  # seconds in which a changed file is loaded, as promised
CHANGED = "the certificates have changed: new connections get the new ones"
ROTATIONS = 8


class Folder:
    """A folder with the certificate that is served, and others to replace it by."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self.write("first")

    @property
    def arguments(self) -> tuple[str, ...]:
        """For the daemon."""
        return ("--certfile", str(self.certificate), "--keyfile", str(self.key))

    def issue(self, name: str, days: int = 30) -> tuple[Path, Path]:
        """Make a pair of files that nobody serves yet."""
        return self.authority.issue(name, "localhost", days=days)

    def write(self, name: str) -> None:
        """Have a new pair served."""
        for source, target in zip(self.issue(name), (self.certificate, self.key), strict=True):
            shutil.copy(source, target)

    def served(self, port: int) -> str:
        """The common name of what a new connection gets."""
        with Connection(port, tls=self.authority.client()) as connection:
            found = connection.socket.getpeercert()  # type: ignore[attr-defined]  # it is an SSLSocket
        return str(dict(part[0] for part in found["subject"])["commonName"])

    def wait_served(self, daemon: Daemon, name: str, within: float = WITHIN) -> None:
        """Every worker serves it."""
        ten = range(10)
        daemon.until(lambda: all(self.served(daemon.port) == name for _ in ten), within, f"{name} ten times in a row")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_rotations_under_load_fail_no_request_and_close_no_connection(start: Start, folder: Folder) -> None:
    daemon = start(*folder.arguments, "--no-access-log")
    pids = daemon.worker_pids()
    with (
        Connection(daemon.port, tls=folder.authority.client()) as kept,
        load(daemon.port, authority=str(folder.authority.certificate)) as result,
    ):
        for number in range(ROTATIONS):
            folder.write(f"rotation-{number}")
            folder.wait_served(daemon, f"rotation-{number}")
            assert kept.get().status == 200
    assert result.failed == 0, result.describe()
    assert result.total > 100
    assert daemon.worker_pids() == pids
    assert daemon.log().count(CHANGED) >= ROTATIONS


def test_a_switched_link_is_a_change(start: Start, folder: Folder) -> None:
    # As the kubelet does with a secret: the files are links into a folder to which a link is switched.
    data, mounted = folder.folder / "..data", folder.folder
    for name in ("one", "two"):
        certificate, key = folder.issue(name)
        (mounted / f"..{name}").mkdir()
        certificate.rename(mounted / f"..{name}" / "tls.crt")
        key.rename(mounted / f"..{name}" / "tls.key")
    data.symlink_to("..one")
    for path in (folder.certificate, folder.key):
        path.unlink()
        path.symlink_to(f"..data/{path.name}")
    daemon = start(*folder.arguments)
    assert folder.served(daemon.port) == "one"
    switched = mounted / "..data_tmp"
    switched.symlink_to("..two")
    switched.replace(data)
    folder.wait_served(daemon, "two")


@pytest.mark.parametrize("key_first", [True, False], ids=["key first", "certificate first"])
def test_a_set_that_is_written_slowly_is_loaded_when_it_is_whole(start: Start, folder: Folder, key_first: bool) -> None:
    daemon = start(*folder.arguments, "--log-level", "debug")
    certificate, key = folder.issue("second")
    pairs = [(certificate, folder.certificate), (key, folder.key)]
    pairs.sort(key=lambda pair: (pair[1] == folder.key) != key_first)
    shutil.copy(*pairs[0])
    time.sleep(1.5)  # the daemon has looked meanwhile
    assert folder.served(daemon.port) == "first"
    shutil.copy(*pairs[1])
    folder.wait_served(daemon, "second")
    assert "refused" not in daemon.log()


def test_what_cannot_be_served_is_refused_once_and_the_old_one_serves_on(start: Start, folder: Folder) -> None:
    daemon = start(*folder.arguments, workers=1)
    for source, target in zip(folder.issue("old", days=-1), (folder.certificate, folder.key), strict=True):
        shutil.copy(source, target)
    daemon.wait_log("changed certificates are refused: .* has expired on .*; the old ones stay in use")
    assert folder.served(daemon.port) == "first"
    folder.write("second")
    folder.wait_served(daemon, "second")
    assert daemon.log().count("are refused") == 1


def test_hup_loads_at_once_and_is_refused_with_a_bad_one(start: Start, folder: Folder) -> None:
    daemon = start(*folder.arguments, workers=1)
    folder.write("second")
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("generation 2 serves")
    assert folder.served(daemon.port) == "second"
    folder.key.write_text("nothing\n")
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("reload refused: .*tls.key holds no private key")
    daemon.wait_log("nothing has changed: generation 2 goes on")
    assert folder.served(daemon.port) == "second"


@pytest.mark.parametrize(("left", "said"), [(13, "13 days"), (1, "24 hours"), (0, "1 hour"), (20, None)])
def test_the_end_of_a_certificate_is_warned_of(start: Start, folder: Folder, left: int, said: str | None) -> None:
    certificate, key = folder.issue("short")
    folder.authority.backdate(certificate, age=60, left=left)
    daemon = start("--certfile", str(certificate), "--keyfile", str(key), workers=1)
    assert folder.served(daemon.port) == "short"
    if said is None:
        assert "expires" not in daemon.log()
    else:
        daemon.wait_log(f"WARNING .*the certificate {certificate} expires in {said}, on .* UTC: renew it")


def test_workers_of_a_mold_get_what_has_changed_since_it_was_made(start: Start, folder: Folder) -> None:
    daemon = start(*folder.arguments, "--preload", workers=1)
    folder.write("second")
    folder.wait_served(daemon, "second")
    (worker,) = daemon.workers()
    daemon.signal(signal.SIGKILL, worker.pid)
    daemon.wait_workers(1, but={worker.pid})
    folder.wait_served(daemon, "second")
    folder.write("third")
    folder.wait_served(daemon, "third")


def test_the_workers_of_the_program_before_get_what_changes_behind_an_upgrade(
    start: Start, folder: Folder, tmp_path: Path
) -> None:
    # The new generation is held back in its boot, so that those of the old program serve on.
    gate, app = tmp_path / "gate", tmp_path / "gated.py"
    text = "import pathlib, sys, time\nfrom tests.apps.site import Site\n"
    app.write_text(text)
    daemon = start(*folder.arguments, app=f"{app}:Site", workers=1, environment={"PYTHONPATH": str(Path.cwd())})
    before = daemon.worker_pids()
    app.write_text(
        text + f"while '--check' not in sys.orig_argv and not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.05)\n"
    )
    daemon.signal(signal.SIGUSR2)
    daemon.wait_log("this is the new program")
    folder.write("second")
    folder.wait_served(daemon, "second")
    assert before <= daemon.worker_pids()
    gate.touch()
    daemon.wait_log("generation 2 serves")
    folder.wait_served(daemon, "second")


@needs_root
def test_a_key_that_only_root_can_read_is_served_by_workers_of_another_user_and_renewed(
    start: Start, folder: Folder
) -> None:
    def private() -> None:
        folder.folder.chmod(0o700)
        folder.key.chmod(0o600)

    with tempfile.TemporaryDirectory(prefix="preforkd-") as public:
        Path(public).chmod(0o755)
        private()
        daemon = start(*folder.arguments, "--user", "nobody", app=readable(Path(public)).target)
        assert folder.served(daemon.port) == "first"
        folder.write("second")
        private()
        folder.wait_served(daemon, "second")
        daemon.signal(signal.SIGHUP)
        daemon.wait_log("generation 2 serves")
        assert get(daemon.port, tls=folder.authority.client()).status == 200
        for worker in daemon.workers():
            status = Path(f"/proc/{worker.pid}/status").read_text()
            assert status.split("Uid:")[1].split()[0] == str(NOBODY_ONLY[0])
        assert daemon.stop() == 0


def test_the_end_of_the_certificate_is_a_metric_that_follows_the_files(
    start: Start, folder: Folder, tmp_path: Path
) -> None:
    name = "preforkd_certificate_expiry_timestamp_seconds"
    admin = Admin(start, tmp_path, *folder.arguments)
    first = admin.daemon.until(lambda: metrics(admin).get(name), WITHIN, "when it expires")
    assert abs(first - time.time() - 30 * 86400) < 3600
    for source, target in zip(folder.issue("longer", 60), (folder.certificate, folder.key), strict=True):
        shutil.copy(source, target)
    admin.daemon.until(lambda: metrics(admin)[name] > first + 29 * 86400, WITHIN, "the end of the new one")
