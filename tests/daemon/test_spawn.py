"""Forking a child, and a child of one's parent."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
import time
import warnings

import pytest

from preforkd.daemon import spawn as spawning
from preforkd.daemon.spawn import Child, become_subreaper, die_with, flush_output, spawn, spawn_sibling
from preforkd.workers import log

pytestmark = pytest.mark.alone  # it forks

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers and parent death signals")


def pid_of(child: Child) -> int:
    assert child.pid is not None
    return child.pid


def ended(child: Child) -> int:
    """The exit code of a child, negative for a signal."""
    _, status = os.waitpid(pid_of(child), 0)
    child.channel.close()
    return os.waitstatus_to_exitcode(status)


def received(child: Child) -> bytes:
    child.channel.settimeout(10)
    return child.channel.recv(1000)


def test_the_child_talks_over_its_channel_and_exits_with_the_code_of_its_body() -> None:
    def body(channel: socket.socket) -> int:
        channel.sendall(b"hello")
        return 42

    child = spawn(body, [])
    assert received(child) == b"hello"
    assert ended(child) == 42


def test_the_end_of_the_child_is_the_end_of_the_stream() -> None:
    child = spawn(lambda _channel: 0, [])
    assert received(child) == b""
    assert ended(child) == 0


def test_descriptors_that_are_the_masters_are_closed_in_the_child() -> None:
    reader, writer = os.pipe()

    def body(_channel: socket.socket) -> int:
        try:
            os.fstat(writer)
        except OSError:
            return 0
        return 1

    try:
        assert ended(spawn(body, [writer])) == 0
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize(("error", "code"), [(SystemExit(3), 3), (SystemExit("x"), 1), (ValueError("x"), 1)])
def test_no_exception_of_the_child_climbs_into_the_frames_of_its_master(
    error: BaseException, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    def body(_channel: socket.socket) -> int:
        log.open_standard()
        log.configure("worker 0")
        sys.excepthook = sys.stderr = None  # type: ignore[assignment]  # an app may do so
        raise error

    assert ended(spawn(body, [])) == code
    assert ("ValueError: x" in capfd.readouterr().err) == isinstance(error, ValueError)


def test_a_signal_that_came_during_the_fork_is_the_masters_alone() -> None:
    def body(_channel: socket.socket) -> int:
        os.kill(os.getpid(), signal.SIGHUP)  # means nothing to a worker
        return 0 if signal.getsignal(signal.SIGHUP) not in (before, signal.SIG_IGN) else 1

    before = signal.getsignal(signal.SIGHUP)
    assert ended(spawn(body, [])) == 0
    assert signal.getsignal(signal.SIGHUP) is before


def status_of(pid: int) -> int:
    """The exit code of a child that was adopted, negative for a signal; waits for its end."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def sleeper(told: socket.socket) -> int:
    """A life that says its pid and ends only by a signal."""
    told.sendall(str(os.getpid()).encode())
    signal.pause()
    return 0


@linux
@pytest.mark.usefixtures("subreaper")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_child_gets_the_signal_that_it_was_to_get_when_its_master_is_killed(signum: signal.Signals) -> None:
    def master(channel: socket.socket) -> int:
        spawn(lambda _: sleeper(channel), [], orphaned=signum)
        signal.pause()
        return 0

    killed = spawn(master, [])
    orphan = int(received(killed))
    os.kill(pid_of(killed), signal.SIGKILL)
    assert ended(killed) == -signal.SIGKILL
    assert status_of(orphan) == -signum


@linux
def test_a_process_whose_master_is_gone_already_does_not_begin() -> None:
    def body(_channel: socket.socket) -> int:
        die_with(os.getpid())  # which is not its parent
        return 0

    assert ended(spawn(body, [])) == spawning.INTERNAL_ERROR


