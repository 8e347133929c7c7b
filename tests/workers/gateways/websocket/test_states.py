"""The states of a WebSocket: every pair of a state and an event, and of a state and a message of the app."""

from __future__ import annotations

import pytest

from preforkd.workers.gateways.asgi.errors import AsgiProtocolError
from preforkd.workers.gateways.websocket.states import (
    COMMANDS,
    TRANSITIONS,
    AppMessage,
    Command,
    WebSocketEvent,
    WebSocketState,
    command_for,
    following,
)
from preforkd.workers.http.errors import ClientDisconnectedError
from preforkd.workers.http.states import InvalidTransition

S, E = WebSocketState, WebSocketEvent

WAYS = {
    (S.HANDSHAKE, E.ACCEPTED): S.OPEN,
    (S.HANDSHAKE, E.RESPONDED): S.DENIAL,
    (S.HANDSHAKE, E.ENDED): S.DISCONNECTED,
    (S.DENIAL, E.RESPONDED): S.DENIAL,
    (S.DENIAL, E.DENIED): S.CLOSED,
    (S.DENIAL, E.ENDED): S.DISCONNECTED,
    (S.OPEN, E.CLOSED_BY_APP): S.CLOSED,
    (S.OPEN, E.CLOSED_BY_SERVER): S.CLOSING,
    (S.OPEN, E.ENDED): S.DISCONNECTED,
    (S.CLOSING, E.ENDED): S.DISCONNECTED,
    (S.CLOSED, E.RESPONDED): S.CLOSED,
    (S.CLOSED, E.ENDED): S.CLOSED,
    (S.DISCONNECTED, E.RESPONDED): S.DISCONNECTED,
    (S.DISCONNECTED, E.DENIED): S.DISCONNECTED,
    (S.DISCONNECTED, E.ENDED): S.DISCONNECTED,
}


@pytest.mark.parametrize("event", E, ids=lambda event: event.name)
@pytest.mark.parametrize("state", S, ids=lambda state: state.name)
def test_every_event_in_every_state_leads_where_it_should_or_cannot_happen(
    state: WebSocketState, event: WebSocketEvent
) -> None:
    assert len(TRANSITIONS[event]) == len(S)
    if (state, event) in WAYS:
        assert following(state, event) is WAYS[state, event]
    else:
        with pytest.raises(InvalidTransition, match=f"{event.name} in state {state.name}"):
            following(state, event)


ACCEPT, SEND, CLOSE = "websocket.accept", "websocket.send", "websocket.close"
START, BODY = "websocket.http.response.start", "websocket.http.response.body"
UNKNOWN = "http.response.start"
GONE, ERROR = ClientDisconnectedError, AsgiProtocolError

ANSWERS: dict[WebSocketState, dict[str, Command | type[Exception]]] = {
    S.HANDSHAKE: {
        ACCEPT: Command.ACCEPT, START: Command.RESPOND, BODY: Command.RESPOND, SEND: ERROR, CLOSE: Command.DENY,
        UNKNOWN: ERROR,
    },
    S.DENIAL: {
        ACCEPT: ERROR, START: Command.RESPOND, BODY: Command.RESPOND, SEND: ERROR, CLOSE: ERROR, UNKNOWN: ERROR,
    },
    S.OPEN: {ACCEPT: ERROR, START: ERROR, BODY: ERROR, SEND: Command.SEND, CLOSE: Command.CLOSE, UNKNOWN: ERROR},
    S.CLOSING: {ACCEPT: ERROR, START: ERROR, BODY: ERROR, SEND: GONE, CLOSE: GONE, UNKNOWN: ERROR},
    S.CLOSED: dict.fromkeys((ACCEPT, START, BODY, SEND, CLOSE, UNKNOWN), ERROR),
    S.DISCONNECTED: dict.fromkeys((ACCEPT, START, BODY, SEND, CLOSE, UNKNOWN), GONE),
}  # fmt: skip


@pytest.mark.parametrize("kind", [ACCEPT, START, BODY, SEND, CLOSE, UNKNOWN])
@pytest.mark.parametrize("state", S, ids=lambda state: state.name)
def test_every_message_in_every_state_is_obeyed_or_refused(state: WebSocketState, kind: str) -> None:
    assert len(COMMANDS[state]) == len(AppMessage)
    answer = ANSWERS[state][kind]
    if isinstance(answer, Command):
        assert command_for(state, kind) is answer
    else:
        with pytest.raises(answer, match="expected was" if answer is ERROR else "the WebSocket is clos"):
            command_for(state, kind)


def test_a_refusal_says_what_was_sent_and_what_was_expected() -> None:
    with pytest.raises(AsgiProtocolError, match=r"^the app has sent 'x', expected was websocket.send or .*close$"):
        command_for(S.OPEN, "x")
    with pytest.raises(AsgiProtocolError, match="nothing: the WebSocket is closed"):
        command_for(S.CLOSED, SEND)
    with pytest.raises(ClientDisconnectedError, match="the WebSocket is closing"):
        command_for(S.CLOSING, SEND)
