"""How many connections wait in the kernel to be accepted."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

# `struct tcp_info` of Linux: 8 bytes, then 32-bit integers; of a socket that listens, tcpi_unacked is the length of its
# accept queue (tcp_get_info() in net/ipv4/tcp.c).
_INFO: Final = struct.Struct("=8x16xI")


def length(sock: socket.socket) -> int | None:
    """Return the connections that wait on a listening socket; None: the system does not tell (a unix socket, macOS)."""
    if sys.platform != "linux" or sock.family == socket.AF_UNIX or sock.fileno() < 0:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except OSError:
        return None
    waiting: int = _INFO.unpack(info)[0]
    return waiting
