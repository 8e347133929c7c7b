"""The closing handshake of a WebSocket (RFC 6455 section 7): who has closed, and how long the end may take.

Two waits follow each other, each with the same patience: for the client's Close, when ours was first; and for the end
of the connection, while what was written still goes out. Silence in the first ends it orderly, in the second by force.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from websockets.exceptions import ProtocolError
from websockets.frames import Close
from websockets.protocol import State

from preforkd.workers.gateways.asgi_exchange import AsgiProtocolError
from preforkd.workers.http.states import ConnectionState

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.server import ServerProtocol

    from preforkd.workers.gateways.websocket_wire import Wire

CLOSE_TIMEOUT = 10.0  # seconds that the client gets to answer a Close
CLOSE_TIMEOUT_DRAINING = 3.0  # when the worker leaves: silence must not hold it up


def outcome(server: ServerProtocol) -> Close:
    """Return the code and reason of the end: who closed first has its say; nobody: 1006 (RFC 6455 section 7.1.5)."""
    if server.close_rcvd is not None and (server.close_sent is None or server.close_rcvd_then_sent):
        return server.close_rcvd
    return server.close_sent or Close(1006, "")


class ClosingHandshake:
    """How one WebSocket ends.

    Args:
        wire: its way out.
        ended: called when nothing more will come from the client; perhaps more than once.
    """

    __slots__ = ("_ended", "_loop", "_timer", "_wire")

    def __init__(self, wire: Wire, ended: Callable[[], None]) -> None:
        self._wire = wire
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, code: int, reason: str) -> None:
        """Send a Close; the client has some time to answer. Only for a WebSocket that is open.

        Args:
            code: RFC 6455 section 7.4.
            reason: 123 bytes of UTF-8 at most.

        Raises:
            AsgiProtocolError: a Close cannot have this code or reason.
        """
        try:
            self._wire.server.send_close(code, reason)
        except ProtocolError as exc:
            raise AsgiProtocolError(f"websocket.close cannot have this code or reason: {exc}") from None
        self._wire.flush()
        self._wait(self._miss_close)

    def fail(self, code: int, reason: str) -> None:
        """End the WebSocket for a fault of the client's, without waiting for its Close (RFC 6455 section 7.1.7).

        Args:
            code, reason: as for `begin()`.
        """
        if self._wire.server.state is State.OPEN:
            self._wire.server.fail(code, reason)
        self._wire.flush()
        self.end(linger=False)

    def end(self, *, linger: bool) -> None:
        """Close the connection, after what was written has gone out; a client that does not read is cut in the end.

        Args:
            linger: as for `ServerHttpProtocol.close()`.
        """
        self.stop()
        self._ended()
        connection = self._wire.connection
        connection.close(linger=linger)
        if connection.transport is not None:
            self._wait(connection.cut)

    def hurry(self) -> None:
        """The worker leaves: what is waited for gets the time that it has then, from now on."""
        connection = self._wire.connection
        if connection.state is ConnectionState.UPGRADED:
            self._wait(self._miss_close)
        elif self._timer is not None:
            self._wait(connection.cut)

    def stop(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, give_up: Callable[[], None]) -> None:
        self.stop()
        is_draining = self._wire.connection.gateway.drained_by is not None
        self._timer = self._loop.call_later(CLOSE_TIMEOUT_DRAINING if is_draining else CLOSE_TIMEOUT, give_up)

    def _miss_close(self) -> None:
        connection = self._wire.connection
        if connection.gateway.drained_by is not None and connection.untaken():
            connection.cut()  # it has not even read that it is to close
        else:
            self.end(linger=False)
