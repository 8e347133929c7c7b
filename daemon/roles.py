"""What a forked process becomes: a worker, or the mold that a generation's workers are forked from."""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from preforkd.daemon import mold
from preforkd.daemon.actions import Fork
from preforkd.daemon.admin import Plan
from preforkd.daemon.config import Config
from preforkd.daemon.listeners import Listener
from preforkd.daemon.privileges import PrivilegeError, drop, set_umask
from preforkd.daemon.spawn import die_with
from preforkd.daemon.values import AUTO
from preforkd.workers import capture, log, offspring
from preforkd.workers.blame import AppError
from preforkd.workers.channel import Failed, encode
from preforkd.workers.scoreboard import Scoreboard

if TYPE_CHECKING:
    from preforkd.workers.loader import LoadedApp

# The event loop and the parser are imported in the functions: a command that forks nothing needs none of them.


def import_workers(interface: str) -> None:
    """Import all that a worker runs but the app: to be called before the first fork.

    All workers would need 50 ms of a CPU for that, at the same time; and so they share the memory. It is code alone: no
    event loop runs, no thread begins, no descriptor is opened (a test looks), so that forks stay safe.

    Args:
        interface: of the app, or `auto`: then it may need either gateway.
    """
    import_module("preforkd.workers.main")
    from preforkd.workers.gateways import import_gateway

    for one in ("asgi", "wsgi") if interface == AUTO else (interface,):
        import_gateway(one)
    # The interpreter may be in a folder that is root's alone, and looks for this when a name is first resolved.
    import_module("encodings.idna")
    gc.freeze()  # the collector writes into each object that it looks at: what is shared would not be any more


def be_worker(
    config: Config,
    listeners: Sequence[Listener],
    board: Scoreboard,
    order: Fork,
    channel: socket.socket,
    app: LoadedApp | None = None,
) -> int:
    """Be a worker; returns the exit code of the process.

    Args:
        config: the options of its generation.
        listeners: what it accepts on.
        board: the scoreboard.
        order: which worker it is.
        channel: its end of the channel.
        app: what its mold has imported; None: it imports the app itself.
    """
    from preforkd.workers import hooks, main

    options = config.options
    hooks.identify(order.slot, order.generation)
    log.configure(f"worker {order.slot}", level=options.log_level, form=options.log_format)
    name, who = options.proc_name, f"worker {order.slot} (generation {order.generation})"
    offspring.entitle(f"{name}: {who}", f"{name}: child of {who}")
    try:
        if app is None:
            log.show_fatal_signals()  # a boot that takes too long gets ABRT, and shows where it hangs
            enter(config)
        log_as_asked(config)
        log.override_level(order.log_level)
    except AppError as exc:
        channel.sendall(encode(Failed("start", str(exc), exc.details)))
        return main.BOOT_FAILED
    certificates = config.certificates
    by_fd = {listener.socket.fileno(): listener.address for listener in listeners}
    sockets = main.Listeners(
        [listener.socket for listener in listeners],
        frozenset(listener.socket.fileno() for listener in listeners if listener.is_lent),
        certificates.speak(by_fd) if certificates else {},
        certificates.contexts if certificates else None,
    )
    return main.run(options.worker_settings(), sockets, channel, board, order.row, app, order.reason)


def be_mold(
    config: Config, listeners: Sequence[Listener], board: Scoreboard, generation: int, control: socket.socket
) -> int:
    """Be the mold of a generation; returns the exit code of the process.

    Args:
        config: the options of the generation.
        listeners: what its workers accept on.
        board: the scoreboard.
        generation: its number.
        control: where the orders come from.
    """
    from preforkd.workers import main

    options = config.options
    os.environ["PREFORKD_GENERATION"] = str(generation)
    log.configure("mold", level=options.log_level, form=options.log_format)
    name, who = options.proc_name, f"mold (generation {generation})"
    offspring.entitle(f"{name}: {who}", f"{name}: child of {who}")
    offspring.possess([control, *(listener.socket for listener in listeners)], board)
    settings = options.worker_settings()

    def load() -> LoadedApp:
        enter(config, mold.ORPHANED)
        log_as_asked(config)
        return main.preload(settings)

    def live(channel: socket.socket, order: Fork, app: LoadedApp) -> int:
        return be_worker(config, listeners, board, order, channel, app)

    return mold.serve(control, options.app, load, live)


def log_as_asked(config: Config) -> None:
    """Carry out `--log-config` and `--capture-output`, after `enter()`.

    Raises:
        AppError: the first is not possible.
    """
    options = config.options
    if options.log_config:
        from preforkd.workers import log_config  # here: it is none of the master's

        log_config.apply(options.log_config, options.log_level)
    if options.capture_output:
        capture.install()


def be_admin(plan: Plan, board: Scoreboard, channel: socket.socket) -> int:
    """Be the admin process; returns the exit code of the process.

    Args:
        plan: what it is begun with.
        board: the scoreboard.
        channel: its end of the channel.
    """
    options = plan.config.options
    log.configure("admin", level=options.log_level, form=options.log_format)
    offspring.entitle(f"{options.proc_name}: admin", f"{options.proc_name}: child of admin")
    try:
        enter(plan.config, serving="preforkd.workers.admin.main")
    except AppError as exc:
        log.LOGGER.error("%s", exc)
        return 1
    from preforkd.workers.admin import main

    return main.run(plan.settings, [one.socket for one in plan.listeners], channel, board)


def enter(config: Config, orphaned: int = signal.SIGTERM, serving: str = "preforkd.workers.main") -> None:
    """Do what comes before any code of the app: a worker from a mold has it from there.

    Args:
        config: the options.
        orphaned: the signal that the kernel sends this process when its parent dies.
        serving: the module that it will be run by.

    Raises:
        AppError: the folder cannot be entered, or the user not be changed.
    """
    offspring.watch_forks()
    # preforkd and the interpreter may be in a folder that is root's alone.
    for module in (serving, *_asked_for(config)):
        import_module(module)
    parent = os.getppid()
    try:
        os.chdir(config.options.chdir)
        set_umask(config.options.umask)
        if config.identity is not None:
            drop(config.identity)
            die_with(parent, orphaned)
    except (OSError, PrivilegeError) as exc:
        raise AppError(f"the process cannot be set up for the app: {exc}") from exc


def _asked_for(config: Config) -> Iterator[str]:
    """Yield the modules of a worker's that only some options need: all others start the sooner."""
    options = config.options
    if options.log_config:
        yield "preforkd.workers.log_config"
    if options.proxy_protocol != "off":
        yield "preforkd.workers.proxy_reader"
