"""What one program hands over to the next."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preforkd.daemon.address import TcpAddress, UnixAddress
from preforkd.daemon.children import Link
from preforkd.daemon.listeners import Listener
from preforkd.daemon.spawn import Child
from preforkd.daemon.turn import State
from preforkd.daemon.upgrade import FORMAT, VARIABLE, DryRun, Handover, UpgradeError, command, pack, take_over, unpack
from preforkd.workers.channel import Decoder, Ready, encode
from preforkd.workers.scoreboard import Field, Scoreboard
from tests.daemon.test_policy_walks import STEPS, World, walk

if not hasattr(os, "memfd_create"):
    pytest.skip("an upgrade in place needs memfd_create (Linux)", allow_module_level=True)


def handed_over(state: State) -> tuple[Handover, list[socket.socket]]:
    """A handover of that state, and the sockets in it."""
    board = Scoreboard()
    links, sockets = [], []
    for worker in state.workers.values():
        ours, theirs = socket.socketpair()
        sockets += [ours, theirs]
        links.append(Link(worker.serial, Child(1000 + worker.serial, ours), board.row(worker.row), Decoder(b"\0\0")))
        board.row(worker.row)[Field.HEARTBEAT] = 7 + worker.serial
    listener = socket.socket()
    sockets.append(listener)
    listeners = (Listener(TcpAddress("127.0.0.1", 8000), listener, (1, 2)),)
    return Handover(state, listeners, tuple(links), board), sockets


def detached(handover: Handover) -> Handover:
    """The same, read in one process that still has the sockets: they must not be closed twice."""
    for link in handover.links:
        link.child.channel.detach()
    for listener in handover.listeners:
        listener.socket.detach()
    return handover


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), STEPS)
def test_all_that_the_master_knows_arrives(size: int, steps: list[tuple[int, int, float]]) -> None:
    world = World(size)
    walk(world, steps)
    before, sockets = handed_over(world.state)
    after = unpack(pack(before))
    assert after.state == before.state
    assert [(x.serial, x.child.pid, x.child.channel.fileno(), x.decoder.pending) for x in after.links] == [
        (x.serial, x.child.pid, x.child.channel.fileno(), b"\0\0") for x in before.links
    ]
    assert [x.row[Field.HEARTBEAT] for x in after.links] == [x.row[Field.HEARTBEAT] for x in before.links]
    assert [(x.address, x.socket.fileno(), x.inode) for x in after.listeners] == [
        (x.address, x.socket.fileno(), x.inode) for x in before.listeners
    ]
    detached(after)
    os.close(before.scoreboard.descriptor)
    for sock in sockets:
        sock.close()


def test_a_channel_that_had_ended_stays_closed() -> None:
    world = World(1)
    before, sockets = handed_over(world.state)
    for sock in sockets:
        sock.close()
    sockets[-1] = socket.socket()
    before = Handover(world.state, (Listener(UnixAddress("/run/x"), sockets[-1]),), before.links, before.scoreboard)
    after = unpack(pack(before))
    assert not after.links[0].listens
    detached(after)
    sockets[-1].close()
    os.close(before.scoreboard.descriptor)


def test_half_a_message_is_completed_by_the_next_program() -> None:
    message = encode(Ready())
    decoder = Decoder()
    assert not list(decoder.feed(message[:7]))
    assert list(Decoder(decoder.pending).feed(message[7:])) == [Ready()]


def test_a_daemon_that_nobody_was_before_takes_nothing_over() -> None:
    assert take_over({}) is None


def test_the_dry_run_takes_nothing_over_and_leaves_no_trace_in_the_environment() -> None:
    environ = {VARIABLE: f"{FORMAT}:", "HOME": "/"}
    assert take_over(environ) is None
    assert environ == {"HOME": "/"}


def test_a_handover_of_another_version_is_refused_in_the_dry_run() -> None:
    with pytest.raises(UpgradeError, match="restart instead"):
        take_over({VARIABLE: "999:"})


def test_the_new_program_is_started_as_this_one_was() -> None:
    assert command() == [sys.executable, *sys.orig_argv[1:]]


def dry_run(monkeypatch: pytest.MonkeyPatch, code: str) -> DryRun:
    monkeypatch.setattr("preforkd.daemon.upgrade.command", lambda: [sys.executable, "-c", code])
    return DryRun({"X": "1"}, 5.0)


def status_of(pid: int) -> int:
    return os.waitpid(pid, 0)[1]


def test_a_dry_run_that_ends_well_has_no_reason_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"import os; print('fine'); assert os.environ == {{**os.environ, 'X': '1', '{VARIABLE}': '{FORMAT}:'}}"
    tried = dry_run(monkeypatch, code)
    assert tried.result(status_of(tried.pid)) is None


def test_a_dry_run_that_fails_says_what_it_has_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = dry_run(monkeypatch, "import sys; sys.exit('hello.py:3: no module')")
    assert tried.result(status_of(tried.pid)) == "hello.py:3: no module"


def test_a_dry_run_that_dies_in_silence_is_a_reason_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = dry_run(monkeypatch, "import os; os._exit(5)")
    assert tried.result(status_of(tried.pid)) == "it ended with exit code 5 and said nothing"


def test_a_dry_run_is_ended_with_all_that_it_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = dry_run(monkeypatch, "import time; time.sleep(60)")
    assert tried.deadline > time.monotonic() + 5
    tried.end()
    assert os.waitstatus_to_exitcode(status := status_of(tried.pid)) == -signal.SIGKILL
    assert tried.result(status) is not None
    tried.end()  # it is gone: no error


def test_a_program_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preforkd.daemon.upgrade.command", lambda: ["/nonexistent/python"])
    with pytest.raises(UpgradeError, match="/nonexistent/python cannot be executed"):
        DryRun({}, 5.0)
