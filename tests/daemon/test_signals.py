"""Signals of the master, in processes of their own: handlers are a property of a process."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest


def run(body: str, timeout: float = 10) -> subprocess.CompletedProcess[str]:
    code = "import os, select, signal\nfrom preforkd.daemon import signals\n" + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 0), ("SIGINT", 0), ("SIGQUIT", 131)])
def test_a_stop_is_obeyed_while_the_program_is_still_being_imported(name: str, code: int) -> None:
    assert run(f"signals.install_early(); os.kill(os.getpid(), signal.{name}); print('still here')").returncode == code


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGWINCH"])
def test_no_other_signal_ends_a_program_that_is_still_being_imported(name: str) -> None:
    assert run(f"signals.install_early(); os.kill(os.getpid(), signal.{name})").returncode == 0


def test_each_caught_signal_is_a_byte_in_the_pipe_in_its_order_deaths_last() -> None:
    result = run(
        """
        pipe = signals.catch()
        assert signals.read(pipe) == []
        for name in ("HUP", "TERM", "CHLD", "TTIN"):
            os.kill(os.getpid(), getattr(signal, "SIG" + name))
        select.select([pipe], [], [], 5)
        print(*(s.name for s in signals.read(pipe)))
        """
    )
    assert result.stdout.split() == ["SIGHUP", "SIGTERM", "SIGTTIN", "SIGCHLD"], result.stderr


def test_a_flood_of_signals_neither_blocks_nor_warns() -> None:
    result = run(
        """
        pipe = signals.catch()
        for _ in range(70_000):
            os.kill(os.getpid(), signal.SIGWINCH)
        print(len(signals.read(pipe)))
        """
    )
    assert result.stdout.strip() == "65536"
    assert result.stderr == ""


def test_a_worker_is_ended_by_term_and_leaves_the_terminal_and_the_reload_to_its_master() -> None:
    result = run(
        """
        signals.catch()
        signals.reset_in_child()
        for name in ("INT", "HUP", "TTIN", "TTOU", "USR1"):
            os.kill(os.getpid(), getattr(signal, "SIG" + name))
        print("alive", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        """
    )
    assert result.stdout.strip() == "alive"
    assert result.returncode == -signal.SIGTERM


def test_blocked_signals_arrive_when_they_are_unblocked() -> None:
    result = run(
        """
        pipe = signals.catch()
        mask = signals.block()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.read(pipe) == []
        signals.unblock(mask)
        print(*(s.name for s in signals.read(pipe)))
        """
    )
    assert result.stdout.strip() == "SIGTERM", result.stderr


def test_of_signals_that_have_waited_a_worker_less_comes_behind_a_worker_more() -> None:
    result = run(
        """
        pipe = signals.catch()
        mask = signals.block()
        for name in ("TTIN", "TTOU"):
            os.kill(os.getpid(), getattr(signal, "SIG" + name))
        signals.unblock(mask)
        print(*(s.name for s in signals.read(pipe)))
        """
    )
    assert result.stdout.split() == ["SIGTTIN", "SIGTTOU"], result.stderr
