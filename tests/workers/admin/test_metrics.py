"""The text that Prometheus reads."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from preforkd.workers.admin import metrics
from preforkd.workers.admin.metrics import Metrics, MissingError
from preforkd.workers.admin.processes import Usage
from preforkd.workers.admin.settings import AdminSettings
from preforkd.workers.scoreboard import EXITS, RELOADS, Field, MasterField
from tests.workers.admin.boards import NOW, Board

pytest.importorskip("prometheus_client")

SETTINGS = AdminSettings("shop:app", 0, ("http://127.0.0.1:8000", "unix:/run/a.sock"), (), "", "")


def busy() -> Board:
    """A board on which every metric has a value."""
    board = Board(2)
    board.tallies[0].request("GET", 200, 0.02)
    board.tallies[0].request("GET", 200, 0.0001)
    board.tallies[1].request("BREW", 418, 20.0)
    board.tallies[1].rejected(431)
    board.tallies[1].forced(4)
    board.tallies[1].queued(0.003)
    master = board.board.master
    master[MasterField.EXITS + EXITS.index("oom")] = 3
    master[MasterField.RELOADS + RELOADS.index("rolled_back")] = 2
    master[MasterField.QUEUES] = 8
    master[MasterField.CERTIFICATE_EXPIRES] = 1_800_000_000
    master[MasterField.LOST_LINES] = 5
    row = board.board.row(0)
    row[Field.LOST_LINES], row[Field.LOST_ACCESS_LINES] = 2, 12
    row[Field.CPU], row[Field.LOOP_LAG] = 1_500_000_000, 250_000_000
    row[Field.CONNECTIONS], row[Field.ACTIVE], row[Field.ACCEPTED], row[Field.BYTES_SENT] = 9, 2, 30, 4000
    return board


def text(board: Board, accept: str = "") -> str:
    return Metrics(SETTINGS).text(board.read(), {100: Usage(0.5, 1.5, 50_000_000)}, accept)[1].decode()


def test_each_number_is_said_under_its_name() -> None:
    lines = text(busy()).splitlines()
    get = 'http_request_method="GET",http_response_status_class="2xx"'
    brew = 'http_request_method="_OTHER",http_response_status_class="4xx"'
    for line in (
        f'http_server_request_duration_seconds_bucket{{{get},le="0.005"}} 1.0',
        f'http_server_request_duration_seconds_bucket{{{get},le="0.025"}} 2.0',
        f'http_server_request_duration_seconds_bucket{{{get},le="+Inf"}} 2.0',
        f"http_server_request_duration_seconds_count{{{get}}} 2.0",
        f"http_server_request_duration_seconds_sum{{{get}}} 0.0201",
        f'http_server_request_duration_seconds_bucket{{{brew},le="10.0"}} 0.0',
        'http_server_responses_total{http_response_status_code="418"} 1.0',
        "http_server_active_requests 2.0",
        'preforkd_workers{state="ready"} 2.0',
        'preforkd_worker_exits_total{reason="oom"} 3.0',
        'preforkd_reloads_total{result="rolled_back"} 2.0',
        "preforkd_generation 1.0",
        'preforkd_connections{state="active"} 2.0',
        'preforkd_connections{state="idle"} 7.0',
        'preforkd_accept_queue_length{listener="http://127.0.0.1:8000"} 7.0',
        'preforkd_loop_lag_seconds{slot="0"} 0.25',
        'preforkd_log_lines_lost_total{stream="log"} 7.0',
        'preforkd_log_lines_lost_total{stream="access_log"} 12.0',
        'preforkd_rejected_requests_total{reason="headers_too_large"} 1.0',
        "preforkd_drain_forced_requests_total 4.0",
        'preforkd_thread_queue_seconds_bucket{le="0.005"} 1.0',
        'preforkd_worker_memory_bytes{slot="0"} 5e+07',
        'preforkd_worker_cpu_seconds_total{slot="0"} 1.5',
        "preforkd_certificate_expiry_timestamp_seconds 1.8e+09",
    ):
        assert line in lines
    assert not [line for line in lines if "unix:/run/a.sock" in line], "a queue that is not known is not said"
    assert [line for line in lines if line.startswith('preforkd_build_info{http_parser="')]


def test_open_metrics_for_those_who_ask_for_it() -> None:
    assert text(busy(), "application/openmetrics-text;version=1.0.0").endswith("# EOF\n")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (the Debian package prometheus)")
@pytest.mark.parametrize("board", [busy(), Board(0)], ids=["busy", "empty"])
def test_promtool_finds_nothing_to_improve(board: Board) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text(board), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_counters_never_go_back_when_a_worker_is_replaced() -> None:
    def counters(board: Board) -> dict[str, float]:
        lines = [line.rsplit(" ", 1) for line in text(board).splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines if "_total" in name or "_seconds" in name}

    board = busy()
    before = counters(board)
    board.board.settle(0)
    board.worker(0)
    after = counters(board)
    gauges = ("preforkd_loop_lag_seconds", "preforkd_uptime_seconds")
    assert {name: value for name, value in before.items() if not name.startswith(gauges)} == {
        name: value for name, value in after.items() if not name.startswith(gauges)
    }


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MISSING", "No module named prometheus_client")
    with pytest.raises(MissingError, match=r"pip install 'preforkd\[metrics\]'"):
        Metrics(SETTINGS).text(Board().read(), {}, "")


def test_the_uptime_is_that_of_the_daemon() -> None:
    assert "preforkd_uptime_seconds 60.0" in text(Board()).splitlines()
    assert NOW > 60
