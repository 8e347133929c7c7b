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

if TYPE_CHECKING:
    from collections.abc import Callable

    from preforkd.workers.gateways.websocket.outbound import Outbound

CLOSE_TIMEOUT = 10.0  # seconds that the client gets to answer a Close
CLOSE_TIMEOUT_DRAINING = 3.0  # when the worker leaves: silence must not hold it up


class ClosingHandshake:
    """How one WebSocket ends.

    Args:
        outbound: its way out.
        is_draining: whether the worker leaves.
        ended: called when nothing more will come from the client; perhaps more than once.
    """

    __slots__ = ("_client_was_first", "_ended", "_is_draining", "_loop", "_outbound", "_received", "_timer")

    def __init__(self, outbound: Outbound, is_draining: Callable[[], bool], ended: Callable[[], None]) -> None:
        self._outbound = outbound
        self._is_draining = is_draining
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._received: Close | None = None
        self._client_was_first = False

    @property
    def outcome(self) -> Close:
        """Code and reason of the end: who closed first has its say; nobody: 1006 (RFC 6455 section 7.1.5)."""
        received, sent = self._received, self._outbound.server.close_sent
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
            self._outbound.server.send_close(code, reason)
        except ProtocolError as exc:
            raise AsgiProtocolError(f"websocket.close cannot have this code or reason: {exc}") from None
        self._outbound.flush()
        self._wait(self._miss_close)

    def take(self, payload: bytes) -> None:
        """Take the client's Close, answer it with its own code if it is the first, and end.

        Also in the middle of a message (RFC 6455 section 5.4): the rest of that will not come, and nobody has failed.

        Args:
            payload: of the frame.
        """
        server = self._outbound.server
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
        self._outbound.flush()
        self.end(linger=True)

    def fail(self, code: int, reason: str, *, linger: bool = True) -> None:
        """End the WebSocket for a fault of the client's, without waiting for its Close (RFC 6455 section 7.1.7).

        Args:
            code, reason: as for `begin()`.
            linger: as for `end()`.
        """
        if self._outbound.server.state is State.OPEN:
            self._outbound.server.send_close(code, reason)
        self._outbound.flush()
        self.end(linger=linger)

    def end(self, *, linger: bool) -> None:
        """Close the connection, after what was written has gone out; a client that does not read is cut in the end.

        Args:
            linger: as for `ServerHttpProtocol.close()`.
        """
        self.stop()
        self._ended()
        tunnel = self._outbound.tunnel
        tunnel.close(linger=linger)
        if not tunnel.is_lost:
            self._wait(tunnel.cut)

    def hurry(self) -> None:
        """The worker leaves: what is waited for gets the time that it has then, from now on."""
        tunnel = self._outbound.tunnel
        if tunnel.is_open:
            self._wait(self._miss_close)
        elif self._timer is not None:
            self._wait(tunnel.cut)

    def stop(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, give_up: Callable[[], None]) -> None:
        self.stop()
        self._timer = self._loop.call_later(CLOSE_TIMEOUT_DRAINING if self._is_draining() else CLOSE_TIMEOUT, give_up)

    def _miss_close(self) -> None:
        tunnel = self._outbound.tunnel
        if self._is_draining() and tunnel.untaken():
            tunnel.cut()  # it has not even read that it is to close
        else:
            self.end(linger=False)
