"""A client that has left is seen without reading what it has sent."""

from __future__ import annotations

import socket
import struct
import sys

import pytest

from preforkd.workers.http.leaving import Sign, sign_of


def pair() -> tuple[socket.socket, socket.socket]:
    """Ours and the client's, of a connection by TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        return listener.accept()[0], theirs


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a FIN behind unread bytes")
@pytest.mark.parametrize("unread", [b"", b"x" * 1000])
def test_a_client_that_closes_its_side_is_seen_behind_what_is_unread(unread: bytes) -> None:
    ours, theirs = pair()
    with ours, theirs:
        theirs.sendall(unread)
        assert sign_of(ours) is Sign.NONE
        theirs.shutdown(socket.SHUT_WR)
        assert sign_of(ours) is Sign.CLOSED_ITS_SIDE
        assert ours.recv(2000) == unread


def test_a_client_that_resets_is_gone() -> None:
    ours, theirs = pair()
    with ours:
        theirs.sendall(b"x")
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        assert sign_of(ours) is Sign.GONE
