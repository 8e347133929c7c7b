"""How long a request has waited before anybody looked at it: in the kernel, and for its turn of the event loop.

Its client will have given up after a time, or is about to; what is done for it then is lost, and makes the next one
late as well. So a request that has waited too long is answered 503 while that costs next to nothing.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from time import monotonic
from typing import Final, Protocol

# struct tcp_info of linux/tcp.h: milliseconds since data has last come.
_TCP_INFO: Final = getattr(socket, "TCP_INFO", None)
_LAST_DATA_AT: Final = 52
_LAST_DATA = struct.Struct("=I")


class Waited(Protocol):
    """What is to be known of a connection whose request may have waited.

    Attributes:
        transport: None when it is gone.
        requests: how many there were, with the current one.
    """

    transport: asyncio.Transport | None
    requests: int


class QueueTime:
    """Tells which requests have waited too long.

    The kernel knows when the bytes of a request have come. It is asked (0.5 us) only for the first request of a
    connection, which may have waited for many turns to be accepted, and when the loop has been so slow, or idle for so
    long, that a request may have waited too long at all: nothing that is read now came before what was read in the turn
    before the last had been waited for.

    Args:
        loop: whose connections are asked for.
        limit: seconds.
    """

    __slots__ = ("_before", "_in_turn", "_limit", "_loop", "_turn")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float) -> None:
        self._loop = loop
        self._limit = limit
        self._in_turn = False
        self._turn = self._before = 0.0
        """When the first request was read in this turn of the loop, and in the last one that had any."""

    def is_over(self, connection: Waited) -> bool:
        """Whether the request that a connection has just read has waited too long."""
        now = monotonic()
        if not self._in_turn:
            self._in_turn = True
            self._before, self._turn = self._turn, now
            self._loop.call_soon(self._end_turn)
        if connection.requests > 1 and now - self._before <= self._limit:
            return False
        waited = _in_kernel(connection)
        return (now - self._turn if waited is None else waited) > self._limit

    def _end_turn(self) -> None:
        self._in_turn = False


def _in_kernel(connection: Waited) -> float | None:
    """Seconds since bytes have last come; None: the system does not tell, as of unix sockets."""
    transport = connection.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    if _TCP_INFO is None or sock is None or sock.family == socket.AF_UNIX:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _LAST_DATA_AT + _LAST_DATA.size)
    except OSError:
        return None
    (milliseconds,) = _LAST_DATA.unpack_from(info, _LAST_DATA_AT)
    return float(milliseconds) / 1000
