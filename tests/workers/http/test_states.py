"""The life of a connection as a table: an entry and an expectation for every (state, event) pair."""

from __future__ import annotations

import itertools

import pytest

from preforkd.workers.http import states
from preforkd.workers.http.states import (
    ON_REQUEST,
    TRANSITIONS,
    ConnectionEvent,
    ConnectionState,
    InvalidTransition,
    following,
)

NEW, ACTIVE, IDLE, CLOSING, CLOSED, UPGRADED = ConnectionState
REQUEST, KEPT, CLOSE, UPGRADE, LOST = ConnectionEvent

MEANT = {
    (NEW, REQUEST): ACTIVE,
    (IDLE, REQUEST): ACTIVE,
    (ACTIVE, KEPT): IDLE,
    (ACTIVE, UPGRADE): UPGRADED,
    (NEW, CLOSE): CLOSING,
    (ACTIVE, CLOSE): CLOSING,
    (IDLE, CLOSE): CLOSING,
    (UPGRADED, CLOSE): CLOSING,
    (CLOSING, CLOSE): CLOSING,
    (CLOSED, CLOSE): CLOSED,
    **{(state, LOST): CLOSED for state in ConnectionState},
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(ConnectionState, ConnectionEvent)))
def test_every_pair_leads_where_it_is_meant_to_or_is_a_bug(state: ConnectionState, event: ConnectionEvent) -> None:
    if (state, event) in MEANT:
        assert following(state, event) is MEANT[state, event]
    else:
        with pytest.raises(InvalidTransition, match=f"{event.name} in state {state.name}"):
            following(state, event)


def test_the_table_has_a_column_for_each_state_and_a_row_for_each_event() -> None:
    assert set(TRANSITIONS) == set(ConnectionEvent)
    assert {len(row) for row in TRANSITIONS.values()} == {len(ConnectionState)}


def test_the_rows_of_the_hot_path_are_the_tables() -> None:
    assert ON_REQUEST is TRANSITIONS[REQUEST]
    assert {state for state in ON_REQUEST if state is not None} == {states.ACTIVE}
    assert TRANSITIONS[KEPT][states.ACTIVE] is states.IDLE


def test_nothing_leads_back_from_closing_and_closed() -> None:
    for state, event in itertools.product((CLOSING, CLOSED), ConnectionEvent):
        assert TRANSITIONS[event][state] in (CLOSING, CLOSED, None)
