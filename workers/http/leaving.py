"""Whether a client has left from whom nothing is read at the moment: the event loop sees only what it may read."""

from __future__ import annotations

import enum
import select
import socket


class Sign(enum.Enum):
    """What the system knows of the other side."""

    NONE = "none"
    CLOSED_ITS_SIDE = "closed its side"
    """By a FIN; what it has sent before may still be unread. It may be gone, or have only finished sending."""
    GONE = "gone"
    """By a reset, or the other end of a unix socket is closed."""


def sign_of(sock: socket.socket) -> Sign:
    """Ask the system, without reading (poll(2))."""
    closed = getattr(select, "POLLRDHUP", 0)  # only Linux tells
    poll = select.poll()
    poll.register(sock.fileno(), closed)
    events = poll.poll(0)
    if not events:
        return Sign.NONE
    return Sign.GONE if events[0][1] & (select.POLLERR | select.POLLHUP) else Sign.CLOSED_ITS_SIDE
