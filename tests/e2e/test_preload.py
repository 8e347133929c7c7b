"""--preload: one import for all workers of a generation, and whatever a daemon promises holds with it as without it."""

from __future__ import annotations

import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.e2e.apps import AppFile
from tests.e2e.client import Connection, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, BOOT, SHORT_TRIAL, Daemon, alive, listens, title
from tests.e2e.load import load

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a preload needs subreapers, which only Linux has")

BACK = 0.5  # seconds until a killed worker has a successor that serves
GONE = 2.0  # seconds until nothing is left of a killed master
AT_ONCE = 0.5  # seconds: a stop that has nothing to wait for, on a busy machine
SLOW = "import time\ntime.sleep({})"
TITLE = re.compile(r"preforkd: mold \(generation (\d+)\)")


def stack_in(log: str) -> str:
    """Return a log without our lines: a stack is written in pieces, and they may come between two of them."""
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z [A-Z]+ [^\n]*\n", "", log)


@pytest.fixture
def preloaded(start: Start) -> partial[Daemon]:
    return partial(start, "--preload")


def molds(daemon: Daemon) -> dict[int, int]:
    """The generations of the molds by their pids."""
    found: dict[int, int] = {}
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(daemon.pid).children():
            if match := TITLE.fullmatch(title(process)):
                found[process.pid] = int(match[1])
    return found


def the_mold(daemon: Daemon) -> int:
    """The pid of the only mold there is, or comes to be."""

    def look() -> int | None:
        found = molds(daemon)
        return next(iter(found)) if len(found) == 1 else None

    return daemon.until(look, BOOT, "one mold")


def wait_version(daemon: Daemon, wanted: str) -> None:
    """Every worker that accepts serves that version."""
    daemon.until(
        lambda: all(get(daemon.port).text.split()[0] == wanted for _ in range(10)), BOOT, f"version {wanted} ten times"
    )


# What it is for


@pytest.mark.parallel
def test_the_workers_are_the_masters_children_and_the_mold_is_beside_them(preloaded: partial[Daemon]) -> None:
    daemon = preloaded()
    children = sorted(title(child) for child in psutil.Process(daemon.pid).children())
    assert children == [
        "preforkd: mold (generation 1)",
        "preforkd: worker 0 (generation 1)",
        "preforkd: worker 1 (generation 1)",
    ]
    assert {int(get(daemon.port).text.split()[1]) for _ in range(50)} <= daemon.worker_pids()
    assert daemon.stop() == 0
    daemon.wait_gone(0.1)


@pytest.mark.parallel
def test_the_app_is_imported_once_for_all_workers_and_what_it_prints_is_printed_once(
    preloaded: partial[Daemon], tmp_path: Path
) -> None:
    app = AppFile(tmp_path)
    app.version("1", "print('imported in', os.getpid())")
    daemon = preloaded(app=app.target, workers=4)
    assert daemon.stop() == 0
    assert len(re.findall("^imported in", daemon.log(), re.MULTILINE)) == 1


@pytest.mark.parallel
def test_the_workers_share_the_memory_of_the_import(preloaded: partial[Daemon], start: Start) -> None:
    app = f"{APPS / 'heavy.py'}:Site"
    shared, alone = (_memory(daemon(app=app, workers=4)) for daemon in (preloaded, start))
    assert shared < alone - 3 * 10_000, f"{shared} kB with it, {alone} kB without it: three of 20 MB are not there"


def _memory(daemon: Daemon) -> int:
    """The memory of the daemon in kB, what is shared counted once."""
    pss = 0
    for process in daemon.processes():
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        pss += int(re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)[1])  # type: ignore[index] # it is there
    assert daemon.stop() == 0
    return pss


LATE = """
import os, sys

class Late:
    def find_spec(self, name, path=None, target=None):
        if os.getpid() != MOLD:
            print("imported late:", name, file=sys.stderr, flush=True)

MOLD = os.getpid()
sys.meta_path.insert(0, Late())
"""
ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for _ in range(2):
            await send({"type": (await receive())["type"] + ".complete"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"1"})
