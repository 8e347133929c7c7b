"""The life of one connection: everything that changes its state is in the table of this file.

The rules:

* NEW: accepted, no request is complete yet. ACTIVE: a request is being handled; there is one at a time, later ones of a
  pipeline stay unparsed. IDLE: the last response is out, the next request has not been read to the end of its head.
* CLOSING: nothing that arrives will be answered. What was written still goes out, what comes in is discarded for a
  bounded time (RFC 9112 section 9.6). No way leads back from here.
* UPGRADED: the bytes belong to another protocol (RFC 9110 section 7.8).
* CLOSED: the transport is gone, everything is let go of. It is entered from every state by one way: LOST.

An event that cannot happen in a state is a bug of this package: `None` in the table, `InvalidTransition` at run time.
"""

from __future__ import annotations

import enum


class ConnectionState(enum.IntEnum):
    """Where a connection is in its life; public, like Go's `http.ConnState`."""

    NEW = 0
    ACTIVE = 1
    IDLE = 2
    CLOSING = 3
    CLOSED = 4
    UPGRADED = 5


class ConnectionEvent(enum.IntEnum):
    """What moves a connection from one state to another."""

    REQUEST = 0  # a request's head is complete and its handling begins
    KEPT = 1  # the response is complete and the connection stays open
    CLOSE = 2  # we end it: after a response, for a deadline, for an error, because the worker stops
    UPGRADE = 3  # a handler took the connection over
    LOST = 4  # the transport is gone


_S = ConnectionState

TRANSITIONS: dict[ConnectionEvent, tuple[ConnectionState | None, ...]] = {
    # from:                    NEW         ACTIVE       IDLE        CLOSING     CLOSED     UPGRADED
    ConnectionEvent.REQUEST: (_S.ACTIVE, None, _S.ACTIVE, None, None, None),
    ConnectionEvent.KEPT: (None, _S.IDLE, None, None, None, None),
    ConnectionEvent.CLOSE: (_S.CLOSING, _S.CLOSING, _S.CLOSING, _S.CLOSING, _S.CLOSED, _S.CLOSING),
    ConnectionEvent.UPGRADE: (None, _S.UPGRADED, None, None, None, None),
    ConnectionEvent.LOST: (_S.CLOSED, _S.CLOSED, _S.CLOSED, _S.CLOSED, _S.CLOSED, _S.CLOSED),
}


class InvalidTransition(AssertionError):  # noqa: N818 -- it is an impossible case, not an error to handle
    """An event came in a state where it cannot happen: a bug of this package."""


def following(state: ConnectionState, event: ConnectionEvent) -> ConnectionState:
    """Return the state after `event`.

    Raises:
        InvalidTransition: the table has no entry for this pair.
    """
    after = TRANSITIONS[event][state]
    if after is None:
        raise InvalidTransition(f"{event.name} in state {state.name}")
    return after


# Two of the transitions happen in every request: looked up once, 0.02 us instead of 0.2.
ON_REQUEST = TRANSITIONS[ConnectionEvent.REQUEST]
IDLE = following(ConnectionState.ACTIVE, ConnectionEvent.KEPT)
ACTIVE = following(IDLE, ConnectionEvent.REQUEST)
