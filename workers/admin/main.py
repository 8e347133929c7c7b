"""The life of the admin process: listen, look at the scoreboard once a second, answer, leave when the master does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from preforkd.workers import log
from preforkd.workers.admin import status
from preforkd.workers.admin.control import Questions
from preforkd.workers.admin.history import History
from preforkd.workers.admin.metrics import Metrics
from preforkd.workers.admin.pages import Admin, AdminProtocol
from preforkd.workers.admin.processes import Processes, Usage
from preforkd.workers.admin.readiness import ready_workers
from preforkd.workers.admin.settings import AdminSettings
from preforkd.workers.admin.snapshot import Snapshot, read
from preforkd.workers.admin.statsd import Statsd
from preforkd.workers.channel import Answer, Ask, ChannelError, Decoder, Note, encode
from preforkd.workers.examining import Area, Cell, progress
from preforkd.workers.http.connections import connections_of
from preforkd.workers.scoreboard import MasterField, Scoreboard

BACKLOG: Final = 128
LOOK_EVERY: Final = 1.0
"""Seconds between two samples of the last minutes."""
MOST_NOTES: Final = 200
LAST_ANSWERS: Final = 0.5
"""Seconds for the answers that are due when the master is gone."""


def run(settings: AdminSettings, listeners: Sequence[socket.socket], channel: socket.socket, board: Scoreboard) -> int:
    """Answer until the master closes the channel.

    Args:
        settings: what it is told.
        listeners: bound, inherited from the master.
        channel: its end of the channel to the master.
        board: the scoreboard.

    Returns:
        The exit code of the process.
    """
    asyncio.run(AdminServer(settings, listeners, channel, board).serve())
    return 0


class AdminServer:
    """What all connections of the admin process have in common; the arguments are those of `run`."""

    def __init__(
        self, settings: AdminSettings, listeners: Sequence[socket.socket], channel: socket.socket, board: Scoreboard
    ) -> None:
        self.settings = settings
        self._listeners = listeners
        self._channel = channel
        self._board = board
        self._decoder = Decoder()
        self._master = os.getppid()
        self._notes: deque[Note] = deque(maxlen=MOST_NOTES)
        self._history = History()
        self._processes = Processes()
        self._usage: Mapping[int, Usage] = {}
        self._metrics = Metrics(settings)
        self._statsd = Statsd(settings)
        self.questions = Questions(self._ask)

    async def serve(self) -> None:
        """Answer until the master is gone."""
        loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._channel.setblocking(False)
        loop.add_reader(self._channel.fileno(), self._hear)
        loop.add_signal_handler(signal.SIGTERM, self._over.set)
        admin: Admin = self
        protocol = type("AdminConnection", (AdminProtocol,), {"admin": admin})
        servers = [await self._listen(listener, protocol) for listener in self._listeners]
        looking = loop.create_task(self._keep_looking())
        await self._over.wait()
        for server in servers:
            server.close()
        self.questions.end()
        connections = connections_of(loop)
        connections.closing(LAST_ANSWERS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(connections.wait_closed(), LAST_ANSWERS)
        looking.cancel()
        self._statsd.close()

    async def _listen(self, listener: socket.socket, protocol: type[AdminProtocol]) -> asyncio.Server:
        loop = asyncio.get_running_loop()

        def connect() -> asyncio.Protocol:
            return protocol(logger=log.LOGGER, keep_alive=75, timeout=10, body_timeout=10, write_timeout=30)

        if listener.family == socket.AF_UNIX:
            return await loop.create_unix_server(connect, sock=listener, backlog=BACKLOG)
        return await loop.create_server(connect, sock=listener, backlog=BACKLOG)

    async def _keep_looking(self) -> None:
        while True:
            now = time.monotonic()
            self._board.master[MasterField.ADMIN_HEARTBEAT] = int(now * 1e9)
            snapshot = self.look()
            self._usage = self._processes.look([one.pid for one in snapshot.workers if one.pid], now)
            self._history.take(snapshot, time.time(), ready_workers(snapshot))
            self._statsd.push(snapshot)
            log.flush()
            await asyncio.sleep(LOOK_EVERY)

    # The channel

    def _hear(self) -> None:
        try:
            data = self._channel.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except ConnectionError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._over.set()
            return
        try:
            for message in self._decoder.feed(data):
                if isinstance(message, Answer):
                    self.questions.answered(message)
                elif isinstance(message, Note):
                    self._notes.append(message)
            self._follow_log_level()
        except ChannelError:
            log.LOGGER.exception("the master has sent something that is no message")

    def _ask(self, ask: Ask) -> None:
        # A question is a hundred bytes, and the master reads: there is room, or it hangs.
        self._channel.send(encode(ask))

    # What is answered

    def look(self) -> Snapshot:
        """Read the scoreboard."""
        self._follow_log_level()
        return read(self._board, time.monotonic())

    def _follow_log_level(self) -> None:
        """Log from the same level on as the master, which may be another than was configured."""
        log.LOGGER.setLevel(self._board.master[MasterField.LOG_LEVEL] or log.LOGGER.level)

    def examination(self, ident: int) -> dict[str, Any]:
        """Return how far that one has come; 0: the last one."""
        area = Area(self._board)
        living = [one.serial for one in self.look().workers]
        return {"version": status.VERSION, **progress(area, ident or area.order.ident, living, time.monotonic())}

    @property
    def examined(self) -> int:
        """The ident of the last examination."""
        return Area(self._board).order.ident

    def cancel(self, ident: int) -> None:
        """Nobody waits for that one any more: it ends now, with what it has."""
        Area(self._board)[Cell.CANCELLED] = ident

    def status(self) -> dict[str, Any]:
        """Return all that is known."""
        return status.status(
            self.look(),
            self._history,
            self._usage,
            self._notes,
            app=self.settings.app,
            listeners=list(self.settings.listeners),
            master_pid=self._master,
            admin_pid=os.getpid(),
            time=round(time.time(), 3),
        )

    def series(self, since: float) -> dict[str, Any]:
        """Return the last minutes; `since`: only what is newer, seconds since the epoch."""
        return status.series(self._history, since)

    def metrics(self, accept: str) -> tuple[str, bytes]:
        """Return the type and the text of all metrics.

        Args:
            accept: the field of the request.
        """
        return self._metrics.text(self.look(), self._usage, accept)
