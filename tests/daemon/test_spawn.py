"""Forking a worker."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from preforkd.daemon.spawn import Child, spawn


def ended(child: Child) -> int:
    """The exit code of a child, negative for a signal."""
    _, status = os.waitpid(child.pid, 0)
    child.channel.close()
    return os.waitstatus_to_exitcode(status)


def received(child: Child) -> bytes:
    child.channel.settimeout(10)
    return child.channel.recv(100)


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
        raise error

    assert ended(spawn(body, [])) == code
    assert ("ValueError" in capfd.readouterr().err) == isinstance(error, ValueError)


def test_a_signal_that_came_during_the_fork_is_the_masters_alone() -> None:
    def body(_channel: socket.socket) -> int:
        return 0 if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else 1

    before = signal.getsignal(signal.SIGHUP)
    assert ended(spawn(body, [])) == 0
    assert signal.getsignal(signal.SIGHUP) is before
