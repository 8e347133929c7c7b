"""`--health-path` and `--drain-delay`: a load balancer learns of a stop before anything is refused."""

from __future__ import annotations

import signal
import time

from tests.e2e.client import Connection, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import listens
from tests.e2e.load import load

DELAY = 1.0


def test_the_health_path_is_answered_before_the_app_and_not_logged(start: Start) -> None:
    daemon = start("--health-path", "/who")
    with Connection(daemon.port) as connection:
        answer = connection.get("/who")
        assert (answer.status, answer.text.strip(), answer.closes) == (200, "ready", False)
        assert connection.get("/").text.startswith("1 ")
    daemon.wait_log(r"GET / HTTP/1\.1")
    assert "/who" not in daemon.log()


def test_without_the_option_the_path_is_the_apps(start: Start) -> None:
    daemon = start()
    assert get(daemon.port, "/who").text.startswith("1 ")


def test_a_stop_is_announced_for_the_drain_delay_while_everything_is_served(start: Start) -> None:
    daemon = start("--health-path", "/healthz", "--drain-delay", str(DELAY))
    with Connection(daemon.port) as open_before:
        open_before.get()
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        daemon.wait_log("SIGTERM")
        daemon.until(lambda: get(daemon.port, "/healthz").status == 503, 0.2, "503 from the moment of TERM on")
        with Connection(daemon.port) as probe:
            answer = probe.get("/healthz")
            assert (answer.status, answer.text.strip(), answer.closes) == (503, "draining", True)
        answer = open_before.get()
        assert (answer.status, answer.closes) == (200, True), "the app is still served, and says that it closes"
        while listens(daemon.port):
            assert time.monotonic() - began < DELAY + 0.5
        assert time.monotonic() - began >= DELAY
    assert daemon.wait_exit(3.0) == 0


def test_under_load_nothing_is_refused_before_the_drain_delay_is_over(start: Start) -> None:
    daemon = start("--drain-delay", str(DELAY))
    with load(daemon.port, expect=r"1 \d+") as result:
        daemon.signal(signal.SIGTERM)
        time.sleep(DELAY / 2)  # the load ends in the middle of the delay
    assert result.failed == 0, result.describe()
    assert daemon.wait_exit(DELAY + 2.5) == 0


def test_a_reload_does_not_make_it_unhealthy(start: Start) -> None:
    daemon = start("--health-path", "/healthz")
    with load(daemon.port, paths=("/healthz",), expect="ready\n") as result:
        mark = daemon.mark()
        daemon.signal(signal.SIGHUP)
        daemon.wait_log("generation 2 serves", since=mark)
    assert result.failed == 0, result.describe()


def test_int_does_not_wait_for_the_drain_delay(start: Start) -> None:
    daemon = start("--drain-delay", "20")
    daemon.signal(signal.SIGINT)
    assert daemon.wait_exit(1.0) == 0
