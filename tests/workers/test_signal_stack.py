"""Signals that arrive at the same time have room on the alternative stack."""

from __future__ import annotations

import subprocess
import sys

import pytest

ALL_AT_ONCE = """
import faulthandler, os, signal
from preforkd.workers import signal_stack

faulthandler.enable()
{enlarge}
arrived = []
numbers = range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
for number in numbers:
    signal.signal(number, lambda number, frame: arrived.append(number))
around = [bytearray(1000) for _ in range(1000)]
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
for number in numbers:
    os.kill(os.getpid(), number)
signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
assert sorted(arrived) == list(numbers)
assert not any(map(any, around))
around.clear()
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the alternative stack is enlarged on Linux only")


def run(enlarge: str) -> int:
    return subprocess.run(
        [sys.executable, "-c", ALL_AT_ONCE.format(enlarge=enlarge)], capture_output=True, timeout=60, check=False
    ).returncode


def test_thirty_signals_at_a_time_harm_nothing() -> None:
    assert run("signal_stack.enlarge()") == 0


def test_they_would_on_the_stack_of_faulthandler() -> None:
    assert run("") != 0, "faulthandler has room for them by itself now: workers/signal_stack.py is not needed any more"
