"""A reload on trial: what answers worse is taken back, with the figures, and nothing is lost on the way."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from tests.e2e import load as names
from tests.e2e.apps import AppFile
from tests.e2e.conftest import Start
from tests.e2e.load import load
from tests.e2e.test_ctl import ctl
from tests.e2e.test_metrics import metrics
from tests.e2e.watching import Admin

pytestmark = pytest.mark.parallel

FAILS_OFTEN = """
_good = Site.on_who

async def _often(self, payload, argument):
    if os.urandom(1)[0] < 128:
        raise HttpProcessingError(500, "a bug in the new version")
    await _good(self, payload, argument)

Site.on_who = _often
"""
NEW = ("--trial", "60", "--trial-errors", "5", "--log-format", "json", "--no-access-log")
FIGURES = re.compile(
    r"5xx for (\S+) of (\S+) requests \(\S+ %\), before it for 0 of (\S+) requests: more than --trial-errors 5 allows"
)


def record(admin: Admin, event: str) -> dict[str, object]:
    """The last one of that name in the log."""
    found = [json.loads(line) for line in admin.daemon.log().splitlines() if f'"event": "{event}"' in line]
    last: dict[str, object] = found[-1]
    return last


@pytest.mark.parametrize("canary", [0, 1])
def test_new_code_that_answers_5xx_more_often_is_taken_back_with_the_figures(
    start: Start, tmp_path: Path, canary: int
) -> None:
    app = AppFile(tmp_path)
    pid = tmp_path / "pid"
    options = (*NEW, "--trial-workers", str(canary), "--pid", str(pid))
    admin = Admin(start, tmp_path, *options, app=app.target, workers=3, tolerated="Traceback")
    first = admin.daemon.worker_pids()
    with load(admin.daemon.port) as result:
        admin.daemon.until(lambda: admin.status()["requests"]["total"] > 200, 10, "something to compare with")
        app.version("2", FAILS_OFTEN)
        done = ctl("reload", "--wait", environment={"PREFORKD_PID": str(pid)})
        admin.daemon.wait_workers(3)
    assert admin.daemon.worker_pids() == first, "those that have stood by, and those that have gone on, serve"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("failed: generation 2 is given up, 1 goes on: 5xx for ")
    figures = FIGURES.search(done.stderr)
    assert figures, done.stderr
    errors, answered, before = (int(one.replace(",", "")) for one in figures.groups())
    told = record(admin, "reload")
    assert (told["result"], told["generation"], told["reason"]) == ("rolled_back", 2, figures[0])
    assert (told["errors"], told["answered"]) == (errors, answered)
    assert (told["errors_before"], told["answered_before"]) == (0, before)
    assert "reload failed: generation 1 goes on, generation 2 is given up" in admin.daemon.log()
    assert metrics(admin)['preforkd_reloads_total{result="rolled_back"}'] == 1
    # What clients have seen of it is what the new code has answered: nothing is lost, nobody was refused.
    assert set(result.outcomes) <= {names.OK, names.STATUS}, result.describe()
    assert result.outcomes[names.STATUS] >= errors
    by_class = admin.status()["requests"]["by_class"]
    assert by_class["5xx"] == result.outcomes[names.STATUS]
    assert by_class["2xx"] == result.outcomes[names.OK]
    assert {one.slot: one.generation for one in admin.daemon.workers()} == {0: 1, 1: 1, 2: 1}
    assert admin.daemon.stop() == 0


def test_a_good_canary_serves_beside_the_others_which_follow_it(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    options = ("--trial", "2", "--trial-workers", "1", "--trial-errors", "1", "--no-access-log")
    admin = Admin(start, tmp_path, *options, app=app.target, workers=4)
    with load(admin.daemon.port) as result:
        app.version("2")
        admin.daemon.signal(signal.SIGHUP)
        admin.daemon.wait_log(r"generation 2 serves with 1 worker of 4 for 2 s; the old one goes on beside")
        admin.daemon.until(lambda: admin.status()["phase"] == "trying", 2, "a canary")
        serving = [one["generation"] for one in admin.status()["workers"] if one["state"] == "ready"]
        assert sorted(serving) == [1, 1, 1, 2]
        admin.daemon.wait_log(
            r"generation 2 has passed its first trial \(5xx for 0 of \S+ requests, before it for 0 of "
        )
        admin.daemon.wait_log(r"reload done: generation 2 has replaced the old one \(5xx for 0 of ", 15)
    assert result.failed == 0, result.describe()
    assert admin.daemon.stop() == 0


def test_a_canary_gets_its_share_of_connections(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    options = ("--trial", "60", "--trial-workers", "1", "--no-access-log")
    admin = Admin(start, tmp_path, *options, app=app.target, workers=4)
    app.version("2")
    admin.daemon.signal(signal.SIGHUP)
    admin.daemon.wait_log("generation 2 serves with 1 worker of 4")
    with load(admin.daemon.port, clients=16, one_shot=16, paths=("/slow/0.02",), requests=1000) as result:
        pass
    assert result.failed == 0, result.describe()
    share = sum(number for body, number in result.bodies.items() if body.startswith("2 ")) / result.total
    assert 0.1 < share < 0.4, "a quarter of them, or nearly"


def test_a_stop_an_upgrade_and_another_reload_in_the_middle_of_a_trial_lose_nothing(
    start: Start, tmp_path: Path
) -> None:
    app = AppFile(tmp_path)
    options = ("--trial", "60", "--trial-workers", "1", "--trial-errors", "5", "--no-access-log")
    admin = Admin(start, tmp_path, *options, app=app.target)
    daemon = admin.daemon
    with load(daemon.port) as result:
        for number, signum in ((2, signal.SIGHUP), (3, signal.SIGHUP), (4, signal.SIGUSR2)):
            app.version(str(number))
            daemon.signal(signum)
            daemon.wait_log(f"generation {number} serves with 1 worker of 2")
        daemon.signal(signal.SIGTTIN)
        daemon.wait_log(r"worker 2 \(generation 4\) is ready")
        old = [one.pid for one in daemon.workers() if one.generation == 1]
        assert len(old) >= 1, "the first generation is what all of them serve beside"
        assert admin.control("reload")[1]["result"] == "accepted"
        daemon.wait_log("generation 5 serves with 1 worker of")
    assert result.failed == 0, result.describe()
    assert daemon.stop() == 0
    assert len(re.findall("is superseded", daemon.log())) == 3
