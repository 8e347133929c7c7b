"""Sockets that systemd has passed: by name or number, and again after they were given back."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from preforkd.daemon import inherited
from preforkd.daemon.address import parse
from preforkd.daemon.inherited import UnfitError
from preforkd.daemon.listeners import BindError, bind_all
from preforkd.daemon.systemd import Activation


@pytest.fixture
def passed() -> Iterator[tuple[Activation, list[socket.socket]]]:
    """Two sockets named web, one named api, and what cannot be listened on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wrong:
        names = ("web", "api", "web")
        pairs = [(name, sock.fileno()) for name, sock in zip(names, sockets, strict=True)]
        yield Activation((*pairs, ("wrong", wrong.fileno()), ("gone", 999)), absence=""), sockets
    for sock in sockets:
        sock.close()


def ports(sockets: list[socket.socket]) -> list[int]:
    return [sock.getsockname()[1] for sock in sockets]


def descriptors() -> set[Path]:
    return set(Path("/dev/fd").iterdir())


Passed = tuple[Activation, list[socket.socket]]


def test_a_name_gives_listeners_on_all_its_sockets(passed: Passed) -> None:
    activation, [web, api, other] = passed
    bound = bind_all([parse("systemd:web"), parse("systemd:api")], activation)
    assert ports([one.socket for one in bound]) == ports([web, other, api])
    assert bound[0].url == f"http://127.0.0.1:{ports([web])[0]}"
    for listener in bound:
        assert not listener.socket.get_inheritable()
        assert not listener.socket.getblocking()
        listener.close()


@pytest.mark.parametrize("by_number", [False, True])
def test_a_socket_that_was_closed_can_be_taken_again(passed: Passed, by_number: bool) -> None:
    activation, [_, api, _] = passed
    address = parse(f"fd:{api.fileno()}" if by_number else "systemd:api")
    for _ in range(2):
        [listener] = bind_all([address], activation)
        listener.close()
    assert api.getsockname()


def test_what_cannot_be_listened_on_is_refused_and_nothing_stays_open(passed: Passed) -> None:
    activation, _ = passed
    before = descriptors()
    with pytest.raises(BindError, match=r"cannot bind systemd:wrong: .*not a stream socket"):
        bind_all([parse("systemd:web"), parse("systemd:wrong")], activation)
    with pytest.raises(UnfitError, match="no such file descriptor was inherited"):
        inherited.by_name("gone", activation)
    with pytest.raises(UnfitError, match='no socket named "wev"'):
        inherited.by_name("wev", activation)
    with pytest.raises(UnfitError):
        inherited.by_name("", activation)
    assert descriptors() == before


def test_what_no_address_takes_is_named(passed: Passed) -> None:
    activation, [web, _, _] = passed
    assert inherited.unused(activation, [parse("systemd:web"), parse(":80")]) == ["api", "wrong", "gone"]
    assert inherited.unused(activation, [parse(f"fd:{web.fileno()}")]) == ["api", "web", "wrong", "gone"]
    assert inherited.unused(activation, [parse("systemd:")]) == []
    assert inherited.unused(Activation(), [parse("systemd:web")]) == []