@linux
@pytest.mark.usefixtures("subreaper")
def test_a_sibling_is_the_child_of_its_parents_parent_when_it_begins() -> None:
    def mold(channel: socket.socket) -> int:
        ours, theirs = socket.socketpair()

        def worker() -> int:
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            theirs.sendall(json.dumps([os.getpid(), os.getppid(), len(blocked)]).encode())
            return 7

        pid = spawn_sibling(worker)
        channel.sendall(json.dumps([pid, *json.loads(ours.recv(100))]).encode())
        return 0

    parent = spawn(mold, [])
    pid, said, ppid, blocked = json.loads(received(parent))
    assert (pid, ppid) == (said, os.getpid())
    assert blocked == 0, "no signal is blocked in it any more"
    assert ended(parent) == 0
    assert status_of(pid) == 7
    with pytest.raises(ChildProcessError):  # the process in between has been reaped by its own parent
        os.waitpid(-1, os.WNOHANG)


@linux
@pytest.mark.usefixtures("subreaper")
def test_a_sibling_ends_with_its_master_and_not_with_the_process_that_forked_it() -> None:
    def master(channel: socket.socket) -> int:
        def mold(_: socket.socket) -> int:
            spawn_sibling(lambda: sleeper(channel))
            return 0

        become_subreaper()
        code = ended(spawn(mold, []))
        channel.sendall(b" ")
        signal.pause()
        return code

    killed = spawn(master, [])
    said = b""
    while b" " not in said or not said.strip():
        said += received(killed)
    worker = int(said)
    os.kill(worker, 0)  # it is there, though its mold is not
    os.kill(pid_of(killed), signal.SIGKILL)
    assert ended(killed) == -signal.SIGKILL
    assert status_of(worker) == -signal.SIGTERM


@linux
def test_a_fork_that_hangs_ends_with_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    forks = 0

    def fork() -> int:
        nonlocal forks
        forks += 1
        if forks == 2:  # as a lock does that a thread holds
            time.sleep(60)
        return os.fork()

    monkeypatch.setattr(spawning, "FORK_TIMEOUT", 0.1)
    monkeypatch.setattr(spawning, "_fork", fork)
    with pytest.raises(TimeoutError, match=r"a forked process has hung for 0\.1 s"):
        spawn_sibling(lambda: 0)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, 0)


@linux
@pytest.mark.parametrize("failing", [1, 2])
def test_a_refused_fork_of_a_sibling_is_an_error(monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    forks = 0

    def fork() -> int:
        nonlocal forks
        forks += 1
        if forks == failing:
            raise OSError(errno.EAGAIN, "no more")
        return os.fork()

    monkeypatch.setattr(spawning, "_fork", fork)
    with pytest.raises(BlockingIOError):
        spawn_sibling(lambda: 0)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def say_born(channel: socket.socket) -> int:
    """A life that says that it is there."""
    channel.sendall(b"born")
    return 0


@linux
@pytest.mark.usefixtures("subreaper")
def test_a_sibling_is_forked_also_when_the_application_ignores_the_deaths_of_its_children() -> None:
    def mold(channel: socket.socket) -> int:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        spawn_sibling(lambda: say_born(channel))
        return 0

    parent = spawn(mold, [])
    assert received(parent) == b"born"
    assert ended(parent) == 0
    assert status_of(-1) == 0


@linux
@pytest.mark.usefixtures("subreaper")
def test_other_threads_are_no_warning_of_the_interpreter() -> None:
    real = os.fork

    def fork() -> int:
        # As Python 3.12 and later do when there are threads; here any version does, and warnings are errors.
        warnings.warn("multi-threaded", DeprecationWarning, stacklevel=2)
        return real()

    def mold(channel: socket.socket) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fork", fork)
            spawn_sibling(lambda: say_born(channel))
        return 0

    parent = spawn(mold, [])
    assert received(parent) == b"born"
    assert ended(parent) == 0
    assert status_of(-1) == 0


def test_what_has_been_printed_is_not_printed_again_by_a_child(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with os.fdopen(os.dup(1), "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        print("once")
        flush_output()
        assert ended(spawn(lambda _: 0, [])) == 0
    assert capfd.readouterr().out == "once\n"
