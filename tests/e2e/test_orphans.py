"""A master that is killed: its workers finish what they have, take nothing new, and are out of the way of the next."""

from __future__ import annotations

import signal
import time

from tests.e2e.client import Connection, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import alive, listens

GONE = 2.0  # seconds: an orphan without a request


def test_orphans_finish_their_requests_and_a_new_master_serves_alone(start: Start) -> None:
    old = start()
    orphans = old.worker_pids()
    with Connection(old.port) as busy, Connection(old.port) as idle:
        busy_pid = int(busy.get().text.split()[1])
        idle.get()
        busy.ask("/slow/4")
        began = time.monotonic()
        old.signal(signal.SIGKILL)
        old.wait_exit()
        new = start(port=old.port)
        assert time.monotonic() - began < 3, "the port can be bound at once"
        for _ in range(50):
            assert int(get(new.port).text.split()[1]) in new.worker_pids()
        idle_pids = orphans - {busy_pid}
        old.until(lambda: not any(map(alive, idle_pids)), GONE - (time.monotonic() - began), "the idle orphan is gone")
        answer = busy.answer()
        assert (answer.text, answer.closes) == (f"1 {busy_pid}", True)
        busy.expect_close()
    old.wait_gone(1.0)
    assert new.stop() == 0


def test_orphans_leave_the_listener_at_once(start: Start) -> None:
    daemon = start()
    with Connection(daemon.port) as busy:
        busy.ask("/slow/1")
        daemon.signal(signal.SIGKILL)
        daemon.wait_exit()
        daemon.until(lambda: not listens(daemon.port), 0.3, "new connections refused")
        assert busy.answer().status == 200
    daemon.wait_gone(GONE)
