"""The end of a worker's process, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time


def run(body: str) -> subprocess.CompletedProcess[str]:
    code = "import atexit, os, sys, threading, time\nfrom preforkd.workers import ending, log\n" + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_exit_functions_and_threads_are_waited_for() -> None:
    done = run(
        """
        atexit.register(print, "an exit function")
        threading.Thread(target=lambda: (time.sleep(0.1), print("a thread"))).start()
        ending.limit(30)
        ending.run_exit_functions()
        print("the end", flush=True)
        os._exit(0)
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "a thread\nan exit function\nthe end\n", "")


def test_who_does_not_end_is_named_and_left_behind_in_time() -> None:
    began = time.monotonic()
    done = run(
        """
        log.configure("worker 0")
        threading.Thread(target=time.sleep, args=(600,), name="reporter").start()
        print("buffered", end="")
        ending.limit(0.6)
        ending.run_exit_functions()
        """
    )
    assert (done.returncode, done.stdout) == (0, "buffered")
    assert "waits for thread reporter: 0.3 s more at most (--shutdown-timeout)" in done.stderr
    assert "ends without waiting longer for thread reporter" in done.stderr
    assert time.monotonic() - began < 30


def test_an_exit_function_that_hangs_is_said_to_be_one() -> None:
    done = run(
        """
        log.configure("worker 0")
        atexit.register(time.sleep, 600)
        ending.limit(-1)  # no time is left: the last words are heard all the same
        ending.run_exit_functions()
        """
    )
    assert done.returncode == 0
    assert "waits for exit functions of the app" in done.stderr
