"""Clients that do not read: they are cut by a reset, and the kernel keeps nothing of what they have not taken."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.client import HANDSHAKE, Connection
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, Daemon

APP = f"{APPS / 'large.py'}:app"
FIN_WAIT1, TIME_WAIT = "04", "06"
WRITE_TIMEOUT = 2
SOON = WRITE_TIMEOUT + 6  # the sweep comes once a second, and the machine is busy
KERNEL_MAX = 400_000  # TCP_NOTSENT_LOWAT, what is on its way, and what the kernel rounds up


@dataclass(frozen=True, slots=True)
class Held:
    """What the system has of a connection on the daemon's side."""

    state: str
    peer: int
    unacknowledged: int


def held_by_system(port: int) -> Iterator[Held]:
    """The connections of a port, those included that belong to no process any more."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues, *_ = line.split()
        if int(local.partition(":")[2], 16) == port and state not in ("0A", TIME_WAIT):
            yield Held(state, int(remote.partition(":")[2], 16), int(queues.partition(":")[0], 16))


class Deaf(Connection):
    """A client with a small window that never reads."""

    def __init__(self, port: int, path: str, *headers: tuple[str, str]) -> None:
        super().__init__(port)
        self.socket.close()
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", port))
        self.port = int(self.socket.getsockname()[1])
        self.ask(path, headers=headers)

    def was_reset(self) -> bool:
        """Whether the daemon has reset the connection."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def opened(stack: ExitStack, daemon: Daemon, path: str, *headers: tuple[str, str]) -> Deaf:
    return stack.enter_context(Deaf(daemon.port, path, *headers))


def wait_reset(daemon: Daemon, clients: list[Deaf], within: float) -> None:
    """All are reset, and nothing of them is left."""
    waiting = list(clients)

    def look() -> bool:
        waiting[:] = [client for client in waiting if not client.was_reset()]
        return not waiting

    daemon.until(look, within, f"{len(clients)} resets")
    peers = {client.port for client in clients}
    assert [held for held in held_by_system(daemon.port) if held.peer in peers] == []


CLOSE = ("Connection", "close")


@pytest.mark.parallel
def test_who_reads_nothing_is_reset_at_the_write_timeout_however_the_response_comes(
    start: Start, stack: ExitStack
) -> None:
    daemon = start("--write-timeout", str(WRITE_TIMEOUT), app=APP, workers=1)
    deaf = partial(opened, stack, daemon)
    clients = [
        deaf("/bytes/8000000"),
        deaf("/bytes/80000"),  # all of it is in the kernel, and the connection is idle
        deaf("/stream/8000000"),
        deaf("/stream/80000"),
        deaf("/file/8000000"),
        deaf("/file/80000"),
        deaf("/ws/80000", *HANDSHAKE),
        deaf("/bytes/8000000", CLOSE),  # a lingering close
        deaf("/bytes/80000", CLOSE),
        deaf("/file/80000", CLOSE),
    ]
    half_closed = deaf("/bytes/80000")
    half_closed.socket.shutdown(socket.SHUT_WR)
    clients.append(half_closed)
    peers = {client.port for client in clients}

    def all_have_their_share() -> bool:
        held = [held for held in held_by_system(daemon.port) if held.peer in peers and held.unacknowledged > 10_000]
        return len(held) == len(clients)

    daemon.until(all_have_their_share, 10, "the kernel has something for all of them")
    assert max(held.unacknowledged for held in held_by_system(daemon.port)) < KERNEL_MAX
    with Connection(daemon.port) as other:
        assert len(other.get("/bytes/3000000").body) == 3_000_000
        wait_reset(daemon, clients, SOON)
        assert other.get("/bytes/10").body == bytes(10), "who reads is not cut"
    assert daemon.stop() == 0


@pytest.mark.parallel
def test_a_drain_waits_for_who_reads_and_resets_who_does_not(start: Start, stack: ExitStack) -> None:
    daemon = start("--graceful-timeout", "4", "--idle-grace", "0.5", app=APP, workers=1)
    deaf = partial(opened, stack, daemon)
    clients = [
        deaf("/bytes/80000"),
        deaf("/bytes/8000000"),
        deaf("/stream/80000"),
        deaf("/file/8000000"),
        deaf("/bytes/80000", CLOSE),
        deaf("/ws/80000", *HANDSHAKE),
    ]
    slow = deaf("/bytes/300000")
    daemon.until(
        lambda: sum(held.unacknowledged > 10_000 for held in held_by_system(daemon.port)) == len(clients) + 1,
        10,
        "the kernel has something for all of them",
    )
    daemon.signal(signal.SIGTERM)
    daemon.wait_log("SIGTERM: stopping")
    assert len(slow.answer().body) == 300_000, "what it has begun to read is not lost"
    assert daemon.wait_exit(15) == 0
    wait_reset(daemon, clients, 2)
    left = [held for held in held_by_system(daemon.port) if held.state == FIN_WAIT1]
    assert left == []
