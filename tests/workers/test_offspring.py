"""What the app forks, in processes of their own: hooks at a fork cannot be taken back."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import asyncio, atexit, os, signal, socket, sys, threading
from preforkd.workers import offspring
from preforkd.workers.scoreboard import Field, Scoreboard

def end_of(child):
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def ours(signum, frame):
    pass
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    code = PRELUDE + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)


def said(body: str) -> str:
    done = run(body)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_handlers_of_before_are_ours_and_later_ones_the_apps() -> None:
    assert (
        said(
            """
            signal.signal(signal.SIGUSR1, ours)
            signal.signal(signal.SIGUSR2, ours)
            signal.signal(signal.SIGINT, ours)
            offspring.watch_forks()
            signal.signal(signal.SIGUSR2, lambda *_: print("the app's", flush=True))
            def child():
                assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
                os.kill(os.getpid(), signal.SIGUSR2)
                os.kill(os.getpid(), signal.SIGUSR1)
            print(end_of(child))
            """
        )
        == f"the app's\n-{signal_number('SIGUSR1')}"
    )


def signal_number(name: str) -> int:
    import signal

    return int(signal.Signals[name])


def test_a_signal_before_the_childs_first_instruction_is_the_childs_alone() -> None:
    """The hooks of others run before ours when they were registered before; the signal waits for ours."""
    assert (
        said(
            """
            signal.signal(signal.SIGTERM, lambda *_: print("ours", flush=True))
            os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
            reader, writer = os.pipe()
            os.set_blocking(writer, False)
            os.set_blocking(reader, False)
            signal.set_wakeup_fd(writer)
            offspring.watch_forks()
            print(end_of(lambda: None))
            try:
                print(os.read(reader, 10))
            except BlockingIOError:
                print("nothing was noted")
            print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            """
        )
        == f"-{signal_number('SIGTERM')}\nnothing was noted\nset()"
    )


def test_sockets_are_let_go_of_and_their_numbers_stay_taken() -> None:
    assert (
        said(
            """
            listener, other = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
            client = socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
            channel, theirs = socket.socketpair()
            offspring.watch_forks()
            offspring.possess([listener, channel], Scoreboard())
            def child():
                names = [os.readlink(f"/proc/self/fd/{one.fileno()}") for one in (listener, accepted, channel)]
                kept = [os.readlink(f"/proc/self/fd/{one.fileno()}")[:7] for one in (client, theirs, other)]
                print(names, kept, flush=True)
            end_of(child)
            """
        )
        == "['/dev/null', '/dev/null', '/dev/null'] ['socket:', 'socket:', 'socket:']"
    )


def test_closed_listeners_have_no_number_that_could_be_somebody_elses() -> None:
    assert (
        said(
            """
            listener = socket.create_server(("127.0.0.1", 0))
            offspring.watch_forks()
            offspring.possess([listener], Scoreboard())
            number = listener.fileno()
            listener.close()
            file = open("/proc/self/status")
            assert file.fileno() == number
            print(end_of(lambda: print(os.readlink(f"/proc/self/fd/{number}").rpartition("/")[2], flush=True)))
            """
        )
        == "status\n99"
    )


def test_the_scoreboard_is_let_go_of_and_writing_to_it_means_nothing() -> None:
    assert (
        said(
            """
            board = Scoreboard()
            row = board.row(3)
            row[Field.HEARTBEAT] = 7
            offspring.watch_forks()
            offspring.possess([], board)
            def child():
                row[Field.HEARTBEAT] = 8
                print(board.others(0), "preforkd-scoreboard" in open("/proc/self/maps").read(), flush=True)
            end_of(child)
            print(row[Field.HEARTBEAT])
            """
        )
        == "None False\n7"
    )


def test_a_fork_of_our_own_keeps_everything() -> None:
    assert (
        said(
            """
            signal.signal(signal.SIGTERM, ours)
            board = Scoreboard()
            offspring.watch_forks()
            offspring.possess([], board)
            def child():
                board.row(0)[Field.PID] = os.getpid()
                print(offspring.strayed, signal.getsignal(signal.SIGTERM) is ours, flush=True)
            with offspring.own_fork():
                end_of(child)
            print(board.row(0)[Field.PID] > 0)
            print(end_of(lambda: print(offspring.strayed, flush=True)))
            """
        )
        == "False True\nTrue\nTrue\n99"
    )


def test_what_the_child_of_a_child_forks_is_still_a_plain_program() -> None:
    assert said("offspring.watch_forks(); print(end_of(lambda: print(end_of(lambda: os._exit(3)), flush=True)))") == (
        "3\n99"
    )


@pytest.mark.parametrize(
    ("raised", "code", "text"),
    [
        ("None", 0, ""),
        ("SystemExit()", 0, ""),
        ("SystemExit(5)", 5, ""),
        ("SystemExit(257)", 1, ""),
        ("SystemExit('why')", 1, "why\n"),
        ("LookupError('why')", 1, "LookupError: why\n"),
        ("KeyboardInterrupt()", -2, "KeyboardInterrupt\n"),
    ],
)
def test_it_ends_as_the_interpreter_ends_a_program(raised: str, code: int, text: str) -> None:
    done = run(
        f"""
        atexit.register(print, "an exit function")
        print("buffered", end=" ")
        offspring.end({raised})
        """
    )
    assert done.returncode == code
    assert done.stderr.endswith(text)
    assert bool(done.stderr) == bool(text)
    assert done.stdout == "buffered an exit function\n"


def test_the_exit_functions_of_the_worker_are_not_run_in_what_it_forks() -> None:
    assert (
        said(
            """
            atexit.register(print, "the worker's")
            offspring.watch_forks()
            end_of(offspring.end)
            """
        )
        == "the worker's"
    )


def test_a_result_for_a_loop_that_is_not_there_ends_the_child_with_what_was_raised() -> None:
    body = """
        def child():
            try:
                sys.exit(7)
            except BaseException as exc:
                offspring.end_with({}, context=None)
        print(end_of(child))
        """
    assert said(body.format("print, exc")) == "7"
    assert said(body.format("print")) == "7"
