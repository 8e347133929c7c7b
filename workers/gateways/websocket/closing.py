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

from preforkd.workers.gateways.asgi.errors import AsgiProtocolError
from preforkd.workers.gateways.websocket.frames import INVALID_DATA, PROTOCOL_ERROR
from preforkd.workers.http.states import ConnectionState

if TYPE_CHECKING:
    from collections.abc import Callable

    from preforkd.workers.gateways.websocket.wire import Wire

CLOSE_TIMEOUT = 10.0  # seconds that the client gets to answer a Close
CLOSE_TIMEOUT_DRAINING = 3.0  # when the worker leaves: silence must not hold it up


class ClosingHandshake:
    """How one WebSocket ends.

    Args:
        wire: its way out.
        ended: called when nothing more will come from the client; perhaps more than once.
    """

    __slots__ = ("_client_was_first", "_ended", "_loop", "_received", "_timer", "_wire")

    def __init__(self, wire: Wire, ended: Callable[[], None]) -> None:
        self._wire = wire
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._received: Close | None = None
        self._client_was_first = False

    @property
    def outcome(self) -> Close:
        """Code and reason of the end: who closed first has its say; nobody: 1006 (RFC 6455 section 7.1.5)."""
        received, sent = self._received, self._wire.server.close_sent
        if received is not None and (sent is None or self._client_was_first):
            return received
        return sent or Close(1006, "")

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

    def take(self, payload: bytes) -> None:
        """Take the client's Close, answer it with its own code if it is the first, and end.

        Also in the middle of a message (RFC 6455 section 5.4): the rest of that will not come, and nobody has failed.

        Args:
            payload: of the frame.
        """
        server = self._wire.server
        try:
            close = Close.parse(payload)
        except ProtocolError as exc:
            self.fail(PROTOCOL_ERROR, str(exc))
            return
        except UnicodeDecodeError:
            self.fail(INVALID_DATA, "the reason of a Close is not UTF-8")
            return
        self._received = close
        if server.state is State.OPEN:
            self._client_was_first = True
            server.send_close(*((close.code, close.reason) if payload else ()))
        self._wire.flush()
        self.end(linger=True)

    def fail(self, code: int, reason: str, *, linger: bool = True) -> None:
        """End the WebSocket for a fault of the client's, without waiting for its Close (RFC 6455 section 7.1.7).

        Args:
            code, reason: as for `begin()`.
            linger: as for `end()`.
        """
        if self._wire.server.state is State.OPEN:
            self._wire.server.send_close(code, reason)
        self._wire.flush()
        self.end(linger=linger)

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
