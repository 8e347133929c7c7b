"""What a connection of HTTP/1.1 says of itself where a response is written: the facts that keep it open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from preforkd.workers.http.exchange import Exchange
    from preforkd.workers.http.states import ConnectionState


class PersistentConnection(Protocol):
    """A connection that may stay open behind a response.

    Attributes:
        persistent: it may stay open at all; not any more when it drains.
        continue_is_due: the client waits for `100 Continue` before it sends the body of the current request.
        rest_may_be_long: more of the current body is still to come than would be read for the next request.
        state: where it is in its life.
    """

    persistent: bool
    continue_is_due: bool
    rest_may_be_long: bool
    state: ConnectionState


def may_stay_open(connection: PersistentConnection, exchange: Exchange) -> bool:
    """Whether a connection may stay open behind the response to its current exchange, as far as is known now."""
    request = exchange.request
    return (
        connection.persistent
        and request is not None
        and not request.should_close
        and not connection.continue_is_due
        and not connection.rest_may_be_long
    )
