"""Reads the PROXY header of accepted sockets, before anything else looks at them: TLS would begin right behind it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from preforkd.workers.proxy_protocol import ProxyError, ProxyHeader, ProxyParser

if TYPE_CHECKING:
    from preforkd.workers.forwarded import Networks

HEADER_TIMEOUT: Final = 5.0
"""Seconds for the header. A proxy sends it right behind its connect; the specification wants three at least."""
PEEK: Final = 4096
"""Bytes that are looked at at a time. Only those of the header are taken out of the socket."""
LOOK_AGAIN: Final = 0.02
"""Seconds to the next look whether the headers have come, when the worker leaves."""
COMPLAIN_EVERY: Final = 10.0
"""Seconds between two log lines about connections that are closed."""

Then = Callable[[socket.socket, socket.socket, object, ProxyHeader], None]


class ProxyReader:
    """The sockets whose header has not come yet.

    Args:
        loop: the running event loop.
        form: which versions are taken, see `ProxyParser`.
        allowed: whose headers are believed; others are closed.
        then: is given each socket whose header has come, its listener, its address and the header.
        closed: is called after one was closed instead.
        logger: where it is told why.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        form: str,
        allowed: Networks,
        *,
        then: Then,
        closed: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        self._loop = loop
        self._form = form
        self._allowed = allowed
        self._then = then
        self._closed = closed
        self._logger = logger
        self._waiting: dict[socket.socket, asyncio.TimerHandle] = {}
        self._complained = -COMPLAIN_EVERY

    def __len__(self) -> int:
        return len(self._waiting)

    def read(self, connection: socket.socket, listener: socket.socket, address: object) -> None:
        """Read the header of an accepted socket, now if it is there."""
        host = str(address[0]) if isinstance(address, tuple) else None
        if not self._allowed.hold_peer(host):
            self._refuse(connection, f"{host or 'a unix socket'} is not among --proxy-allow-from")
            return
        connection.setblocking(False)
        parser = ProxyParser(self._form)
        if self._is_settled(connection, listener, address, parser):
            return
        self._loop.add_reader(connection.fileno(), self._go_on, connection, listener, address, parser)
        self._waiting[connection] = self._loop.call_later(HEADER_TIMEOUT, self._expire, connection)

    async def settled_by(self, deadline: float) -> None:
        """Wait for the headers that are on their way, and close what is still without one then.

        Args:
            deadline: seconds of the loop's clock.
        """
        while self._waiting and (left := deadline - self._loop.time()) > 0:  # noqa: ASYNC110 - as in `Server.drained()`
            await asyncio.sleep(min(LOOK_AGAIN, left))
        for connection in list(self._waiting):
            self._let_go(connection)
            connection.close()
            self._closed()

    def _go_on(self, connection: socket.socket, listener: socket.socket, address: object, parser: ProxyParser) -> None:
        self._is_settled(connection, listener, address, parser)

    def _is_settled(
        self, connection: socket.socket, listener: socket.socket, address: object, parser: ProxyParser
    ) -> bool:
        """Whether the header has come, or the socket was closed."""
        try:
            seen = connection.recv(PEEK, socket.MSG_PEEK)
            if seen:
                connection.recv(parser.feed(seen))
        except (BlockingIOError, InterruptedError):
            return False
        except ProxyError as exc:
            self._let_go(connection)
            self._refuse(connection, f"no PROXY header of the form {self._form}: {exc}")
            return True
        except OSError as exc:
            seen = b""
            self._logger.debug("a connection was lost before its PROXY header had come: %s", exc)
        header = parser.header
        if seen and header is None:
            return False
        self._let_go(connection)
        if header is None:
            connection.close()  # the client's business, or a check whether the port is open
            self._closed()
        else:
            self._then(connection, listener, header.client or address, header)
        return True

    def _expire(self, connection: socket.socket) -> None:
        self._let_go(connection)
        self._refuse(connection, f"no PROXY header within {HEADER_TIMEOUT:g} s")

    def _let_go(self, connection: socket.socket) -> None:
        timer = self._waiting.pop(connection, None)
        if timer is not None:
            timer.cancel()
            self._loop.remove_reader(connection.fileno())

    def _refuse(self, connection: socket.socket, why: str) -> None:
        with contextlib.suppress(OSError):
            connection.close()
        self._closed()
        now = self._loop.time()
        if now - self._complained >= COMPLAIN_EVERY:
            self._complained = now
            self._logger.warning("closed a connection (--proxy-protocol): %s", why)
