"""The life of one WebSocket: what changes its state, and what its app may send in each, are the tables of this file.

The rules (RFC 6455 sections 4 and 7, ASGI WebSocket message format):

* HANDSHAKE: the app accepts, or refuses: with `websocket.close` (403) or a response of its own. It need not have
  received `websocket.connect` for that: frameworks refuse a WebSocket before they ask for anything.
* DENIAL: the rest of that response (extension `websocket.http.response`).
* OPEN: messages go both ways; the app may close.
* CLOSING: we have sent a Close, because the worker leaves or the app has returned or failed. What the client has sent
  until it knows is still received.
* CLOSED: the app has closed, or refused. What it sends now is its error.
* DISCONNECTED: the client is gone, has closed, or was cut. The app could not know: sending raises an `OSError`.
"""

from __future__ import annotations

import enum

from preforkd.workers.gateways.asgi.errors import AsgiProtocolError
from preforkd.workers.http.errors import ClientDisconnectedError
from preforkd.workers.http.states import InvalidTransition


class WebSocketState(enum.IntEnum):
    """Where a WebSocket is in its life, as its app sees it."""

    HANDSHAKE = 0
    DENIAL = 1
    OPEN = 2
    CLOSING = 3
    CLOSED = 4
    DISCONNECTED = 5


class WebSocketEvent(enum.IntEnum):
    """What moves a WebSocket from one state to another."""

    ACCEPTED = 0  # the 101 response is sent
    RESPONDED = 1  # a part of a response that refuses is sent
    DENIED = 2  # all of it
    CLOSED_BY_APP = 3
    CLOSED_BY_SERVER = 4  # a Close is sent that the app has not asked for
    ENDED = 5  # nothing more will come from the client


_S = WebSocketState

TRANSITIONS: dict[WebSocketEvent, tuple[WebSocketState | None, ...]] = {
    # from:                          HANDSHAKE  DENIAL     OPEN        CLOSING  CLOSED  DISCONNECTED
    WebSocketEvent.ACCEPTED: (_S.OPEN, None, None, None, None, None),
    # While a task of the app waits for the client to read a part, the client may leave, and another task send the rest.
    WebSocketEvent.RESPONDED: (_S.DENIAL, _S.DENIAL, None, None, _S.CLOSED, _S.DISCONNECTED),
    WebSocketEvent.DENIED: (None, _S.CLOSED, None, None, None, _S.DISCONNECTED),
    WebSocketEvent.CLOSED_BY_APP: (None, None, _S.CLOSED, None, None, None),
    WebSocketEvent.CLOSED_BY_SERVER: (None, None, _S.CLOSING, None, None, None),
    WebSocketEvent.ENDED: (
        _S.DISCONNECTED, _S.DISCONNECTED, _S.DISCONNECTED, _S.DISCONNECTED, _S.CLOSED, _S.DISCONNECTED,
    ),
}  # fmt: skip


def following(state: WebSocketState, event: WebSocketEvent) -> WebSocketState:
    """Return the state after `event`.

    Raises:
        InvalidTransition: the table has no entry for this pair.
    """
    after = TRANSITIONS[event][state]
    if after is None:
        raise InvalidTransition(f"{event.name} in state {state.name}")
    return after


class Command(enum.IntEnum):
    """What is to be done with a message of the app."""

    ACCEPT = 0  # open the WebSocket
    DENY = 1  # refuse it with 403
    RESPOND = 2  # refuse it with the app's own response, of which this is a part
    SEND = 3
    CLOSE = 4
    RAISE_GONE = 5  # it comes too late, which the app could not know
    RAISE_ERROR = 6  # it is the app's mistake


class AppMessage(enum.IntEnum):
    """The kinds of messages that an app may send."""

    ACCEPT = 0
    RESPONSE = 1
    SEND = 2
    CLOSE = 3
    UNKNOWN = 4


_C = Command

COMMANDS: dict[WebSocketState, tuple[Command, ...]] = {
    # of the app:                ACCEPT          RESPONSE        SEND            CLOSE           UNKNOWN
    WebSocketState.HANDSHAKE: (_C.ACCEPT, _C.RESPOND, _C.RAISE_ERROR, _C.DENY, _C.RAISE_ERROR),
    WebSocketState.DENIAL: (_C.RAISE_ERROR, _C.RESPOND, _C.RAISE_ERROR, _C.RAISE_ERROR, _C.RAISE_ERROR),
    WebSocketState.OPEN: (_C.RAISE_ERROR, _C.RAISE_ERROR, _C.SEND, _C.CLOSE, _C.RAISE_ERROR),
    WebSocketState.CLOSING: (_C.RAISE_ERROR, _C.RAISE_ERROR, _C.RAISE_GONE, _C.RAISE_GONE, _C.RAISE_ERROR),
    WebSocketState.CLOSED: (_C.RAISE_ERROR,) * 5,
    WebSocketState.DISCONNECTED: (_C.RAISE_GONE,) * 5,
}

_EXPECTED = {
    WebSocketState.HANDSHAKE: "websocket.accept, websocket.close or websocket.http.response.start",
    WebSocketState.DENIAL: "websocket.http.response.body",
    WebSocketState.OPEN: "websocket.send or websocket.close",
    WebSocketState.CLOSING: "websocket.send or websocket.close",
    WebSocketState.CLOSED: "nothing: the WebSocket is closed",
}
_KINDS = {
    "websocket.accept": AppMessage.ACCEPT,
    "websocket.send": AppMessage.SEND,
    "websocket.close": AppMessage.CLOSE,
}


def command_for(state: WebSocketState, kind: str) -> Command:
    """Return what is to be done with a message of the app.

    Args:
        state: of the WebSocket.
        kind: the message's `type`.

    Raises:
        AsgiProtocolError: the app must not send it now, or at all.
        ClientDisconnectedError: it comes too late, which the app could not know.
    """
    is_response = kind.startswith("websocket.http.response.")
    message = AppMessage.RESPONSE if is_response else _KINDS.get(kind, AppMessage.UNKNOWN)
    command = COMMANDS[state][message]
    if command is Command.RAISE_ERROR:
        raise AsgiProtocolError(f"the app has sent {kind!r}, expected was {_EXPECTED[state]}")
    if command is Command.RAISE_GONE:
        raise ClientDisconnectedError(f"the WebSocket is {'closing' if state is _S.CLOSING else 'closed'}")
    return command
