"""TERM, INT and QUIT in every state: what was accepted is finished, then the daemon ends, with the right exit code."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest

from tests.e2e.apps import AppFile
from tests.e2e.client import AnswerError, Connection
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, BOOT, Daemon, catches, listens

AT_ONCE = 0.5  # seconds
GRACE = 2.0  # --idle-grace: how long idle connections get
SLOW_IMPORT = f"{APPS / 'slow_import.py'}:Site"


def wait_refused(daemon: Daemon, within: float = AT_ONCE) -> None:
    """New connections are refused, so that nobody waits in a queue that is not served."""
    daemon.until(lambda: not listens(daemon.port), within, "new connections refused")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_completes_everything_that_was_begun(start: Start, signum: signal.Signals) -> None:
    daemon = start("--idle-grace", "0.3")  # shorter than what has been begun takes
    idle, used, unused, slow, upload, chunks = (Connection(daemon.port) for _ in range(6))
    with idle, used, unused, slow, upload, chunks:
        idle.get()
        used.get()
        slow.ask("/slow/1")
        upload.send(b"POST /upload HTTP/1.1\r\nHost: tests\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
        chunks.ask("/chunks/10/0.1")
        chunks.read_some()
        began = time.monotonic()
        daemon.signal(signum)
        wait_refused(daemon)
        # Refused means that one worker has heard of the stop; the others do so within the same moment.
        daemon.until(lambda: used.get().closes, 0.1, "a request on an idle connection is answered, with close")
        upload.send(b"x" * 100_000)
        answer = upload.answer()
        assert (answer.text.split()[2], answer.closes) == ("200000", True)
        answer = slow.answer()
        assert (answer.status, answer.closes) == (200, True)
        assert chunks.answer().text.endswith("\n8\n9\n")
        for connection in (idle, used, unused, slow, upload, chunks):
            connection.expect_close()
        assert daemon.wait_exit(GRACE + 1 - (time.monotonic() - began)) == 0
    daemon.wait_gone(AT_ONCE)


def test_what_is_not_done_at_the_end_of_graceful_timeout_is_cut_to_the_tenth_of_a_second(start: Start) -> None:
    daemon = start("--graceful-timeout", "0.7", "--idle-grace", "0.2")
    with Connection(daemon.port) as slow:
        slow.ask("/slow/20")
        daemon.until(lambda: held_open(daemon, slow), BOOT, "a worker has the request")
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        with pytest.raises(AnswerError):
            slow.answer()
        assert 0.6 <= time.monotonic() - began < 0.7 + AT_ONCE, "not by a sweep that comes once a second"
    assert daemon.wait_exit() == 0


def held_open(daemon: Daemon, connection: Connection) -> bool:
    """Whether a worker has accepted the connection."""
    peer = connection.socket.getsockname()
    workers = [psutil.Process(pid) for pid in daemon.worker_pids()]
    return any(one.raddr == peer for worker in workers for one in worker.net_connections("tcp"))


def test_a_stop_without_connections_is_quick(start: Start) -> None:
    daemon = start()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit(1.0) == 0
    daemon.wait_gone(AT_ONCE)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_second_signal_ends_a_stop_at_once(start: Start, second: signal.Signals) -> None:
    daemon = start()
    with Connection(daemon.port) as connection:
        connection.ask("/slow/20")
        daemon.signal(signal.SIGTERM)
        wait_refused(daemon)
        assert daemon.processes(), "it waits for the request"
        daemon.signal(second)
        assert daemon.wait_exit(AT_ONCE) == 128 + second
        daemon.wait_gone(AT_ONCE)
        with pytest.raises(AnswerError):
            connection.answer()


def test_quit_ends_it_at_once(start: Start) -> None:
    daemon = start()
    with Connection(daemon.port) as connection:
        connection.ask("/slow/20")
        daemon.signal(signal.SIGQUIT)
        assert daemon.wait_exit(AT_ONCE) == 128 + signal.SIGQUIT
    daemon.wait_gone(AT_ONCE)


def test_a_request_that_takes_too_long_is_cut_at_the_end_of_the_budget(start: Start) -> None:
    daemon = start("--graceful-timeout", "1", "--shutdown-timeout", "1")
    with Connection(daemon.port) as connection:
        connection.ask("/slow/20")
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        with pytest.raises(AnswerError):
            connection.answer()
        assert time.monotonic() - began >= 0.99, "it had its time; timers count whole milliseconds"
        assert daemon.wait_exit(3) == 0
    daemon.wait_gone(AT_ONCE)


def test_a_blocked_worker_is_killed_at_the_end_of_the_budget(start: Start) -> None:
    daemon = start("--graceful-timeout", "0.5", "--shutdown-timeout", "0.5")
    with Connection(daemon.port) as connection:
        connection.ask("/block/60")
        daemon.wait_log("hangs")
        daemon.signal(signal.SIGTERM)
        daemon.wait_exit(4)
    daemon.wait_gone(AT_ONCE)


def test_a_stopped_worker_is_killed_at_the_end_of_the_budget(start: Start) -> None:
    daemon = start("--graceful-timeout", "1", "--shutdown-timeout", "0.5")
    daemon.signal(signal.SIGSTOP, min(daemon.worker_pids()))
    daemon.signal(signal.SIGTERM)
    daemon.wait_exit(2.5)
    daemon.wait_gone(AT_ONCE)


def at_two_workers(daemon: Daemon, stack: ExitStack) -> tuple[Connection, Connection]:
    """Two connections of which each is at another worker: the accept is fair, but not strictly in turn."""
    first = stack.enter_context(Connection(daemon.port))
    pid = first.get().text
    for _ in range(20):
        second = stack.enter_context(Connection(daemon.port))
        if second.get().text != pid:
            return first, second
    raise AssertionError("20 connections at the same worker of two")


def test_a_stop_beside_a_blocked_worker_refuses_new_clients_and_finishes_the_rest(start: Start) -> None:
    daemon = start("--graceful-timeout", "1.5", "--shutdown-timeout", "0.5")
    with ExitStack() as stack:
        blocked, busy = at_two_workers(daemon, stack)
        blocked.ask("/block/60")
        daemon.wait_log("hangs")
        busy.ask("/slow/0.7")
        daemon.signal(signal.SIGTERM)
        wait_refused(daemon)
        answer = busy.answer()
        assert (answer.status, answer.closes) == (200, True)
        daemon.wait_exit(4)
    daemon.wait_gone(AT_ONCE)


def test_term_in_the_middle_of_a_boot_is_obeyed_at_once(start: Start) -> None:
    daemon = start(app=SLOW_IMPORT, wait=False)
    daemon.until(lambda: len(daemon.processes()) == 3, 10, "two workers that import")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit(AT_ONCE) == 0
    daemon.wait_gone(AT_ONCE)


def test_term_in_the_middle_of_a_reload_is_obeyed_at_once(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    daemon = start(app=app.target)
    app.version("2", "import time\ntime.sleep(60)")
    daemon.signal(signal.SIGHUP)
    daemon.until(lambda: len(daemon.processes()) > 3, 10, "a worker of the next generation")
    with Connection(daemon.port) as busy:
        busy.ask("/slow/0.3")
        daemon.signal(signal.SIGTERM)
        wait_refused(daemon)
        answer = busy.answer()
        assert (answer.text.split()[0], answer.closes) == ("1", True)
    assert daemon.wait_exit(AT_ONCE) == 0
    daemon.wait_gone(AT_ONCE)


@pytest.mark.parametrize("milliseconds", [0, 20, 50, 100, 200, 400])
def test_term_soon_after_the_start_is_obeyed_at_once(start: Start, milliseconds: int) -> None:
    daemon = start(wait=False)
    time.sleep(milliseconds / 1000)  # the moment is what is under test
    ours = catches(daemon.pid, signal.SIGTERM)
    daemon.signal(signal.SIGTERM)
    code = daemon.wait_exit(1.0)
    # Before the interpreter has run our first lines a TERM has its default meaning, which is as good.
    assert code == 0 or (code == 128 + signal.SIGTERM and not ours), code
    daemon.wait_gone(AT_ONCE)


def test_connections_that_wait_in_the_queue_are_answered(start: Start) -> None:
    daemon = start(workers=1)
    blocked = Connection(daemon.port)
    blocked.ask("/block/0.5")
    time.sleep(0.1)  # the worker has begun to block; what follows stays in the kernel's queue
    queued = [Connection(daemon.port) for _ in range(200)]  # more than a worker takes in one turn
    for connection in queued:
        connection.ask("/")
    daemon.signal(signal.SIGTERM)
    for connection in [blocked, *queued]:
        with closing(connection):
            assert connection.answer().status == 200
    assert daemon.wait_exit(GRACE + 1) == 0
