"""The life of a worker: import the app, say ready, serve, drain, exit."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import uvloop

from preforkd.workers import capture, ebb, ending, examination, examining, log, offspring, prometheus, stacks
from preforkd.workers.channel import (
    INTERNAL,
    ChannelError,
    Decoder,
    Drain,
    Failed,
    GotTerm,
    LogLevel,
    Message,
    Pause,
    Ready,
    Renew,
    Reopen,
    Resume,
    Retire,
    Stacks,
    encode,
)
from preforkd.workers.client_limit import ClientLimit
from preforkd.workers.edge import Edge
from preforkd.workers.forwarded import Networks
from preforkd.workers.gateways import StartupError, gateway_for, import_gateway
from preforkd.workers.health import Health, with_health_path
from preforkd.workers.hooks import Hooks, identify
from preforkd.workers.http import compiled
from preforkd.workers.http.access_log import AccessLog
from preforkd.workers.http.clock import clock
from preforkd.workers.http.connections import connections_of
from preforkd.workers.http.fields import call_request_id
from preforkd.workers.http.queue_time import QueueTime
from preforkd.workers.http.slow import SlowRequests
from preforkd.workers.loader import AppError, LoadedApp, load
from preforkd.workers.records import dataclass
from preforkd.workers.recycling import Recycling
from preforkd.workers.request_id import RequestIds
from preforkd.workers.scoreboard import AcceptState, Field, RowState, Scoreboard
from preforkd.workers.server import Server
from preforkd.workers.tally import Tally

if TYPE_CHECKING:
    import ssl

    from preforkd.workers.http.protocol import ServerHttpProtocol
    from preforkd.workers.settings import WorkerSettings
    from preforkd.workers.tls_contexts import Contexts
    from preforkd.workers.ways import Way

HEARTBEAT: Final = 0.25
"""Seconds between two heartbeats."""
INTERNAL_ERROR: Final = 1
BOOT_FAILED: Final = 3
RESPONSES: Final = (
    Field.RESPONSES_1XX,
    Field.RESPONSES_2XX,
    Field.RESPONSES_3XX,
    Field.RESPONSES_4XX,
    Field.RESPONSES_5XX,
)
ORPHAN_IDLE_GRACE: Final = 1.0
"""Seconds for which such a worker keeps idle connections: a new master may be waiting for the port."""
CHECK: Final = "check"
"""The reason that hooks are given in `preforkd --check`."""


def load_app(settings: WorkerSettings) -> LoadedApp:
    """Import the app.

    Raises:
        AppError: it cannot be served; the message is one line and says why.
    """
    app = load(settings.app, interface=settings.interface, factory=settings.factory, app_dir=settings.app_dir)
    _keep_low_descriptors()
    return app


def _keep_low_descriptors() -> None:
    """Open those below 3 that the app has closed: the next connection would get one, and what is printed its client."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free


def rehearse(settings: WorkerSettings) -> LoadedApp:
    """Go through all of a worker's start, and end the app again; there is no master, and nothing is listened on.

    Raises:
        AppError: the app cannot be served; the message is one line and says why.
        BootError: it can be imported, and not be started.
    """
    identify(0, 1)
    hooks = Hooks(0, 1)
    hooks.boot(settings.hooks, settings.app_dir, CHECK)
    app = load_app(settings)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _run_through(Worker(settings, app, Listeners([], frozenset()), theirs, Scoreboard(), 0, hooks).rehearse())
    hooks.run("exit", CHECK)
    return app


def preload(settings: WorkerSettings) -> LoadedApp:
    """Import the app, and what else would be imported later: the workers that are forked then share all of it.

    Raises:
        AppError: it cannot be served; the message is one line and says why.
    """
    prometheus.prepare()
    app = load_app(settings)
    import_gateway(app.interface)
    if settings.max_rss:
        import_module("preforkd.workers.memory")
    return app


