"""TLS on a connection: a transport for the protocol above, a protocol for the transport below.

Not the TLS of asyncio and uvloop, for three reasons. They end both directions at once, so that no half-closed client
gets its answer and no connection lingers (RFC 9112 section 9.6). They do not tell whether part of a request has come,
so that it would be lost when an idle connection is closed. And they keep from their user what is not sent yet. This one
costs a request as much as uvloop's, which is compiled, for it does without the exception at the end of each read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, Protocol, cast

RECORD: Final = 16384
"""Bytes of plaintext in a TLS record at most (RFC 8446 section 5.1)."""
HEADER: Final = 5
"""Bytes of a record before its content: type, version and length."""
HANDSHAKE_RECORD: Final = 22
HTTP_INSTEAD: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 50\r\nConnection: close\r\n\r\n"
    b"This port speaks TLS: use https:// instead of http"
)
"""For a client that speaks plain HTTP; it cannot read an alert."""


class TlsState(Enum):
    """Where a connection is."""

    HANDSHAKE = "handshake"
    OPEN = "open"
    FINISHED = "finished"
    """We have said that we send no more (close_notify), and go on reading."""
    CLOSING = "closing"
    """Nothing is read or written any more; what was written goes out."""
    CLOSED = "closed"


class Handshakes(Protocol):
    """Who looks after handshakes."""

    def begun(self, tls: TlsConnection) -> None:
        """The transport of a connection is there."""

    def costs(self, tls: TlsConnection) -> None:
        """A first record is whole; called more than once, perhaps.

        From `begin` on, which is to be called when its turn has come, the handshake takes memory and time.
        """

    def over(self, tls: TlsConnection, exc: Exception | None) -> None:
        """A handshake is done, and its protocol gets the connection next; or it has been ended by `exc`."""


class TlsConnection(asyncio.Transport, asyncio.Protocol):
    """One connection, from its handshake to its end.

    Args:
        context: what it is spoken with.
        protocol: gets the connection when the handshake is done.
        loop: the running loop.
        handshakes: who looks after its handshake.

    Attributes:
        state: where it is.
        heard: the client has sent something.
    """

    __slots__ = (
        "_context", "_decrypt", "_encrypt", "_first", "_handshakes", "_has_finished", "_incoming", "_is_held_back",
        "_is_let_go_soon", "_loop", "_outgoing", "_paused", "_protocol", "_starved", "_tls", "_transport", "heard",
        "state",
    )  # fmt: skip

    def __init__(
        self,
        context: ssl.SSLContext,
        protocol: asyncio.Protocol,
        loop: asyncio.AbstractEventLoop,
        handshakes: Handshakes,
    ) -> None:
        # Not that of asyncio.Transport, which would make a dictionary that nobody looks at.
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject
        self._context: ssl.SSLContext | None = context
        """None: it is in use. Not before there is need: OpenSSL takes 17 kB for who is silent, 40 for half a record."""
        self._first = b""
        """The header of the first record."""
        self._protocol = protocol
        self._loop = loop
        self._handshakes = handshakes
        self._transport: asyncio.Transport | None = None
        self._paused = self._has_finished = False
        self._starved = False
        """The last read has found no whole record: part of one may have come."""
        self._is_held_back = self._is_let_go_soon = False
        """What is written waits for what follows it in this turn of the loop; what waits is sent in its next one."""
        self.state = TlsState.HANDSHAKE
        self.heard = False

    # The calls of the transport below

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client's first words."""
        self._transport = transport  # type: ignore[assignment]  # asyncio's signature; a cast is a call
        self._handshakes.begun(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the wire."""
        self._incoming.write(data)
        if self.state is TlsState.HANDSHAKE:
            self.heard = True
            if self._context is None:
                self._shake_hands()
            elif self._may_begin(data):
                self._handshakes.costs(self)
        elif not self._paused:
            self._read()
            if self._outgoing.pending:
                self._send_records()  # what TLS itself has to answer (a new key, an alert)

    def _may_begin(self, data: bytes) -> bool:
        """Whether the first record is whole, or is none of a handshake; then OpenSSL is needed."""
        first = self._first
        if len(first) < HEADER:
            first = self._first = (first + data)[:HEADER]
        if first[0] != HANDSHAKE_RECORD:
            return True
        return len(first) == HEADER and self._incoming.pending >= HEADER + min(first[3] << 8 | first[4], RECORD)

    def begin(self) -> None:
        """Answer the client's first record, which `costs` has told of; nothing when it has been given up meanwhile."""
        context, self._context = self._context, None
        if self.state is TlsState.HANDSHAKE and context is not None:
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
            self._decrypt, self._encrypt = self._tls.read, self._tls.write
            self._shake_hands()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send_records()
            return
        except OSError as exc:  # ssl.SSLError is one
            if getattr(exc, "reason", "") == "HTTP_REQUEST" and self._transport is not None:
                self._outgoing.read()
                self._transport.write(HTTP_INSTEAD)
            self.give_up(exc)
            return
        self.state = TlsState.OPEN
        self._handshakes.over(self, None)
        try:
            self._protocol.connection_made(self)
        except Exception as exc:  # noqa: BLE001 - of whatever `connection_made` raises
            self._refused(exc)
            return
        if self._incoming.pending and not self._paused:
            self._read()
            # The session ticket goes out with the response, if that is there in the loop's next turn: one system call
            # less, and nobody waits for it.
            if self._outgoing.pending:
                self._let_go_soon()
        else:
            self._send_records()

    def _refused(self, exc: Exception) -> None:
        """The protocol does not want the connection."""
        self.state = TlsState.CLOSED
        if self._transport is not None:
            self._transport.abort()
        with contextlib.suppress(Exception):  # it may not have begun
            self._protocol.connection_lost(exc)
        self._handshakes.over(self, exc)

    def give_up(self, exc: Exception) -> None:
        """End a handshake that has failed: say why (an alert), and close."""
        self.state = TlsState.CLOSED
        transport, self._transport = self._transport, None
        if transport is not None:
            if alert := self._outgoing.read():
                transport.write(alert)
            transport.close()
        self._handshakes.over(self, exc)

    def _read(self) -> None:
        """Give what has come to the protocol, record by record."""
        # Flat: every request passes here.
        incoming = self._incoming
        receive = self._protocol.data_received
        while not self._paused and self.state in (TlsState.OPEN, TlsState.FINISHED):
            try:
                # Behind half a record OpenSSL holds more than `incoming` does.
                data = self._decrypt(RECORD if self._starved else incoming.pending or RECORD)
            except ssl.SSLWantReadError:
                self._starved = True
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError:
                self._fail()
                return
            if not data:
                self._client_has_finished()
                break
            self._starved = False
            receive(data)
            if not incoming.pending:
                break  # it was a whole record and the last one: an exception that says so costs as much as a record

    def _client_has_finished(self) -> None:
        """No more will come: a close_notify says so, or the end of the stream below."""
        if not self._has_finished:
            self._has_finished = True
            if not self._protocol.eof_received():
                self.close()

    def _fail(self) -> None:
        """What has come is not what was sent: say so (an alert), and close."""
        self._send_records()
        self.state = TlsState.CLOSING
        if self._transport is not None:
            self._transport.close()

    def _send_records(self) -> None:
        data = self._outgoing.read()
        if data and self._transport is not None:
            self._transport.write(data)

    def eof_received(self) -> bool:
        """The client has closed its side below TLS: as a rule behind its close_notify, else it is cut short."""
        if self.state is TlsState.HANDSHAKE:
            self.give_up(ConnectionResetError("the client has gone in the handshake"))
            return False
        if self.state in (TlsState.OPEN, TlsState.FINISHED):
            self._client_has_finished()
        return self.state in (TlsState.OPEN, TlsState.FINISHED)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport below is gone."""
        was, self.state = self.state, TlsState.CLOSED
        self._transport = None
        if was is TlsState.HANDSHAKE:
            self._handshakes.over(self, exc or ConnectionResetError("the client has gone in the handshake"))
        elif was is not TlsState.CLOSED:
            self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        if self.state is not TlsState.HANDSHAKE:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The client has read."""
        if self.state is not TlsState.HANDSHAKE:
            self._protocol.resume_writing()

    # What the protocol asks for

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes."""
        # Flat: every response passes here.
        transport = self._transport
        if self.state is not TlsState.OPEN or transport is None or not data:
            return
        size = self._encrypt(data)
        if size < len(data):
            self._encrypt_rest(memoryview(data), size)
        if not self._is_held_back:
            transport.write(self._outgoing.read())

    def hold_back(self) -> None:
        """Have what is written wait for the end, which is about to follow: the system gets both in one call.

        It waits until the loop's next turn at most.
        """
        if self.state is TlsState.OPEN:
            self._is_held_back = True
            self._let_go_soon()

    def _let_go_soon(self) -> None:
        if not self._is_let_go_soon:
            self._is_let_go_soon = True
            self._loop.call_soon(self._let_go)

    def _let_go(self) -> None:
        self._is_held_back = self._is_let_go_soon = False
        if self.state in (TlsState.OPEN, TlsState.FINISHED):
            self._send_records()

    def _encrypt_rest(self, data: memoryview, done: int) -> None:
        """A call takes a record at most."""
        data = data.cast("B")
        while done < len(data):
            done += self._encrypt(data[done:])

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several pieces, as one for the system."""
        transport = self._transport
        if self.state is not TlsState.OPEN or transport is None:
            return
        for data in list_of_data:
            if data:
                self._encrypt_rest(memoryview(data), 0)
        if not self._is_held_back:
            transport.write(self._outgoing.read())

    def can_write_eof(self) -> bool:
        """Whether one side may be closed without the other."""
        return True

    def write_eof(self) -> None:
        """Say that no more will be sent, by TLS and below, and go on reading."""
        if self.state is TlsState.OPEN and self._transport is not None:
            self._transport.write(self._farewell())
            with contextlib.suppress(OSError):
                self._transport.write_eof()
            self.state = TlsState.FINISHED

    def farewell(self) -> bytes:
        """Return the bytes that say that no more will be sent (close_notify), for who sends them past the transport.

        What was written before must have been sent. Afterwards nothing can be written.
        """
        if self.state is not TlsState.OPEN:
            return b""
        self.state = TlsState.FINISHED
        return self._farewell()

    def _farewell(self) -> bytes:
        # It would like to see the client's close_notify at once; what has come instead is nobody's any more.
        try:  # noqa: SIM105 - every connection passes here
            self._tls.unwrap()
        except ssl.SSLError:
            pass
        return self._outgoing.read()

    def unread(self) -> bool:
        """Whether bytes have come that the protocol has not been given, those of half a record not counted."""
        return self._incoming.pending > 0 or self._tls.pending() > 0

    def half_a_record(self) -> bool:
        """Whether bytes have come, and more is needed before any of them can be read."""
        return self._starved

    def close(self) -> None:
        """Close behind what was written."""
        if self.state in (TlsState.OPEN, TlsState.FINISHED):
            if self.state is TlsState.OPEN and self._transport is not None and (last := self._farewell()):
                self._transport.write(last)
            self.state = TlsState.CLOSING
            if self._transport is not None:
                self._transport.close()
        elif self.state is TlsState.HANDSHAKE:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        if self.state is TlsState.HANDSHAKE:
            self.give_up(ConnectionAbortedError("given up in the handshake"))
        elif self.state is not TlsState.CLOSED:
            self.state = TlsState.CLOSING
            if self._transport is not None:
                self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or will be."""
        transport = self._transport
        return transport is None or self.state in (TlsState.CLOSING, TlsState.CLOSED) or transport.is_closing()

    def pause_reading(self) -> None:
        """Stop calling `data_received`."""
        self._paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on calling it, beginning with what has come already."""
        self._paused = False
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.resume_reading()
        if self._incoming.pending or self._tls.pending():
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._paused and self._transport is not None:
            self._read()
            if self._outgoing.pending:
                self._send_records()

    def is_reading(self) -> bool:
        """Whether `data_received` is called."""
        return not self._paused and not self.is_closing()

    def get_write_buffer_size(self) -> int:
        """Bytes of the wire that the system has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See `asyncio.WriteTransport`."""
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """See `asyncio.WriteTransport`."""
        return self._transport.get_write_buffer_limits() if self._transport is not None else (0, 0)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol above."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Replace it."""
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.BaseTransport`; of TLS there is what asyncio's has, and `tls_connection`."""
        if name in _OWN:
            return _OWN[name](self)
        return default if self._transport is None else self._transport.get_extra_info(name, default)


_OWN: Final[dict[str, Callable[[TlsConnection], Any]]] = {
    "tls_connection": lambda connection: connection,
    "ssl_object": lambda connection: connection._tls,
    "sslcontext": lambda connection: connection._tls.context,
    "peercert": lambda connection: connection._tls.getpeercert(),
    "cipher": lambda connection: connection._tls.cipher(),
    "compression": lambda _: None,
}
