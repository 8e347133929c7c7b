"""What a worker serves with: its listeners, the connections that it has accepted, and how both are left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from preforkd.workers.accept import Acceptor
from preforkd.workers.http.states import ConnectionState

if TYPE_CHECKING:
    import ssl

    from preforkd.workers.client_limit import ClientLimit
    from preforkd.workers.forwarded import Networks
    from preforkd.workers.handshakes import Handshakes
    from preforkd.workers.http.connections import Connections, Live
    from preforkd.workers.http.protocol import ServerHttpProtocol
    from preforkd.workers.proxy_protocol import ProxyHeader
    from preforkd.workers.proxy_reader import ProxyReader
    from preforkd.workers.scoreboard import AcceptState

NOT_SENT: Final = 131072
"""Bytes of a connection that wait in the kernel to be sent, at most. It would take megabytes for a client that reads
nothing; what it does not take waits in this process, where limits count."""
LAST_WORDS: Final = 0.1
"""Seconds behind the deadline of a drain for what is written at the deadline, and for handlers that are cancelled."""
HANDSHAKE_GRACE: Final = 1.0
"""Seconds for the rest of a TLS handshake that has begun, when silent clients have been given up in a drain."""
COMPLAIN_EVERY: Final = 10.0
"""Seconds between two log lines about too many connections of a client, or too many handshakes."""


class Server:
    """Accepts on inherited listening sockets and drains what it has accepted.

    Args:
        loop: the running event loop.
        listeners: bound sockets that do not block; each process owns its copy of the descriptor.
        protocol_factory: makes the protocol of a connection.
        connections: the live connections of this loop.
        lent: the descriptors of the listeners that somebody else has lent to this daemon.
        others: tells what the other workers hold, or None when no other takes connections.
        show: is told what is done with the listeners.
        changed: is told the number of connections after each change.
        limit: connections at which nothing more is accepted.
        logger: where trouble is reported.
        tls: by the descriptor of a listener that speaks TLS, what gives the context of its next connection.
        handshake_timeout: seconds for a TLS handshake; 0: for ever.
        proxy: the form of the PROXY header that each connection begins with, and whose header is believed; None: none.
        clients: how many connections a client may hold; None: any number.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: Sequence[socket.socket],
        protocol_factory: Callable[[], ServerHttpProtocol],
        connections: Connections,
        *,
        lent: Collection[int],
        others: Callable[[], tuple[int, int] | None],
        show: Callable[[AcceptState], None],
        changed: Callable[[int], None],
        limit: int,
        logger: logging.Logger,
        tls: Mapping[int, Callable[[], ssl.SSLContext]] | None = None,
        handshake_timeout: float = 0,
        proxy: tuple[str, Networks] | None = None,
        clients: ClientLimit | None = None,
    ) -> None:
        self._loop = loop
        self._listeners = list(listeners)
        self._tls = tls or {}
        self._factory = protocol_factory
        self._connections = connections
        self._changed = changed
        self._logger = logger
        self._clients = clients
        self._counted: dict[Live, bytes] = {}
        """What the client of a connection is counted by, where that is limited."""
        self._complained = -COMPLAIN_EVERY
        self._proxy: ProxyReader | None = None
        if proxy is not None:
            from preforkd.workers.proxy_reader import ProxyReader  # few daemons need it

            self._proxy = ProxyReader(loop, *proxy, then=self._open, closed=self._closed_unopened, logger=logger)
        self._opening: set[asyncio.BaseProtocol | Live] = set()
        """Those that `connection_made` has not been called of: from then on they are among the connections."""
        self._handshakes: Handshakes | None = None
        if self._tls:
            from preforkd.workers.handshakes import Handshakes  # most workers do without the library

            self._handshakes = Handshakes(
                loop,
                handshake_timeout,
                begun=self._opening.discard,
                failed=self._connection_ended,
                complains=self._complains,
                logger=logger,
            )
        self._acceptor = Acceptor(
            loop,
            listeners,
            lent=lent,
            take=self._take,
            held=self.held,
            others=others,
            show=show,
            limit=limit,
            busy=self._handshakes.is_busy if self._handshakes is not None else lambda: False,
            logger=logger,
        )
        connections.began = self._opening.discard
        connections.ended = self._connection_ended

    def held(self) -> int:
        """Return how many connections this worker has accepted and not closed."""
        held = len(self._connections) + len(self._opening)
        if self._handshakes is not None:
            held += len(self._handshakes)
        return held + len(self._proxy) if self._proxy is not None else held

    def listen(self, backlog: int) -> None:
        """Have the kernel queue connections; where another worker listens already that only sets the backlog.

        Raises:
            OSError: the address was taken between bind and listen.
        """
        for listener in self._listeners:
            if listener.family != socket.AF_UNIX:
                if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                    # Inherited by the connections, too: no system call for each.
                    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT)
                # The master binds without it, so that the address is its alone while the app boots. From here on it is
                # inherited by the connections, which then do not keep a next daemon from the port in TIME_WAIT.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.listen(backlog)

    def accept(self) -> None:
        """Begin to accept, or begin again."""
        self._acceptor.accept()

    def stop_accepting(self) -> None:
        """Leave the listeners alone; `accept` begins again."""
        self._acceptor.stop()

    def close_listeners(self, *, take_queued: bool) -> None:
        """Stop accepting for good.

        Args:
            take_queued: accept first what the kernel has queued: no other process will.
        """
        self._acceptor.close(take_queued=take_queued)

    async def drained(self, idle_grace: float, deadline: float) -> None:
        """Wait until every connection is closed; nothing is accepted any more.

        Idle connections stay open for `idle_grace` seconds, so that a request that is on its way is answered; the rest
        have until `deadline`, seconds of the loop's clock.
        """
        grace = min(self._loop.time() + idle_grace, deadline)
        if self._proxy is not None:
            await self._proxy.settled_by(grace)
        while self._opening:  # noqa: ASYNC110 - an event would be set and cleared for every connection
            # Each takes a turn or two of the loop.
            await asyncio.sleep(0)
        await self._closed_by(grace)
        left = deadline - self._loop.time()
        if left > 0:
            if self._handshakes is not None:
                self._handshakes.give_up(only_silent=True)
            # A little more, for timers are not exact: the cut at the deadline is `_cut`'s, which counts it.
            self._connections.closing(left + LAST_WORDS)
            if self._handshakes:
                await self._closed_by(min(self._loop.time() + HANDSHAKE_GRACE, deadline))
                self._handshakes.give_up()
                self._connections.closing(max(deadline - self._loop.time(), 0) + LAST_WORDS)
            await self._closed_by(deadline)
        if self._handshakes is not None:
            self._handshakes.give_up()
        if self._connections:
            await self._cut()

    async def _cut(self) -> None:
        """End what is left, not by the end of the process: handlers are cancelled, half heads get their 408."""
        cut = sum(connection.state is ConnectionState.ACTIVE for connection in self._connections)
        if cut:
            requests = "1 request" if cut == 1 else f"{cut} requests"
            if self._connections.counters is not None:
                self._connections.counters.forced(cut)
            self._logger.warning("cutting %s, not done at the end of --graceful-timeout", requests)
        for connection in self._connections:
            if connection.state in (ConnectionState.IDLE, ConnectionState.CLOSING) and connection.untaken():
                connection.cut()  # its client has not read the last response: nothing of it is left to the kernel
        self._connections.closing(0.0)
        await self._closed_by(self._loop.time() + LAST_WORDS)
        for connection in self._connections:
            connection.cut()  # what it had to say has been written; the loop may not be closed with it
        await self._closed_by(self._loop.time() + LAST_WORDS)

    async def _closed_by(self, deadline: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while self._connections or self._handshakes:
                    await self._connections.wait_closed()
                    if self._handshakes is not None:
                        await self._handshakes.wait_over()

    def _take(self, connection: socket.socket, listener: socket.socket, address: object) -> None:
        """Take an accepted socket."""
        if self._proxy is None:
            self._open(connection, listener, address, None)
        else:
            self._proxy.read(connection, listener, address)
            self._changed(self.held())

    def _open(
        self, connection: socket.socket, listener: socket.socket, address: object, header: ProxyHeader | None
    ) -> None:
        """Make a protocol for an accepted socket, and tell it who the client is: after a reset nobody knows.

        Driven by hand: a task for each connection costs 10 us more, and this one awaits a single future of the loop's.
        uvloop makes the socket non-blocking and sets TCP_NODELAY itself.
        """
        key = self._key_of(address)
        if key is not None and not self._admits(connection, address, key):
            return
        try:
            http = self._factory()
            http.remember_client(address)
            http.proxy_header = header
            protocol: asyncio.BaseProtocol = http
            if self._handshakes is not None and (context := self._tls.get(listener.fileno())):
                protocol = self._handshakes.secure(context(), http)
            opening = self._loop.connect_accepted_socket(lambda: protocol, connection)
            waiter = opening.send(None)
        except Exception as exc:  # noqa: BLE001 - of whatever the app's constructor raises
            if key is not None and self._clients is not None:
                self._clients.ended(key)
            self._not_opened(connection, exc)
            return
        if key is not None:
            self._counted[http] = key
        self._opening.add(protocol)
        self._changed(self.held())
        waiter._asyncio_future_blocking = False  # what a task does with what it is given to wait for
        waiter.add_done_callback(partial(self._opened, opening, protocol, http, connection))

    def _opened(
        self,
        opening: Coroutine[Any, Any, Any],
        protocol: asyncio.BaseProtocol,
        http: ServerHttpProtocol,
        connection: socket.socket,
        _: object,
    ) -> None:
        self._opening.discard(protocol)  # a `connection_made` that does not call its base class's, or has failed
        try:
            opening.send(None)
        except StopIteration:
            pass
        except Exception as exc:  # noqa: BLE001 - of whatever `connection_made` raises
            self._uncount(http)
            self._not_opened(connection, exc)
        else:
            self._uncount(http)
            self._not_opened(connection, RuntimeError("the loop waits for more than it used to"))

    def _key_of(self, address: object) -> bytes | None:
        """What the client of a connection is counted by; None: it is not."""
        if self._clients is None or not isinstance(address, tuple):
            return None
        return self._clients.key_of(str(address[0]))

    def _admits(self, connection: socket.socket, address: object, key: bytes) -> bool:
        """Count a connection of a client; one too many is closed at once, without an answer that would cost more."""
        if self._clients is None or self._clients.admits(key):
            return True
        connection.close()
        self._closed_unopened()
        if self._complains():
            host = address[0] if isinstance(address, tuple) else address
            most = self._clients.most
            self._logger.warning("%s holds %d connections, all that --limit-per-client allows: closed one", host, most)
        return False

    def _complains(self) -> bool:
        """Whether it is time again for a line in the log about too many of something."""
        now = self._loop.time()
        if now - self._complained < COMPLAIN_EVERY:
            return False
        self._complained = now
        return True

    def _uncount(self, connection: Live) -> None:
        key = self._counted.pop(connection, None)
        if key is not None and self._clients is not None:
            self._clients.ended(key)

    def _not_opened(self, connection: socket.socket, exc: Exception) -> None:
        connection.close()
        if isinstance(exc, OSError):
            self._logger.debug("a connection was lost before it was open: %s", exc)  # the client's business
        else:
            self._logger.error("the protocol of a connection could not be made", exc_info=exc)
        self._closed_unopened()

    def _connection_ended(self, connection: Live) -> None:
        if self._counted:
            self._uncount(connection)
        self._closed_unopened()

    def _closed_unopened(self) -> None:
        self._changed(self.held())
        self._acceptor.connection_ended()