@dataclass(frozen=True, slots=True)
class Listeners:
    """What a worker accepts on.

    Attributes:
        sockets: bound, inherited from the master.
        lent: the descriptors of those that somebody else has lent to the daemon, as systemd does.
        tls: the names of the contexts of those that speak TLS, by descriptor.
        contexts: of TLS, None when no address of the daemon speaks it.
    """

    sockets: Sequence[socket.socket]
    lent: frozenset[int]
    tls: Mapping[int, str] = dataclasses.field(default_factory=dict)
    contexts: Contexts | None = None


def run(
    settings: WorkerSettings,
    listeners: Listeners,
    channel: socket.socket,
    board: Scoreboard,
    index: int,
    app: LoadedApp | None = None,
    reason: str = "start",
) -> int:
    """Run a worker until it has been told to drain and has.

    Args:
        settings: the options that it acts on.
        listeners: what it accepts on.
        channel: its end of the channel to the master.
        board: the scoreboard.
        index: of its row.
        app: what to serve, when it has been imported before the fork.
        reason: why it was forked, for the hooks.

    Returns:
        The exit code of the process: 0 after a drain, 3 when the app did not boot.
    """
    row = board.row(index)
    row[Field.PID] = os.getpid()
    row[Field.LOG_LEVEL] = log.LOGGER.level
    row[Field.STATE] = RowState.STARTING
    offspring.possess([channel, *listeners.sockets], board)
    hooks = Hooks(row[Field.SLOT], row[Field.GENERATION])
    try:
        compiled.choose(settings.parser)
        row[Field.STATE] = RowState.LOADING
        if app is None:
            prometheus.prepare()
        prometheus.begin(index, board.free_rows())
        hooks.boot(settings.hooks, settings.app_dir, reason)
        if app is None:
            app = load_app(settings)
        row[Field.STATE] = RowState.STARTING
        offspring.end_if_strayed()
        worker = Worker(settings, app, listeners, channel, board, index, hooks, reason)
        _run_through(worker.serve())
    except AppError as exc:
        return _not_booted(channel, hooks, Failed("import", str(exc), exc.details))
    except BootError as exc:
        return _not_booted(channel, hooks, Failed(exc.stage, str(exc), exc.details))
    except Exception as exc:
        if row[Field.STATE] not in (RowState.STARTING, RowState.LOADING):
            raise
        why = Failed(INTERNAL, f"{type(exc).__name__}: {exc}", traceback.format_exc())
        return _not_booted(channel, hooks, why, INTERNAL_ERROR)
    hooks.run("exit", worker.leaves_for)
    prometheus.end()
    ending.run_exit_functions()
    capture.finish()
    return 0


def _not_booted(channel: socket.socket, hooks: Hooks, why: Failed, code: int = BOOT_FAILED) -> int:
    """Undo what the first hook has done, and tell the master, which ends this process then."""
    hooks.run("exit", "failed")
    channel.sendall(encode(why))
    return code


