"""What the parts of a connection ask of it: one interface, which `ServerHttpProtocol` is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from preforkd.workers.edge import Peer
from preforkd.workers.http.connections import Live
from preforkd.workers.http.exchange import Carrier

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Coroutine

    from preforkd.workers.http.access_log import AccessLog
    from preforkd.workers.http.connections import Connections
    from preforkd.workers.http.errors import HeaderPairs
    from preforkd.workers.http.exchange import Exchange, Service
    from preforkd.workers.http.message import RequestMessage
    from preforkd.workers.http.payload import PayloadStream
    from preforkd.workers.http.response import Response


class Host(Carrier, Peer, Live, Protocol):
    """A connection as its parts know it. Most of it is the seed's contract, and may be overridden by a subclass.

    Attributes:
        requests: how many there were, with the current one.
        connections: the table of the loop's connections that it is in.
        allowed_methods: other ones are answered 405; empty: any.
        access_log: where requests are logged.
    """

    requests: int
    connections: Connections
    _service: Service | None  # None: the connection itself
    allowed_methods: frozenset[str]
    access_log: AccessLog | logging.Logger | None

    # The way in.

    def proceed(self) -> None:
        """Process what has come."""

    def send_continue(self) -> None:
        """Send `100 Continue` (RFC 9110 section 10.1.1), unless the response has begun."""

    def client_has_closed(self) -> bool:
        """The client will send nothing behind what it has sent by now: mostly it is gone."""

    # The client.

    def ask_client(self) -> None:
        """Ask the transport for the client's address, if nobody has told it."""

    # The requests.

    def served_by(self) -> Service:
        """Return what serves the requests."""

    def serve(self, exchange: Exchange) -> Awaitable[None]:
        """Answer a request, where nothing else serves them."""

    def start(self) -> Coroutine[Any, Any, None]:
        """Process the requests."""

    def cancel_handler(self) -> None:
        """Cancel the handler of the current request, if there is one."""

    def expire_request(self) -> None:
        """The request takes longer than `request_timeout`."""

    async def handle_error(
        self,
        status: int,
        message: RequestMessage | None,
        payload: PayloadStream,
        exc: BaseException | None,
        headers: HeaderPairs | None = None,
        reason: str | None = None,
    ) -> None:
        """Answer with an error."""

    # The logs.

    def logs_by_itself(self) -> bool:
        """Whether `log_access()` is overridden."""

    def log_access(self, message: RequestMessage | None, environ: None, response: Response | None, time: float) -> None:
        """Write a line to the access log."""

    def log_debug(self, *args: object) -> None:
        """Log for debugging."""

    def log_exception(self, *args: object) -> None:
        """Log with the traceback of the current exception."""

    # The end.

    def close(self, linger: bool = True) -> None:
        """Close behind what was written."""

    def cancel_slow_request(self) -> None:
        """Cancel the handler and close the transport."""

    def reset(self) -> None:
        """Close at once, so that the client sees that something is missing."""

    def release(self) -> None:
        """Let go of the parts: nothing happens any more."""
