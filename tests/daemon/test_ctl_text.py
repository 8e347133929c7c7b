"""What preforkctl says, as people read it."""

from __future__ import annotations

from typing import Any

import pytest

from preforkd.daemon import ctl_text

WORKER: dict[str, Any] = {
    "slot": 0, "generation": 2, "pid": 71, "state": "ready", "age": 2.04, "silent": 0.1, "loop_lag": 0.0004,
    "connections": 3, "active": 1, "per_second": 812.4, "p50": 0.0031, "p95": 1.5, "p99": None,
    "cpu": 0.421, "memory": 64 << 20,
}  # fmt: skip
STATUS: dict[str, Any] = {
    "app": "shop.web:app", "listeners": ["http://0.0.0.0:8000"], "master_pid": 7, "uptime": 11520.0, "ready": False,
    "reasons": ["1 of 2 workers is ready"], "phase": "reloading", "generation": 2, "target_generation": 3,
    "workers_ready": 1, "workers_wanted": 2, "connections": 3,
    "requests": {"per_second": 812.4, "errors_per_second": 0.0, "active": 1, "total": 9, "p50": 0.0031,
                 "p95": 1.5, "p99": None},
    "workers": [WORKER, {**WORKER, "slot": 1, "pid": None, "silent": 3.0, "cpu": None, "memory": None}],
    "events": [{"when": 0.0, "level": "warning", "text": "it hangs\nhere"}],
}  # fmt: skip


def test_the_status_in_a_screenful() -> None:
    assert ctl_text.status(STATUS).splitlines() == [
        "shop.web:app on http://0.0.0.0:8000: process 7, up 3 h 12 min",
        "NOT READY: 1 of 2 workers is ready; reloading, generation 2 (to 3), 1 of 2 workers ready",
        "requests: 812.4/s, 0 errors/s, 1 active, 9 since the start; p50 3.1 ms, p95 1.5 s, p99 -; 3 connections",
        "",
        "SLOT  GEN  PID  STATE                      AGE  CONN  ACTIVE  REQ/S     P50    P95  P99   CPU  MEMORY     LAG",
        "   0    2   71  ready                    2.0 s     3       1  812.4  3.1 ms  1.5 s    -  42 %  64 MiB  0.4 ms",
        "   1    2    -  ready, silent for 3.0 s  2.0 s     3       1  812.4  3.1 ms  1.5 s    -     -       -  0.4 ms",
        "",
        "last events:",
        "1970-01-01 00:00:00Z warning  it hangs ...",
    ]


def test_a_path_cannot_drive_the_terminal() -> None:
    text = ctl_text.requests([{"seconds": 1.0, "slot": 0, "pid": 7, "method": "GET", "path": "/\x1b[2J\n"}])
    assert text.splitlines()[1].endswith("GET     /?[2J?")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1 min"), (3600, "1 h 0 min"), (90000, "1 d 1 h"), (86460, "1 d 0 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert ctl_text.duration(seconds) == text