def _run_through(serving: Coroutine[Any, Any, None]) -> None:
    """Run a loop until this has ended, whatever else ends in it.

    A task that raises `SystemExit` stops the loop, of asyncio and of uvloop, be it one that the app has made for a part
    of one request (as middleware of Starlette does). The others know nothing of that and go on.
    """
    with offspring.event_loop(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        loop = runner.get_loop()
        task = loop.create_task(serving)
        while not task.done():
            try:
                loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as exc:
                offspring.end_if_strayed(exc)
                if not task.done():
                    log.LOGGER.error("a task raised %s: the worker goes on", type(exc).__name__, exc_info=exc)
        task.result()


async def sleep_until(when: float) -> None:
    """Let the loop turn, once at least, until the monotonic clock says `when` or more.

    A sleep alone may end a millisecond too early: uvloop's timers count in whole ones.
    """
    await asyncio.sleep(when - time.monotonic())
    while (left := when - time.monotonic()) > 0:  # noqa: ASYNC110 - it is time that is waited for
        await asyncio.sleep(left)


class BootError(Exception):
    """The worker cannot serve.

    Args:
        stage: of the boot.
        text: why, in one line.
        details: the traceback, when code of the app has raised.
    """

    def __init__(self, stage: str, text: str, details: str = "") -> None:
        super().__init__(text)
        self.stage = stage
        self.details = details


class Worker:
    """One serving process, from its event loop's first turn to its last."""

    def __init__(
        self,
        settings: WorkerSettings,
        app: LoadedApp,
        listeners: Listeners,
        channel: socket.socket,
        board: Scoreboard,
        index: int,
        hooks: Hooks,
        reason: str = CHECK,
    ) -> None:
        self._settings = settings
        self._hooks = hooks
        self._reason = reason
        self.leaves_for = ""
        """Why it drains, for the hooks; empty: it does not."""
        self._gateway = gateway_for(app, settings)
        self._handler: Callable[..., ServerHttpProtocol] = (
            self._gateway.handler if self._gateway is not None else app.app
        )
        self._listeners = listeners
        self._channel = channel
        self._board = board
        self._index = index
        self._row = board.row(index)
        self._master = os.getppid()
        self._decoder = Decoder()
        self._context = copy_context()
        """Of the heartbeat: a timer without one makes a new one each time, in memory that connections leave."""
        self._leaving: asyncio.Task[None] | None = None
        """What a pause, a drain or the master's death has started; a later order replaces an earlier one."""
        self._tally: Tally | None = None
        self._retiring = False
        """It has asked to be replaced."""
        self._has_term = False
        """It has got a TERM, and told its master."""

    async def rehearse(self) -> None:
        """Start as for serving, and end."""
        await self._start()
        await self._end(self._loop.time() + self._settings.shutdown_timeout)

    async def serve(self) -> None:
        """Accept and answer until a drain is over."""
        await self._start()
        self._server = Server(
            self._loop,
            self._listeners.sockets,
            self._make_protocol,
            self._connections,
            lent=self._listeners.lent,
            others=self._others,
            show=self._show_accepting,
            changed=self._show_connections,
            limit=self._settings.limit_connections,
            logger=log.LOGGER,
            tls=self._contexts(),
            handshake_timeout=self._settings.handshake_timeout,
            proxy=self._proxy(),
            clients=self._client_limit(),
        )
        self._channel.setblocking(False)
        self._loop.add_reader(self._channel.fileno(), self._read_channel)
        self._loop.add_signal_handler(signal.SIGTERM, self._terminate)
        offspring.claim(signal.SIGTERM)
        self._hooks.run("ready", self._reason)
        self._server.listen(self._settings.backlog)
        self._server.accept()
        self._recycling = Recycling(self._settings, time.monotonic())
        self._ebb = ebb.Ebb(time.monotonic())
        self._beat(time.monotonic_ns())
        self._row[Field.STATE] = RowState.READY
        self._tell(Ready())
        await self._over.wait()
        await self._end(min(self._loop.time(), self._drained_by) + self._settings.shutdown_timeout)
        self._copy_counters()

    async def _start(self) -> None:
        """Prepare everything but the listeners, and have the app start."""
        self._loop = asyncio.get_running_loop()
        offspring.loop_runs(self._forked)
        stacks.install(self._loop, lambda: self._row[Field.HEARTBEAT], lambda text: self._tell(Stacks(text)))
        offspring.claim(stacks.SIGNAL)
        examination.install(self._loop, _run_through.__code__, self._board, self._row)
        offspring.claim(examining.SIGNAL)
        self._over = asyncio.Event()
        self._connections = connections_of(self._loop)
        self._health = Health()
        if self._settings.health_path:
            self._handler = with_health_path(self._handler, self._settings.health_path, self._health)
        clock.name_server(self._settings.server_header)
        self._connections.limit_concurrency = self._settings.limit_concurrency
        if self._settings.slow_request:
            self._connections.slow = SlowRequests(self._settings.slow_request, log.LOGGER)
        if self._settings.counting:
            self._connections.counters = self._tally = Tally(self._row)
        if self._settings.limit_queue_time:
            self._connections.queue_time = QueueTime(self._loop, self._settings.limit_queue_time)
        call_request_id(self._settings.request_id_header)
        self._connections.edge = self._edge()
        self._access_log = self._open_access_log()
        self._row[Field.STATE] = RowState.LOADING
        self._make_protocol = self._maker()
        self._try_protocol()
        await self._start_app()
        self._row[Field.STATE] = RowState.STARTING

    def _forked(self) -> None:
        """Leave the loop in a process that the app has forked: what comes back to it has come to its end."""
        asyncio._set_running_loop(None)
        examination.forked()
        self._loop.call_soon(offspring.end)
        self._loop.call_soon_threadsafe = offspring.end_with  # type: ignore[method-assign]  # by a thread of the app's
        if self._tally is not None:
            self._tally.let_go()

    async def _end(self, end_by: float) -> None:
        """Have the app shut down, and write the last lines.

        Args:
            end_by: when all of it has to be over, seconds of the loop's clock.
        """
        if self._gateway is not None:
            await self._gateway.shutdown(end_by - self._loop.time())
        if self._access_log is not None:
            self._access_log.close()
        ending.limit(end_by - self._loop.time())

    def _edge(self) -> Edge:
        settings = self._settings
        ids = RequestIds(settings.request_id_header) if settings.request_id_header else None
        return Edge(settings.forwarded, settings.forwarded_allow_ips, ids)

    def _proxy(self) -> tuple[str, Networks] | None:
        settings = self._settings
        if settings.proxy_protocol == "off":
            return None
        return settings.proxy_protocol, Networks(settings.proxy_allow_from)

    def _client_limit(self) -> ClientLimit | None:
        settings = self._settings
        if not settings.limit_per_client:
            return None
        proxies = settings.forwarded_allow_ips
        if settings.proxy_protocol != "off":
            proxies += settings.proxy_allow_from
        return ClientLimit(settings.limit_per_client, Networks(proxies))

    def _contexts(self) -> dict[int, Callable[[], ssl.SSLContext]]:
        """What gives the TLS context of the next connection, by the descriptor of its listener."""
        contexts = self._listeners.contexts
        if contexts is None:
            return {}
        self._renew()  # its mold may be older than the certificates
        return {fd: partial(contexts.context, name) for fd, name in self._listeners.tls.items()}

    def _renew(self) -> None:
        """Serve new connections by the certificates that the master has now."""
        contexts = self._listeners.contexts
        if contexts is not None:
            try:
                contexts.renew()
            except Exception:  # noqa: BLE001 - the master has tried them out: this cannot happen, and must end no worker
                log.LOGGER.exception("the new certificates are not taken over")

    def _open_access_log(self) -> AccessLog | None:
        settings = self._settings
        if not settings.access_log:
            return None
        to_output = settings.access_log_file == "-"
        target: Way | str = log.standard_output() if to_output else settings.access_log_file
        if settings.log_config:
            from preforkd.workers import log_config  # few workers need it

            logger = log_config.access_logger()
            if logger is not None:
                target, to_output = log_config.LoggerWay(logger), False
        try:
            return AccessLog(
                target,
                settings.access_log_format,
                as_json=settings.log_format == "json",
                loop=self._loop,
                logger=log.LOGGER,
                skip=settings.access_log_skip,
                colours=to_output and log.output_has_colours(),
            )
        except OSError as exc:
            raise BootError("access_log_file", f"{settings.access_log_file} cannot be opened: {exc.strerror}") from exc

    def _try_protocol(self) -> None:
        """Make one protocol for nobody: an app whose constructor fails must not become ready."""
        try:
            self._make_protocol()
        except Exception as exc:
            text = f"{self._settings.app} cannot be made: {type(exc).__name__}: {exc}"
            raise BootError("protocol", text, traceback.format_exc()) from exc

    async def _start_app(self) -> None:
        """Have the app start before anything is accepted. The master ends this process if that takes too long."""
        try:
            if self._gateway is not None:
                await self._gateway.startup()
        except StartupError as exc:
            raise BootError("lifespan", str(exc), exc.details) from exc

    def _maker(self) -> Callable[[], ServerHttpProtocol]:
        """Return what makes the protocol of a connection."""
        settings = self._settings
        return partial(
            self._handler,
            loop=self._loop,
            keep_alive=settings.keep_alive,
            timeout=settings.header_timeout,
            debug=settings.debug,
            logger=log.LOGGER,
            access_log=self._access_log,
            access_log_format=settings.access_log_format,
            body_timeout=settings.body_timeout,
            write_timeout=settings.write_timeout,
            request_timeout=settings.request_timeout,
            disconnect_timeout=settings.disconnect_timeout,
            keep_alive_requests=settings.keep_alive_requests,
            limit_request_line=settings.limit_request_line,
            limit_headers=settings.limit_headers,
            limit_header_size=settings.limit_header_size,
            limit_body=settings.limit_body,
        )

    # What the master says

    def _tell(self, message: Message) -> None:
        try:
            self._channel.send(encode(message))
        except OSError as exc:
            log.LOGGER.warning("the master cannot be told %s: %s", type(message).__name__, exc)

    def _read_channel(self) -> None:
        try:
            data = self._channel.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except ConnectionError:
            data = b""
        if not data:
            self._orphaned()
            return
        try:
            for message in self._decoder.feed(data):
                self._obey(message)
        except ChannelError:
            log.LOGGER.exception("the master has sent something that is no message")

    def _obey(self, message: Message) -> None:
        match message:
            case Drain(accept_until, deadline, final):
                self._health.ready = not final
                self._begin_to_leave("stop" if final else self._why_replaced())
                self._leave(self._drain(accept_until, deadline, self._settings.idle_grace, take_queued=final))
            case Pause(deadline):
                self._begin_to_leave("reload")
                self._leave(self._pause(deadline))
            case Resume():
                self._resume()
            case Reopen():
                self._reopen_logs()
            case Renew():
                self._renew()
            case LogLevel(level):
                self._row[Field.LOG_LEVEL] = log.override_level(level)
            case _:
                log.LOGGER.error("the master has sent %r, which is no order", message)

    def _reopen_logs(self) -> None:
        if self._access_log is not None:
            try:
                self._access_log.reopen()
            except OSError as exc:
                log.LOGGER.error("the access log goes on in the old file, for the new one cannot be opened: %s", exc)

    def _terminate(self) -> None:
        """Ask the master what a TERM means: somebody wants this worker to go, or the whole daemon, as he has told all.

        If the master is dead it is from the kernel, and says so.
        """
        if os.getppid() != self._master:
            self._orphaned()
            return
        self._has_term = True
        self._tell(GotTerm())

    def _orphaned(self) -> None:
        """The master is gone, and a new one may want the port: leave it at once, and finish what has been accepted."""
        if self._channel.fileno() < 0:
            return  # the end of the channel and the kernel's TERM both say so
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        log.LOGGER.error("the master is gone: finishing the requests in flight")
        self._health.ready = False
        self._begin_to_leave("orphan")
        now = time.monotonic()
        deadline = now + self._settings.graceful_timeout
        self._leave(self._drain(now, deadline, min(ORPHAN_IDLE_GRACE, self._settings.idle_grace), take_queued=True))

    # Leaving

    def _why_replaced(self) -> str:
        """Why this worker alone is to go; one that stood by keeps the reason for that."""
        return "retire" if self._retiring else "term" if self._has_term else "surplus"

    def _begin_to_leave(self, reason: str) -> None:
        if self.leaves_for:
            return
        self.leaves_for = reason
        held = self._server.held()
        connections = "1 connection" if held == 1 else f"{held} connections"
        log.event("info", "drain", f"draining ({reason}): {connections}", {"reason": reason, "connections": held})
        self._hooks.run("drain", reason)

    def _leave(self, way: Coroutine[Any, Any, None]) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
        self._leaving = self._loop.create_task(way)

    async def _drain(self, accept_until: float, deadline: float, idle_grace: float, *, take_queued: bool) -> None:
        self._row[Field.STATE] = RowState.DRAINING
        self._connections.drain()
        await sleep_until(accept_until)
        self._server.close_listeners(take_queued=take_queued)
        loop_deadline = self._loop.time() + deadline - time.monotonic()
        if self._gateway is not None:
            self._gateway.drain(loop_deadline)
        self._drained_by = loop_deadline
        await self._server.drained(idle_grace, loop_deadline)
        if self._gateway is not None:
            await self._gateway.finish(loop_deadline)
        self._over.set()

    async def _pause(self, deadline: float) -> None:
        self._row[Field.STATE] = RowState.DRAINING
        self._connections.drain()
        self._server.stop_accepting()
        loop_deadline = self._loop.time() + deadline - time.monotonic()
        if self._gateway is not None:
            self._gateway.drain(loop_deadline)
        await self._server.drained(self._settings.idle_grace, loop_deadline)

    def _retire_in_time(self, now: float) -> None:
        """Ask to be replaced when a limit is reached; this goes on serving until the successor is ready."""
        if self._retiring or self._leaving is not None:
            return
        why = self._recycling.reason(self._connections.requests, now)
        if why is not None:
            self._retiring = True
            self._tell(Retire(why))

    def _resume(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        self._retiring = False  # while it stood by, nobody would have listened
        self._connections.resume()
        if self._gateway is not None:
            self._gateway.resume()
        self.leaves_for = ""
        self._hooks.run("ready", "resume")
        self._server.accept()
        self._row[Field.STATE] = RowState.READY
        if self._has_term:
            self._tell(GotTerm())  # to stand by was not to go

    # The scoreboard

    def _beat(self, due: int) -> None:
        """Show that the loop turns. `due`: when this beat should have come, nanoseconds."""
        now = time.monotonic_ns()
        self._row[Field.HEARTBEAT] = now
        self._row[Field.LOOP_LAG] = max(now - due, 0)
        # The next beat first: whatever fails below, this worker must not be taken for one that hangs.
        self._loop.call_later(HEARTBEAT, self._beat, now + int(HEARTBEAT * 1e9), context=self._context)
        log.flush()
        self._copy_counters()
        self._retire_in_time(now / 1e9)
        if self._ebb.is_low(self._server.held(), now / 1e9):
            ebb.give_back()

    def _others(self) -> tuple[int, int] | None:
        return self._board.others(self._index)

    def _show_accepting(self, state: AcceptState) -> None:
        self._row[Field.ACCEPTING] = state

    def _show_connections(self, held: int) -> None:
        self._row[Field.CONNECTIONS] = held

    def _copy_counters(self) -> None:
        row, connections = self._row, self._connections
        row[Field.ACTIVE] = connections.active
        row[Field.ACCEPTED] = connections.accepted
        row[Field.REQUESTS] = connections.requests
        row[Field.BYTES_SENT] = connections.bytes_sent
        row[Field.LOST_LINES] = log.lost()
        row[Field.LOST_ACCESS_LINES] = 0 if self._access_log is None else self._access_log.lost
        for field, number in zip(RESPONSES, connections.responses[1:], strict=False):
            row[field] = max(number, 0)  # the class that is left over may be reckoned in the middle of a request
        if self._tally is not None:
            self._tally.beat(connections if connections.active else ())
