"""The loop of the master: wait, turn what happened into an event, let the policy decide, carry its actions out.

Nothing here blocks but the wait itself, and nothing here decides. The master never imports the app, runs no event
loop, and has one thread: that is what makes its forks safe.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import setproctitle

from preforkd.daemon import inherited, queues, signals
from preforkd.daemon import listeners as listening
from preforkd.daemon.actions import (
    Action,
    Announce,
    CloseListeners,
    Commit,
    DumpStacks,
    Examine,
    Exit,
    Fork,
    ForkNoMore,
    Kill,
    Log,
    ReopenLogs,
    RollBack,
    Send,
    SetLogLevel,
    Show,
)
from preforkd.daemon.admin import Admins, Instance, Plan
from preforkd.daemon.children import Children, Link
from preforkd.daemon.config import Config, ConfigError
from preforkd.daemon.desk import Desk, Hands
from preforkd.daemon.events import (
    Event,
    HaltAsked,
    HeartbeatsRead,
    ReloadAsked,
    ReloadRefused,
    ReopenAsked,
    ScaleAsked,
    Started,
    StopAsked,
    TimePassed,
)
from preforkd.daemon.listeners import BindError, Listener
from preforkd.daemon.mold import Mold
from preforkd.daemon.oom import OomKills
from preforkd.daemon.pidfile import PidFile
from preforkd.daemon.policy import next_deadline, step
from preforkd.daemon.privileges import set_umask
from preforkd.daemon.report import Report
from preforkd.daemon.roles import be_admin, be_mold, be_worker
from preforkd.daemon.service import Service
from preforkd.daemon.setup import Setup
from preforkd.daemon.slots import Generation
from preforkd.daemon.systemd import Systemd
from preforkd.daemon.turn import Phase, State
from preforkd.daemon.upgrade import UPGRADABLE, Handover, Progress, Upgrade
from preforkd.daemon.values import AUTO
from preforkd.daemon.watching import Watch, Watcher
from preforkd.workers import examining, log
from preforkd.workers.channel import Note, Renew
from preforkd.workers.examining import Area
from preforkd.workers.http.built import parser_is_built
from preforkd.workers.loader import describe
from preforkd.workers.records import dataclass
from preforkd.workers.scoreboard import Field, MasterField, Scoreboard

WATCH_EVERY: Final = 0.5
"""Seconds between two readings of the heartbeats."""
LOOK_AT_CERTIFICATES: Final = 1.0
"""Seconds between two looks at the files of certificates."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the daemon comes from, for when it is to be made anew.

    Attributes:
        reload: reads the configuration from the same sources as at the start; may raise ConfigError.
        environ: the environment that it was started with.
        folder: the folder that it was started in, by the name that the user knows it by.
        wakeup: the descriptor in which each signal arrives as a byte.
        systemd: what systemd has said in the environment; nothing of it is there any more.
    """

    reload: Callable[[], Config]
    environ: Mapping[str, str]
    folder: str
    wakeup: int
    systemd: Systemd


def run(
    config: Config,
    bound: Sequence[Listener],
    origin: Origin,
    pid_file: PidFile | None = None,
    handover: Handover | None = None,
) -> int:
    """Serve until told to stop.

    Args:
        config: the options.
        bound: the listeners, bound and not yet listening; the master closes them.
        origin: where the daemon comes from.
        pid_file: to be written when the daemon is ready; it can be.
        handover: what the program before this one has left; `bound` is empty then.

    Returns:
        The exit code of the process.
    """
    listeners = tuple(bound) if handover is None else handover.listeners
    service = Service(origin.systemd, pid_file, serving=handover is not None)
    master = Master(Setup.of(config, listeners), origin, service, handover)
    try:
        return master.serve()
    except Exception:  # noqa: BLE001 - whatever it is, no worker may be left behind
        log.LOGGER.critical("the master has failed: this is a bug in preforkd", exc_info=True)
        master.kill_all()
        service.end()
        return 1
    finally:
        log.finish()


def _generation(config: Config, number: int) -> Generation:
    options = config.options
    return Generation(
        number=number,
        size=options.workers,
        # The policy reckons "auto" itself, so that it follows TTIN and TTOU.
        surge=0 if config.asked["surge"] == AUTO else options.surge,
        startup_timeout=options.startup_timeout,
        stall_timeout=options.stall_timeout,
        drain_delay=options.drain_delay,
        graceful_timeout=options.graceful_timeout,
        shutdown_timeout=options.shutdown_timeout,
        development=options.reload,
        trial=options.trial,
        trial_workers=options.trial_workers,
        trial_errors=options.trial_errors,
    )


def _generations(state: State) -> set[int]:
    """Return the generations that workers may still be forked for."""
    return {state.target.number, *(() if state.committed is None else (state.committed.number,))}


class Master:
    """The shell around the policy."""

    def __init__(self, setup: Setup, origin: Origin, service: Service, handover: Handover | None) -> None:
        self._state = State(target=_generation(setup.config, 1)) if handover is None else handover.state
        self._setups = dict.fromkeys((1,) if handover is None else _generations(handover.state), setup)
        self._current = setup
        self._origin = origin
        self._service = service
        self._scoreboard = Scoreboard() if handover is None else handover.scoreboard
        self._upgrade = Upgrade(origin.environ, origin.folder)
        self._events: deque[Event] = deque()
        self._exit_code: int | None = None
        self._watched = time.monotonic()
        self._look_at_certificates = 0.0
        self._selector = selectors.DefaultSelector()
        self._selector.register(origin.wakeup, selectors.EVENT_READ)
        self._oom_kills = OomKills()
        self._children = Children(self._selector, self._oom_kills.claim)
        self._watcher = Watcher(self._selector, self._private_of_watcher)
        for link in handover.links if handover is not None else ():
            self._children.adopt(link)
        self._report = Report(self._scoreboard, time.monotonic())
        self._admins = Admins(self._selector, self._scoreboard, self._live_admin, self._private_of_admin)
        area = Area(self._scoreboard)
        hands = Hands(lambda: self._state, self._handle, self._read_config, self._start_upgrade, self._upgrade, area)
        self._desk = Desk(self._admins, hands)
        self._admin_plan = setup.admin_plan()

    def serve(self) -> int:
        """Run the loop until the policy says exit."""
        self._configure(self._current)
        if self._state.phase is Phase.NEW:
            self._admins.follow(self._admin_plan, time.monotonic())  # first: it tells how the boot goes
            self._handle(Started(time.monotonic()))
        else:
            self._go_on()
        self._follow()
        while self._exit_code is None:
            ready = self._selector.select(self._patience())
            # First, whether they have woken it or not: what workers say of a signal to all is understood by it.
            self._read_signals()
            for key, _ in ready:
                if isinstance(key.data, Link):
                    self._events += self._children.read(key.data)
                elif isinstance(key.data, Mold):
                    key.data.flush()
                elif isinstance(key.data, Watcher):
                    self._reload_for(key.data.changed())
                elif isinstance(key.data, Instance):
                    self._desk.hear(key.data)
            self._watch()
            self._renew_certificates()
            self._handle(TimePassed(time.monotonic()))
            self._follow()
            log.flush()
            self._see_to_upgrade()
        return self._exit_code

    def _follow(self) -> None:
        """Show to the outside what is new."""
        now = time.monotonic()
        self._service.follow(self._state, now)
        self._report.follow(self._state, now)
        self._desk.settle(self._state, now)
        if self._state.phase is not Phase.GONE:
            self._admins.follow(self._admin_plan, now)

    def _go_on(self) -> None:
        """Begin as the program that has replaced another: its workers serve until the new ones are ready."""
        log.LOGGER.info("upgrade: this is the new program, with %d workers of the old one", len(self._children))
        self._service.reload_asked(self._state)
        now = time.monotonic()
        self._events += self._children.reap(self._stranger_ended)
        try:
            setup = self._open_listeners(self._current.config)
        except BindError as exc:
            for error in exc.errors:
                log.LOGGER.error("upgrade: %s; going on without that address", error)
            setup = self._current
        self._setups[self._state.next_generation] = setup
        self._handle(ReloadAsked(now, _generation(setup.config, 0)))

    def kill_all(self) -> None:
        """Leave no worker behind after a failure of the master itself."""
        self._children.kill_all()
        self._watcher.end()
        self._admins.kill_all()

    def _patience(self) -> float | None:
        """How long the next wait may be, seconds: until a deadline, or until the heartbeats are due."""
        now = time.monotonic()
        deadline = next_deadline(self._state, now)
        times = [] if deadline is None else [deadline]
        if self._children:
            times.append(self._watched + WATCH_EVERY)
        if log.waits():
            times.append(now + log.FLUSH_AGAIN)
        others = (self._upgrade.deadline, self._service.next_deadline(), self._admins.next_deadline(now))
        times += [due for due in others if due is not None]
        # The clock of the selector has milliseconds: without the one added, a deadline would be polled for.
        return max(min(times) - now, 0.0) + 0.001 if times else None

    def _handle(self, event: Event) -> None:
        """Feed the policy this event after those that have come before it, and carry out what it decides."""
        self._events.append(event)
        self._step()

    def _step(self) -> None:
        while self._events:
            self._state, actions = step(self._state, self._events.popleft())
            self._report.announce(self._state)
            for action in actions:
                self._carry_out(action)

    # What happened

    def _read_signals(self) -> None:
        now = time.monotonic()
        for signum in signals.read(self._origin.wakeup):
            match signum:
                case signal.SIGTERM | signal.SIGINT:
                    self._events.append(StopAsked(now, signum, delay=signum == signal.SIGTERM))
                case signal.SIGQUIT:
                    self._events.append(HaltAsked(now, signum))
                case signal.SIGHUP:
                    self._read_config(now)
                case signal.SIGUSR1:
                    self._events.append(ReopenAsked(now))
                case signal.SIGTTIN | signal.SIGTTOU:
                    self._events.append(ScaleAsked(now, 1 if signum == signal.SIGTTIN else -1))
                case signal.SIGUSR2:
                    self._start_upgrade()
                case signal.SIGCHLD:
                    self._step()
                    self._drop_upgrade()
                    self._events += self._children.reap(self._stranger_ended)
                case _:
                    log.LOGGER.debug("%s is not for the master", signum.name)

    def _read_config(self, now: float) -> None:
        """Prepare a reload: whatever is wrong is found before anything has changed."""
        if self._state.phase in (Phase.LEAVING, Phase.STOPPING, Phase.HALTING):
            return
        self._step()  # what came before decides which generation is the next
        self._service.reload_asked(self._state)
        try:
            config = self._origin.reload()
            setup = self._open_listeners(config)
        except (ConfigError, BindError) as exc:
            self._handle(ReloadRefused(now, tuple(exc.errors)))
            return
        number = self._state.next_generation
        self._setups[number] = setup
        self._handle(ReloadAsked(now, _generation(config, number)))

    def _reload_for(self, changed: str | None) -> None:
        if changed is not None:
            log.LOGGER.info("reload: %s was saved", changed)
            self._read_config(time.monotonic())

    def _open_listeners(self, config: Config) -> Setup:
        plan = listening.plan(self._all_listeners(), (*config.options.bind, *config.options.admin))
        set_umask(config.options.umask)
        opened = listening.bind_all(plan.open, self._origin.systemd.activation, config.identity)
        for listener in opened:
            log.LOGGER.info("reload: %s is bound", listener.url)
        return Setup.of(config, (*plan.keep, *opened))

    def _stranger_ended(self, pid: int, status: int) -> None:
        is_ours = self._upgrade.ended(pid, status) or self._admins.reaped(pid, status) or self._watcher.reaped(pid)
        if not is_ours:
            log.LOGGER.debug("reaped process %d, which is not a worker", pid)

    def _start_upgrade(self) -> None:
        if self._state.phase in UPGRADABLE:
            self._upgrade.start(self._current.config.options.startup_timeout)
        else:
            log.LOGGER.warning("upgrade refused: the daemon is %s", self._state.phase.value)

    def _drop_upgrade(self) -> None:
        """Give an upgrade up if the daemon stops meanwhile."""
        if self._state.phase not in UPGRADABLE:
            self._upgrade.give_up(f"the daemon is {self._state.phase.value}")

    def _see_to_upgrade(self) -> None:
        """Replace the program if that is due, after all that has happened has been dealt with."""
        self._drop_upgrade()
        deadline = self._upgrade.deadline
        if deadline is not None and deadline <= time.monotonic():
            self._upgrade.give_up("the new program was not tried within --startup-timeout and 10 s more")
        elif self._upgrade.progress is Progress.DUE:
            self._children.end_molds()  # the new program would not know them
            self._watcher.end()
            links = tuple(self._children.links())
            certificates = self._current.config.certificates
            memory = None if certificates is None else certificates.contexts.descriptor
            handover = Handover(self._state, tuple(self._all_listeners()), links, self._scoreboard, memory)
            self._origin.systemd.activation.pass_on(True)
            self._upgrade.carry_out(handover, self._origin.wakeup)
            self._origin.systemd.activation.pass_on(False)  # it has failed
            self._watch_files()

    def _watch(self) -> None:
        """Read the heartbeats, when it is time to."""
        now = time.monotonic()
        if now - self._watched < WATCH_EVERY:
            return
        self._watched = now
        self._oom_kills.look(now)
        if self._current.config.options.counting:
            self._report.lost(log.lost())
            self._report.queues([queues.length(one.socket) for one in self._current.listeners])
        beats = self._children.heartbeats()
        before = {worker.serial: worker.beat for worker in self._state.workers.values()}
        still = [serial for serial, beat in beats.items() if beat == before.get(serial)]
        self._events.append(HeartbeatsRead(now, beats, self._children.frozen(still), self._children.answers()))

    def _renew_certificates(self) -> None:
        """Load certificates whose files have changed, and have the workers take them over, when it is time to look."""
        now = time.monotonic()
        if now < self._look_at_certificates:
            return
        self._look_at_certificates = now + LOOK_AT_CERTIFICATES
        for certificates in {setup.config.certificates for setup in (self._current, *self._setups.values())}:
            if certificates is not None and certificates.look(now):
                self._children.send_all(Renew())
        served = self._current.config.certificates
        self._report.certificate(0.0 if served is None else served.expires)

    # What is done

    def _carry_out(self, action: Action) -> None:
        match action:
            case Fork():
                self._fork(action)
            case Send(serial, message):
                self._children.send(serial, message)
            case Kill(serial, signum):
                self._events += self._children.kill(serial, signum)
            case DumpStacks(serial):
                self._events += self._children.kill(serial, signal.SIGUSR2)
            case Examine(serial, order):
                Area(self._scoreboard).ask(serial, order, time.monotonic())
                self._events += self._children.kill(serial, examining.SIGNAL)
            case SetLogLevel(level):
                self._override_log_level(level)
            case Announce():
                self._announce()
            case Commit(generation):
                self._commit(generation)
            case RollBack(generation):
                self._roll_back(generation)
            case ForkNoMore():
                self._children.end_molds()
            case CloseListeners():
                self._close_listeners()
            case ReopenLogs():
                log.LOGGER.info("logs are reopened by the workers")
            case Log(level, text, event, fields):
                log.event(level, event, text, fields)
                self._admins.note_unlogged(level, text)
            case Show(level, text):
                self._admins.note(Note(time.time(), level, text))
            case Exit(code):
                self._children.leave_no_mold()
                self._leave_no_admin()
                self._watcher.end()
                log.event("info", "exit", f"the master ends with exit code {code}", {"exit_code": code})
                self._exit_code = code

    def _fork(self, action: Fork) -> None:
        setup = self._setups[action.generation]
        self._scoreboard.used = max(self._scoreboard.used, action.row + 1)
        row = self._scoreboard.settle(action.row)
        row[Field.SLOT] = action.slot
        row[Field.GENERATION] = action.generation
        row[Field.SERIAL] = action.serial + 1
        row[Field.FORKED] = time.monotonic_ns()

        worker = partial(be_worker, setup.config, setup.listeners, self._scoreboard, action)
        mold = partial(be_mold, setup.config, setup.listeners, self._scoreboard, action.generation)
        preload = mold if setup.config.options.preload else None
        failed = self._children.fork(action, row, worker, partial(self._private, setup), preload)
        if failed is not None:
            self._events.append(failed)

    def _private(self, setup: Setup) -> list[int]:
        """The descriptors that a worker of this set-up must not have."""
        others = [one.socket.fileno() for one in self._all_listeners() if one not in setup.listeners]
        keys = self._keys_of_others(setup)
        return [*self._own_descriptors(), *(fd for fd in (*others, *keys) if fd >= 0), *self._admins.descriptors()]

    def _own_descriptors(self) -> list[int]:
        """The descriptors that no forked process must have."""
        selector = self._selector.fileno() if isinstance(self._selector, selectors.EpollSelector) else -1
        passed = self._origin.systemd.activation.descriptors()
        own = (self._origin.wakeup, selector, *passed, *self._watcher.descriptors())
        return [fd for fd in own if fd >= 0]

    def _keys_of_others(self, setup: Setup) -> set[int]:
        """The memory of certificates that are not those of this set-up."""
        every = [one.config.certificates for one in (self._current, *self._setups.values())]
        own = setup.config.certificates
        return {one.contexts.descriptor for one in every if one is not None and one is not own}

    def _all_keys(self) -> set[int]:
        """The memory of all certificates."""
        every = [one.config.certificates for one in (self._current, *self._setups.values())]
        return {one.contexts.descriptor for one in every if one is not None}

    def _live_admin(self, plan: Plan, channel: socket.socket) -> int:
        return be_admin(plan, self._scoreboard, channel)

    def _private_of_admin(self) -> list[int]:
        """The descriptors that an admin process must not have: the certificates' keys are among them."""
        plan = self._current
        others = [one.socket.fileno() for one in self._all_listeners() if one not in plan.admin]
        keys = self._all_keys()
        return [*self._own_descriptors(), *(fd for fd in (*others, *keys) if fd >= 0), *self._children.channels()]

    def _private_of_watcher(self) -> list[int]:
        """The descriptors that the watching process must not have: all but the log."""
        listeners = [one.socket.fileno() for one in self._all_listeners()]
        shared = [fd for fd in (*listeners, *self._all_keys()) if fd >= 0]
        return [*self._own_descriptors(), *shared, *self._children.channels(), *self._admins.descriptors()]

    def _override_log_level(self, level: str) -> None:
        self._scoreboard.master[MasterField.LOG_LEVEL] = log.override_level(level)

    def _watch_files(self) -> None:
        config = self._current.config
        file = None if config.file is None else str(Path(self._origin.folder, config.file))
        self._watcher.follow(Watch.of(config.options, file))

    def _announce(self) -> None:
        options = self._current.config.options
        urls = self._current.urls()
        workers = "1 worker" if options.workers == 1 else f"{options.workers} workers"
        text = f"serving {options.app} on {', '.join(urls)} with {workers} ({self._current.config.why('workers')})"
        log.event("info", "serving", text, {"app": options.app, "addresses": list(urls), "workers": options.workers})
        if options.parser == "pure":
            log.LOGGER.info("HTTP is parsed in pure Python (%s)", self._current.config.origins["parser"])
        elif not parser_is_built():
            log.LOGGER.info(
                "HTTP is parsed in pure Python: the compiled parser was not built, as there was no C compiler"
            )
        if options.reload:
            self._invite()
        log.LOGGER.info("stop: kill -TERM %d (or Ctrl-C) · reload: kill -HUP %d", os.getpid(), os.getpid())

    def _invite(self) -> None:
        """Show an address that a terminal makes a link of, and a browser on this machine can open."""
        for url in self._current.urls():
            if url.startswith("http"):
                log.LOGGER.info("open %s/", url.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]"))  # noqa: S104 - it is not bound

    def _commit(self, generation: int) -> None:
        """Make a generation's set-up the daemon's, and close what only older ones have."""
        before, asked = self._all_listeners(), self._current.config.options.pid
        self._current = self._setups[generation]
        self._admin_plan = self._current.admin_plan()
        self._setups = {generation: self._current}
        self._children.end_molds(keep=self._setups)
        if generation != 1:  # the first was configured before it booted
            self._configure(self._current)
        self._permit_again()
        if self._current.config.options.pid != asked:
            log.LOGGER.warning("--pid has changed: that counts at the next start")
        self._close(before)

    def _permit_again(self) -> None:
        """Give the unix sockets that have stayed bound the mode and the owner that they have now."""
        config = self._current.config
        for listener in (*self._current.listeners, *self._current.admin):
            try:
                wanted = (*config.options.bind, *config.options.admin)
                listening.permit_again(listener, wanted, config.identity)
            except BindError as exc:
                log.LOGGER.warning("%s; it stays as it is", exc)

    def _roll_back(self, generation: int) -> None:
        before = self._all_listeners()
        self._setups.pop(generation, None)
        self._children.end_molds(keep=self._setups)
        self._close(before)

    def _close(self, before: Sequence[Listener]) -> None:
        """Close those of these listeners that nothing uses any more."""
        used = self._all_listeners()
        for listener in before:
            if listener not in used:
                log.LOGGER.info("%s is closed", listener.url)
                listener.close()

    def _all_listeners(self) -> list[Listener]:
        setups = (self._current, *self._setups.values())
        return list(dict.fromkeys(one for setup in setups for one in (*setup.listeners, *setup.admin)))

    def _close_listeners(self) -> None:
        """Close what the workers accept on; how the stop goes can be asked until its end."""
        self._children.end_molds()  # they have them, too
        setups = (self._current, *self._setups.values())
        for listener in dict.fromkeys(one for setup in setups for one in setup.listeners):
            listener.close()

    def _leave_no_admin(self) -> None:
        self._admins.leave_none()
        for listener in self._current.admin:
            listener.close()

    def _configure(self, setup: Setup) -> None:
        options = setup.config.options
        log.configure("master", level=options.log_level, form=options.log_format)
        self._override_log_level(self._state.target.log_level)
        log.LOGGER.addHandler(self._admins.handler)
        setproctitle.setproctitle(f"{options.proc_name}: master [{describe(options.app)}]")
        self._watch_files()
        for note in setup.config.notes:
            log.LOGGER.info("%s", note)
        systemd = self._origin.systemd
        unused = inherited.unused(systemd.activation, (*options.bind, *options.admin))
        forgotten = [
            f'systemd has passed the socket "{name}", which neither --bind nor --admin names' for name in unused
        ]
        for warning in (*setup.config.warnings, *systemd.warnings, *forgotten):
            log.LOGGER.warning("%s", warning)