"""


@pytest.mark.parametrize("interface", ["protocol", "asgi"])
def test_nothing_is_imported_in_a_worker_so_that_all_of_it_is_shared(
    preloaded: partial[Daemon], tmp_path: Path, interface: str
) -> None:
    app = AppFile(tmp_path)
    app.version("1", LATE + ASGI)
    target = app.target if interface == "protocol" else f"{app.path}:app"
    daemon = preloaded("--max-rss", "1G", app=target)
    assert get(daemon.port).text[0] == "1"
    assert daemon.stop() == 0
    assert "imported late" not in daemon.log()


def test_a_killed_worker_is_replaced_without_another_import(preloaded: partial[Daemon], tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    app.version("1", SLOW.format(1.5))
    daemon = preloaded(app=app.target)
    for _ in range(3):
        known = daemon.worker_pids()
        daemon.signal(signal.SIGKILL, min(known))
        daemon.wait_serving(BACK, but=known)
        daemon.wait_workers(2, but={min(known)})
    assert daemon.log().count("is imported after") == 1
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_scaling_takes_workers_from_the_mold(preloaded: partial[Daemon]) -> None:
    daemon = preloaded()
    mold = the_mold(daemon)
    with load(daemon.port, expect=r"1 \d+") as result:
        for signum, count in ((signal.SIGTTIN, 3), (signal.SIGTTIN, 4), (signal.SIGTTOU, 3), (signal.SIGTTOU, 2)):
            daemon.signal(signum)
            daemon.wait_workers(count)
    assert result.failed == 0, result.describe()
    assert the_mold(daemon) == mold


# Reload


@pytest.mark.parallel
def test_a_reload_loads_new_code_and_loses_nothing(preloaded: partial[Daemon], tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = preloaded(*SHORT_TRIAL, app=app.target)
    first, mold = daemon.worker_pids(), the_mold(daemon)
    with load(daemon.port, paths=("/", "/slow/0.05"), expect=r"\d \d+") as result:
        for number in "234":
            app.version(number)
            daemon.signal(signal.SIGHUP)
            wait_version(daemon, number)
        daemon.wait_log("reload done")
        daemon.wait_workers(2, but=first)
    assert result.failed == 0, result.describe()
    assert {body.split()[0] for body in result.bodies} == set("1234")
    assert molds(daemon) == {the_mold(daemon): 4}
    assert not alive(mold)
    assert daemon.stop() == 0


def test_a_broken_deploy_leaves_the_old_code_serving(preloaded: partial[Daemon], tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = preloaded(app=app.target, tolerated="Traceback")
    first, mold = daemon.worker_pids(), the_mold(daemon)
    with load(daemon.port, expect=r"1 \d+") as result:
        line = app.broken()
        daemon.signal(signal.SIGHUP)
        daemon.wait_log(rf"app\.py:{line}: ")
        daemon.wait_log("reload failed: generation 1 goes on")
    assert result.failed == 0, result.describe()
    assert the_mold(daemon) == mold
    assert daemon.worker_pids() == first
    daemon.signal(signal.SIGKILL, min(first))
    daemon.wait_serving(BACK, but=first)  # with the code that the mold has: on disk is the broken one
    app.version("2")
    daemon.signal(signal.SIGHUP)
    wait_version(daemon, "2")
    assert daemon.log().count("Traceback") == 1
    assert daemon.stop() == 0


@pytest.mark.parallel
@pytest.mark.parametrize(
    ("first", "said"),
    [(SLOW.format(60), "not ready within"), ("os._exit(9)", "exit code 9"), ("1 +", "SyntaxError")],
    ids=["hangs at import", "ends at import", "syntax error"],
)
def test_a_generation_that_cannot_be_imported_is_rolled_back(
    preloaded: partial[Daemon], tmp_path: Path, first: str, said: str
) -> None:
    app = AppFile(tmp_path)
    soon = ("--startup-timeout", "3") if said == "not ready within" else ()
    daemon = preloaded(*soon, app=app.target, tolerated="Traceback|Fatal Python error")
    mold = the_mold(daemon)
    app.version("2", first)
    with load(daemon.port, expect=r"\d \d+") as result:
        daemon.signal(signal.SIGHUP)
        daemon.wait_log(said)
        daemon.wait_log("reload failed")
        daemon.until(lambda: molds(daemon) == {mold: 1}, GONE, "the first mold alone")
        wait_version(daemon, "1")
        app.version("3")
        daemon.signal(signal.SIGHUP)
        wait_version(daemon, "3")
    assert result.failed == 0, result.describe()
    if "sleep" in first:
        assert re.search(r'File ".*app\.py", line \d+ in <module>', stack_in(daemon.log())), (
            "the stack of the import that hung"
        )
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_reloads_faster_than_imports_end_with_the_newest_code_and_one_mold(
    preloaded: partial[Daemon], tmp_path: Path
) -> None:
    app = AppFile(tmp_path)
    daemon = preloaded(*SHORT_TRIAL, app=app.target)
    with load(daemon.port, expect=r"\d \d+") as result:
        for number in "23456789":
            app.version(number, SLOW.format(0.1))
            daemon.signal(signal.SIGHUP)
        wait_version(daemon, "9")
    assert result.failed == 0, result.describe()
    daemon.wait_log("reload done")
    the_mold(daemon)


@pytest.mark.parallel
def test_a_preload_can_be_switched_on_and_off_by_a_reload(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "preforkd.toml"
    config.write_text("preload = false\n")
    daemon = start(*SHORT_TRIAL, "--config", str(config))
    for preload, count in (("true", 1), ("false", 0)):
        config.write_text(f"preload = {preload}\n")
        known, mark = daemon.worker_pids(), daemon.mark()
        daemon.signal(signal.SIGHUP)
        daemon.wait_log("reload done", since=mark)
        daemon.wait_workers(2, but=known)
        assert len(molds(daemon)) == count
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_an_upgrade_begins_with_a_new_mold(preloaded: partial[Daemon], tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = preloaded(*SHORT_TRIAL, app=app.target)
    mold = the_mold(daemon)
    app.version("2")
    with load(daemon.port, expect=r"\d \d+") as result:
        daemon.signal(signal.SIGUSR2)
        wait_version(daemon, "2")
        daemon.wait_log("reload done")
    assert result.failed == 0, result.describe()
    assert the_mold(daemon) != mold
    assert daemon.stop() == 0


# A boot that fails, or takes long


@pytest.mark.parallel
def test_an_app_that_fails_at_import_ends_the_start_with_3_and_one_message(preloaded: partial[Daemon]) -> None:
    daemon = preloaded(app=f"{APPS / 'broken.py'}:Site", workers=4, wait=False, tolerated="Traceback")
    assert daemon.wait_exit() == 3
    daemon.wait_gone(0.1)
    log = daemon.log()
    assert log.count("Traceback") == 1, log
    assert re.search(r"broken\.py:10: RuntimeError: broken on purpose", log), log


@pytest.mark.parallel
def test_an_import_that_ends_its_process_ends_the_start_with_3(preloaded: partial[Daemon], tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    app.version("1", "os._exit(9)")
    daemon = preloaded(app=app.target, workers=4, wait=False)
    assert daemon.wait_exit() == 3
    daemon.wait_gone(0.1)
    assert "exit code 9" in daemon.log()


@pytest.mark.parallel
def test_an_import_that_takes_too_long_ends_the_start_with_3_and_shows_where_it_is(preloaded: partial[Daemon]) -> None:
    app = f"{APPS / 'slow_import.py'}:Site"
    daemon = preloaded("--startup-timeout", "0.5", app=app, workers=4, wait=False, tolerated="Fatal Python error")
    assert daemon.wait_exit() == 3
    daemon.wait_gone(0.1)
    assert "--startup-timeout" in daemon.log()
    assert re.search(r'File ".*slow_import\.py", line \d+ in <module>', stack_in(daemon.log()))


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGQUIT, 131), (signal.SIGKILL, 137)]
)
def test_a_stop_during_the_import_is_obeyed_at_once(
    preloaded: partial[Daemon], signum: signal.Signals, code: int
) -> None:
    daemon = preloaded(app=f"{APPS / 'slow_import.py'}:Site", wait=False)
    the_mold(daemon)
    daemon.signal(signum)
    assert daemon.wait_exit(AT_ONCE) == code
    daemon.wait_gone(AT_ONCE)


@pytest.mark.parallel
def test_a_stop_during_the_import_of_a_reload_drains_the_workers(preloaded: partial[Daemon], tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = preloaded(app=app.target)
    app.version("2", SLOW.format(60))
    with Connection(daemon.port) as connection:
        connection.ask("/slow/1")
        daemon.signal(signal.SIGHUP)
        daemon.until(lambda: len(molds(daemon)) == 2, BOOT, "two molds")
        daemon.signal(signal.SIGTERM)
        assert connection.answer().text.split()[0] == "1"
    assert daemon.wait_exit() == 0
    daemon.wait_gone(0.1)


@pytest.mark.parametrize("number", range(8))
def test_term_at_any_moment_is_orderly(preloaded: partial[Daemon], tmp_path: Path, number: int) -> None:
    app = AppFile(tmp_path)
    app.version("1", SLOW.format(0.2))
    daemon = preloaded(app=app.target, wait=number % 2 == 1)
    if number % 2 == 1:
        daemon.signal(signal.SIGHUP)
    else:
        daemon.until(lambda: "master" in title(psutil.Process(daemon.pid)), BOOT, "the master runs")
    wait = random.uniform(0, 0.5)
    time.sleep(wait)  # the moment is what is under test
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit(3.5) == 0, f"after {wait:.4f} s"
    daemon.wait_gone(0.1)


# Deaths


@pytest.mark.parallel
def test_a_killed_mold_harms_nothing_and_the_next_worker_gets_another(
    preloaded: partial[Daemon], tmp_path: Path
) -> None:
    app = AppFile(tmp_path)
    daemon = preloaded(app=app.target)
    known, mold = daemon.worker_pids(), the_mold(daemon)
    app.version("2")
    with load(daemon.port, expect=r"1 \d+") as result:
        daemon.signal(signal.SIGKILL, mold)
        daemon.wait_log(r"WARNING .*the mold of generation 1 ended: signal SIGKILL")
        daemon.until(lambda: not alive(mold), BOOT, "reaped")
        assert all(get(daemon.port).status == 200 for _ in range(50))
    assert result.failed == 0, result.describe()
    assert daemon.worker_pids() == known
    daemon.signal(signal.SIGKILL, min(known))
    daemon.wait_log(r"WARNING .*the code as it is on disk now")
    successor = daemon.wait_serving(BOOT, but=known)
    assert successor in {worker.pid for worker in daemon.wait_workers(2, but={min(known)})}
    assert the_mold(daemon) != mold
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_a_mold_and_all_its_workers_killed_together_are_back(preloaded: partial[Daemon]) -> None:
    daemon = preloaded()
    known = {the_mold(daemon), *daemon.worker_pids()}
    for pid in known:
        daemon.signal(signal.SIGKILL, pid)
    daemon.wait_workers(2, but=known)
    assert get(daemon.port).status == 200
    assert the_mold(daemon) not in known
    assert "gets its next worker in" not in daemon.log(), "no worker was blamed"
    assert daemon.stop() == 0


def test_nothing_is_left_of_a_killed_master_and_the_port_is_free(preloaded: partial[Daemon]) -> None:
    daemon = preloaded()
    mold = the_mold(daemon)
    with Connection(daemon.port) as idle, Connection(daemon.port):
        idle.get()
        daemon.signal(signal.SIGKILL)
        daemon.wait_exit()
        daemon.until(lambda: not listens(daemon.port), 0.3, "nobody listens")
        daemon.until(lambda: not alive(mold), 0.3, "the mold is gone")
        daemon.wait_gone(GONE)
    assert preloaded(port=daemon.port).stop() == 0


def test_the_port_is_closed_by_a_stop_at_once_though_a_request_goes_on(preloaded: partial[Daemon]) -> None:
    daemon = preloaded()
    with Connection(daemon.port) as connection:
        connection.ask("/slow/1")
        daemon.signal(signal.SIGTERM)
        daemon.until(lambda: not listens(daemon.port), 0.3, "nobody listens")
        assert connection.answer().status == 200
    assert daemon.wait_exit() == 0


@pytest.mark.parallel
def test_a_worker_that_is_told_to_end_is_replaced(preloaded: partial[Daemon]) -> None:
    daemon = preloaded()
    known = daemon.worker_pids()
    daemon.signal(signal.SIGTERM, min(known))
    daemon.wait_workers(2, but={min(known)})
    assert daemon.stop() == 0


def test_orphans_that_the_master_adopts_are_reaped_and_never_mistaken_for_workers(preloaded: partial[Daemon]) -> None:
    daemon = preloaded()  # which makes it a subreaper, as PID 1 is one anyway
    master = psutil.Process(daemon.pid)
    assert get(daemon.port, "/orphans/4").status == 200
    daemon.until(lambda: len(master.children()) == 7, 5, "four orphans are adopted")
    daemon.until(lambda: len(master.children()) == 3, 2, "and reaped")
    assert " ended: " not in daemon.log()
    assert daemon.stop() == 0


@pytest.mark.parallel
@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN])
def test_a_mold_ignores_what_is_the_masters_business(preloaded: partial[Daemon], signum: signal.Signals) -> None:
    daemon = preloaded()
    mold, known = the_mold(daemon), daemon.worker_pids()
    daemon.signal(signum, mold)
    daemon.signal(signal.SIGKILL, min(known))
    daemon.wait_workers(2, but={min(known)})
    assert the_mold(daemon) == mold


# Warnings


def _warned(preloaded: partial[Daemon], tmp_path: Path, first: str) -> Iterator[str]:
    app = AppFile(tmp_path)
    app.version("1", first)
    daemon = preloaded(app=app.target)
    assert get(daemon.port).status == 200
    assert daemon.stop() == 0
    yield from re.findall("WARNING mold.*", daemon.log())


@pytest.mark.parallel
def test_threads_alive_after_the_import_are_named_in_one_warning(preloaded: partial[Daemon], tmp_path: Path) -> None:
    threads = "import threading\nfor name in ('ticker', 'poller'):\n"
    threads += "    threading.Thread(target=time.sleep, args=(60,), name=name, daemon=True).start()"
    (warning,) = _warned(preloaded, tmp_path, threads)
    assert "2 threads started at import: ticker, poller; they do not exist in the workers" in warning


@pytest.mark.parallel
def test_an_app_that_starts_nothing_is_not_warned_of(preloaded: partial[Daemon], tmp_path: Path) -> None:
    assert list(_warned(preloaded, tmp_path, "")) == []


@pytest.mark.parallel
def test_connections_made_by_the_import_are_warned_of(preloaded: partial[Daemon], tmp_path: Path) -> None:
    (warning,) = _warned(preloaded, tmp_path, "import socket\nDATABASE = socket.socketpair()")
    assert "opened at import: 2 sockets, which all workers share" in warning
