"""TLS handshakes that begin and never end: the others are served, memory stays bounded, and the silent are cut.

How fast the others are served is measured by `python -m tests.benchmarks.handshakes`.
"""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from preforkd.workers.handshakes import HANDSHAKES
from tests.benchmarks.handshakes import client_hello, opened
from tests.certificates import needs_openssl, trusting
from tests.e2e.client import Connection, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import BOOT
from tests.e2e.test_bombs import memory

pytestmark = [needs_openssl, pytest.mark.parallel]

HELD = 400
BEGUN = HANDSHAKES + 300
MOST = 70.0
"""MB: what the daemon says that so many handshakes cost, 45 kB each, and what it takes for connections beside."""


@pytest.fixture
def descriptors() -> Iterator[None]:
    """As many as a bomb needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4 * BEGUN:
        pytest.skip(f"{4 * BEGUN} descriptors are needed, and {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * BEGUN), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def is_over(one: socket.socket) -> bool:
    """Whether the daemon has closed it."""
    one.settimeout(BOOT)
    try:
        while one.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_handshakes_that_never_end_cost_the_others_nothing_and_little_memory(
    start: Start, tls_files: Path, descriptors: None
) -> None:
    pair = ("--certfile", str(tls_files / "good.crt"), "--keyfile", str(tls_files / "good.key"))
    daemon = start(*pair, "--handshake-timeout", "20", "--no-access-log", workers=1)
    context, hello = trusting(tls_files / "authority.pem"), client_hello()
    before = memory(daemon)
    with ExitStack() as stack:
        kept = stack.enter_context(Connection(daemon.port, tls=context, timeout=BOOT))
        for number in range(HELD):
            said = hello[: len(hello) // 2] if number % 2 else b""
            stack.enter_context(opened(daemon.port, said))
        begun = []
        for number in range(BEGUN):
            begun.append(stack.enter_context(opened(daemon.port, hello)))
            if number % 100 == 0:
                assert kept.get().status == 200
                assert get(daemon.port, tls=context, timeout=BOOT).status == 200
        daemon.wait_log(rf"{HANDSHAKES} TLS handshakes have begun and are not done: giving up the oldest for each new")
        assert all(is_over(one) for one in begun[: BEGUN - HANDSHAKES])
        assert kept.get().status == 200
        assert get(daemon.port, tls=context, timeout=BOOT).status == 200
        assert memory(daemon) - before < MOST
    assert daemon.stop() == 0


def test_who_does_not_finish_its_handshake_is_cut_wherever_it_stands(start: Start, tls_files: Path) -> None:
    pair = ("--certfile", str(tls_files / "good.crt"), "--keyfile", str(tls_files / "good.key"))
    daemon = start(*pair, "--handshake-timeout", "1", workers=1)
    hello = client_hello()
    with ExitStack() as stack:
        said = (b"", hello[:3], hello[: len(hello) // 2], hello)
        slow = [stack.enter_context(opened(daemon.port, part)) for part in said]
        assert all(is_over(one) for one in slow)
        assert get(daemon.port, tls=trusting(tls_files / "authority.pem")).status == 200
    assert daemon.stop() == 0


def test_a_handshake_may_come_byte_by_byte(start: Start, tls_files: Path) -> None:
    pair = ("--certfile", str(tls_files / "good.crt"), "--keyfile", str(tls_files / "good.key"))
    daemon = start(*pair, workers=1)
    with opened(daemon.port, b"") as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in client_hello():
            one.sendall(bytes([byte]))
        one.settimeout(BOOT)
        assert one.recv(1) == b"\x16", "a ServerHello"
    for wrong in (b"\x16\x03\x01\xff\xff" + bytes(20000), b"\x15\x03\x01\x00\x02\x01\x00"):
        with opened(daemon.port, wrong) as one:
            assert is_over(one)
    assert daemon.stop() == 0
