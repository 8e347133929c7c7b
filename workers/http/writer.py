"""The way out of a connection: joins the parts of a response into few writes, and waits for slow readers."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Protocol

from preforkd.workers.http import compiled
from preforkd.workers.http.done import DONE
from preforkd.workers.http.errors import ClientDisconnectedError
from preforkd.workers.http.sendfile import send_by_kernel

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from preforkd.workers.http.exchange import Exchange
    from preforkd.workers.http.intake import Intake
    from preforkd.workers.http.response import Response

_JOIN_BELOW = 32768  # joining costs a copy, a second write a call: they break even at about this size
_HOLD_BELOW = 131072  # bytes that drain() leaves for the end of the loop's turn
_HOLD_PARTS = 16  # and in how many parts at most: they are counted anew in each call
_TURN_BYTES = 262144  # bytes after which drain() lets the loop turn, though the client takes all of them
_FLUSH_ABOVE = 1 << 20  # no more than this is kept back within a turn of the loop


# asyncio's writelines() in 3.12.0 to 3.12.8, 3.13.0 and 3.13.1 never calls pause_writing(): a client that does not read
# would fill the memory (CVE-2024-12254).
_WRITELINES_PAUSES = not ((3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2))


class PersistentConnection(Protocol):
    """A connection of HTTP/1.1 as it matters where a response is written: the facts that keep it open.

    Attributes:
        persistent: it may stay open at all; not any more when it drains.
    """

    persistent: bool


@compiled.in_both_forms
class ResponseWriter:
    """The `Wire` of HTTP/1.1: gives what responses write to the transport in as few calls as possible.

    What is written is kept back for the rest of the loop's turn at most. So a complete response is one write, and
    whether the connection stays open is decided when the handler has had its chance to call `keep_alive()`.

    Attributes:
        connection: the connection that this is the way out of; None when it is gone.
        exchange: the request that is being handled, and its response; None between two.
        response: the response to the current request, from `send_headers()` on.
        sent: bytes given to the transport since the connection was made.
        parts, due: what is kept back, and whether anything is (the head of the response is not in `parts`).
        paused: the client has to read before more should be written.
        lost: bytes that the transport had not handed to the kernel when the connection was lost, as far as it is known:
            uvloop's forgets them when a client resets the connection, then it is what they were when last looked at.
        corked: who called into the handler flushes when it returns; else the loop's next turn has to.
        prepared: what the service has made for all exchanges of the connection with its first; None: nothing.
    """

    __slots__ = (
        "_drained", "_flush_is_scheduled", "_held", "_held_at", "_intake", "_loop", "_size", "_transport", "_turned_at",
        "connection", "corked", "due", "exchange", "lost", "parts", "paused", "prepared", "response", "sent",
    )  # fmt: skip

    chunks = True

    def __init__(
        self,
        connection: PersistentConnection,
        intake: Intake,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.connection: PersistentConnection | None = connection
        self.exchange: Exchange | None = None
        self.response: Response | None = None
        self.prepared: Any = None
        self.sent = self._turned_at = self._held = self._held_at = self.lost = 0
        self.due = False
        self.corked = False
        self._intake: Intake | None = intake
        self._transport: asyncio.Transport | None = transport
        self._loop = loop
        self.parts: list[bytes] = []
        self._size = 0
        self.paused = False
        self._drained: asyncio.Future[None] | None = None
        self._flush_is_scheduled = False

    @property
    def is_lost(self) -> bool:
        """The client is gone."""
        return self._transport is None

    def may_stay_open(self, exchange: Exchange) -> bool:
        """Whether the connection may stay open behind an exchange, as far as is known, its handler's word aside."""
        connection, request, intake = self.connection, exchange.request, self._intake
        return (
            connection is not None
            and intake is not None
            and connection.persistent
            and request is not None
            and not request.should_close
            and not intake.continue_is_due
            and not intake.rest_may_be_long
        )

    def write(self, data: bytes) -> None:
        """Write bytes behind what has been written.

        Raises:
            ClientDisconnectedError: the client is gone.
        """
        if self._transport is None:
            raise ClientDisconnectedError("the client is gone")
        self.parts.append(data)
        self.due = True
        if not self.corked:
            self._size += len(data)
            if self._size > _FLUSH_ABOVE:
                self.flush()
            elif not self._flush_is_scheduled:
                self.flush_soon()

    def flush_soon(self) -> None:
        """Have what is kept back written before the loop's next turn."""
        if not self.corked and not self._flush_is_scheduled:
            self._flush_is_scheduled = True
            self._loop.call_soon(self._flush_scheduled)

    def _flush_scheduled(self) -> None:
        self._flush_is_scheduled = False
        self.flush()

    def flush(self, *, is_last: bool = False) -> None:
        """Give everything to the transport now; the head of the response is made here.

        Args:
            is_last: the handler has returned. When the connection does not stay open, its end follows in this turn.
        """
        response = self.response
        parts = self.parts
        self._size = 0
        self.due = False
        if response is not None and response.head_is_due:
            # Flat: every response passes here.
            if not parts or (len(parts) == 1 and len(parts[0]) < _JOIN_BELOW):
                data = response.render(parts)
                parts.clear()
                transport = self._transport
                if transport is not None and not transport.is_closing():
                    self.sent += len(data)
                    if is_last and response.ended and not response.keeps and not self.paused:
                        # Our TLS has an end of its own to send.
                        hold_back = getattr(transport, "hold_back", None)
                        if hold_back is not None:
                            hold_back()
                    transport.write(data)
                return
            parts.insert(0, response.render(()))
            self._turned_at = self.sent
        if not parts:
            return
        if len(parts) == 1:
            self._give(parts[0])
            parts.clear()
            return
        size = sum(map(len, parts))
        if size < _JOIN_BELOW:
            self._give(b"".join(parts))
            parts.clear()
            return
        self.parts = []  # the transport may keep the list
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self.sent += size
            if _WRITELINES_PAUSES:
                transport.writelines(parts)
            else:
                for part in parts:
                    transport.write(part)

    def _give(self, data: bytes) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self.sent += len(data)
            transport.write(data)

    def drain(self) -> Awaitable[None]:
        """Wait until the client has read enough of what was written; returns at once when it has.

        Raises:
            ClientDisconnectedError: the client is gone.
        """
        parts = self.parts
        if self.corked and not self.paused and len(parts) < _HOLD_PARTS and sum(map(len, parts)) < _HOLD_BELOW:
            return DONE  # so little can wait for the end of the turn
        self.flush()
        transport = self._transport
        if transport is None or self.paused:
            return self._wait_drained()
        if transport.is_closing() or self.sent - self._turned_at > _TURN_BYTES:
            return self._let_loop_turn()
        return DONE

    async def _let_loop_turn(self) -> None:
        """Give the other connections, and the news that this one is closed, a chance.

        Who writes in a loop to a client that reads as fast would else never wait for anything; and what is written to
        a transport that is closing goes nowhere, so it would never be paused either.
        """
        self._turned_at = self.sent
        await asyncio.sleep(0)
        if self._transport is None or self.paused:
            await self._wait_drained()

    async def _wait_drained(self) -> None:
        if self._transport is None:
            raise ClientDisconnectedError("the client is gone")
        if self._drained is None:
            self._drained = self._loop.create_future()
        # Shielded: several tasks may wait, and one that is cancelled must not cancel the others.
        await asyncio.shield(self._drained)

    # Files.

    def takes_files(self) -> bool:
        """Whether the kernel can write to this client: not through TLS."""
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is None

    def send_file(self, response: Response, descriptor: int, offset: int) -> Awaitable[None]:
        """Have the kernel send what the response's Content-Length still wants of a file; see `sendfile.py`."""
        return send_by_kernel(response, self, self._transport, descriptor, offset)

    # The connection's side.

    def pause(self) -> None:
        """The transport's buffer is above its high-water mark."""
        self.paused = True
        self.unsent()

    def resume(self) -> None:
        """The transport's buffer is below its low-water mark."""
        self.paused = False
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def unsent(self) -> int:
        """Bytes that the transport could not hand to the kernel yet."""
        size = self._transport.get_write_buffer_size() if self._transport is not None else 0
        if size:
            self._held, self._held_at = size, self.sent
        return size

    def release(self) -> None:
        """Let go of the connection, which nothing happens on any more."""
        self.connection = self._intake = None

    def lose(self) -> None:
        """The connection is gone: let go of everything, wake who waits."""
        self.lost = self.unsent() or (self._held + self.sent - self._held_at if self.paused else 0)
        self._transport = None
        self.parts.clear()
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_exception(ClientDisconnectedError("the client is gone"))
            drained.exception()  # a waiter that was cancelled meanwhile does not fetch it
