"""HUP reads the options anew, too: addresses come and go, workers are added, and a mistake changes nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.e2e.client import Connection, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import SHORT_TRIAL, SITE, Daemon, free_port, listens
from tests.e2e.load import load


class ConfigFile:
    """A configuration in a file of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "preforkd.toml"

    def write(self, *ports: int, workers: int, more: str = "") -> None:
        """Write it anew."""
        bind = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
        self.path.write_text(f'app = "{SITE}"\nbind = [{bind}]\nworkers = {workers}\n{more}\n')

    def start(self, start: Start) -> Daemon:
        """A daemon that has nothing but this file, which asks for two workers."""
        daemon = start(*SHORT_TRIAL, "--config", str(self.path), app=None, workers=None, port=None)
        for slot in (0, 1):
            daemon.wait_log(f"worker {slot} .* is ready")
        return daemon


def refused(daemon: Daemon) -> str:
    """HUP, which is refused; what the log says about it."""
    mark = daemon.mark()
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("nothing has changed", since=mark)
    return daemon.log()[mark:]


@pytest.mark.parallel
def test_addresses_and_workers_are_added_and_removed_without_a_failed_request(start: Start, tmp_path: Path) -> None:
    config, kept, added = ConfigFile(tmp_path), free_port(), free_port()
    config.write(kept, workers=2)
    daemon = config.start(start)
    with load(kept, expect=r"1 \d+") as result:
        config.write(kept, added, workers=3)
        daemon.signal(signal.SIGHUP)
        daemon.until(lambda: listens(added), 5, "the added address")
        assert get(added).status == 200
        daemon.wait_log("reload done")
        daemon.wait_workers(3)
        with Connection(added) as connection:
            assert connection.get().status == 200
            connection.ask("/slow/1")
            config.write(kept, workers=1)
            daemon.signal(signal.SIGHUP)
            assert connection.answer().status == 200, "a request on the removed address is completed"
        daemon.until(lambda: not listens(added), 10, "the removed address is closed")
        daemon.wait_workers(1)
    assert result.failed == 0, result.describe()
    assert daemon.stop() == 0


def test_a_mistake_in_the_file_changes_nothing_and_is_named(start: Start, tmp_path: Path) -> None:
    config, port = ConfigFile(tmp_path), free_port()
    config.write(port, workers=2)
    daemon = config.start(start)
    before = daemon.worker_pids()
    with load(port, expect=r"1 \d+") as result:
        for more, said in (("worker = 3", "worker"), ("keep_alive = -1", "keep_alive"), ("=", "preforkd.toml")):
            config.write(port, workers=2, more=more)
            assert said in refused(daemon)
        config.path.unlink()
        assert "preforkd.toml" in refused(daemon)
    assert daemon.worker_pids() == before
    assert result.failed == 0, result.describe()


def test_an_address_that_is_taken_changes_nothing(start: Start, tmp_path: Path) -> None:
    config, port = ConfigFile(tmp_path), free_port()
    config.write(port, workers=2)
    daemon = config.start(start)
    before = daemon.worker_pids()
    with Connection(start().port) as other:
        taken = other.socket.getpeername()[1]
        config.write(port, taken, workers=2)
        daemon.signal(signal.SIGHUP)
        daemon.wait_log(rf"ERROR.*{taken}.*in use")
        assert other.get().status == 200
    assert daemon.worker_pids() == before
    assert get(port).status == 200


@pytest.mark.parallel
def test_an_option_that_cannot_change_at_run_time_is_named_in_a_warning(start: Start, tmp_path: Path) -> None:
    config, port = ConfigFile(tmp_path), free_port()
    config.write(port, workers=2, more=f'pid = "{tmp_path}/first.pid"')
    daemon = config.start(start)
    config.write(port, workers=2, more=f'pid = "{tmp_path}/second.pid"')
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("WARNING .*--pid has changed: that counts at the next start")
    assert get(port).status == 200
