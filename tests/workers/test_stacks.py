"""Stacks of a worker that hangs, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

CODE = """
import asyncio, sys, time
import uvloop
from preforkd.workers import log, stacks

async def waits_for_ever():
    await asyncio.Event().wait()

def hangs():
    print("blocked", flush=True)
    {block}
    print("over", flush=True)

async def main():
    log.configure("worker 0")
    stacks.install(asyncio.get_running_loop(), time.monotonic_ns, lambda _: None)
    task = asyncio.create_task(waits_for_ever())
    await asyncio.sleep(0)
    hangs()

asyncio.run(main(), loop_factory=uvloop.new_event_loop) if sys.version_info >= (3, 12) else uvloop.run(main())
"""


@pytest.mark.parametrize(
    "block", ["time.sleep(3)", "end = time.monotonic() + 3\n    while time.monotonic() < end: pass"]
)
def test_a_blocked_event_loop_shows_its_threads_and_tasks(block: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE.format(block=block)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "blocked\n"
        process.send_signal(signal.SIGUSR2)
        text = ""
        while "in waits_for_ever" not in text:
            line = process.stderr.readline()
            assert line, f"it ended: {text}"
            text += line
        assert process.poll() is None, "it shows them while it is blocked"
        assert "in hangs" in text, "the thread that blocks"
        assert "2 asyncio tasks:" in text
        process.kill()
