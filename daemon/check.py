"""`preforkd --check`: boot the application once, in a process that is thrown away, and touch no socket."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import traceback
from dataclasses import replace

from preforkd.daemon import signals
from preforkd.daemon.config import Config
from preforkd.daemon.roles import enter, log_as_asked
from preforkd.daemon.spawn import flush_output
from preforkd.workers import log, offspring
from preforkd.workers.blame import AppError
from preforkd.workers.output import FINISH, Losses, Output

FINE = 0
INTERNAL_ERROR = 1
NOT_BOOTED = 3
_POLL = 0.02  # seconds; waitpid has no timeout, and only Linux has descriptors of processes


def check(config: Config) -> int:
    """Load the application in a forked child and print how that went.

    Returns:
        0 when it can be served, 3 when it does not load, or not within the start-up timeout.
    """
    for signum in signals.CAUGHT:
        signal.signal(signum, signal.SIG_DFL)  # Ctrl-C ends a check; it must not look like a success
    pid = os.fork()
    if pid == 0:
        _load_and_exit(config)
    status = _wait(pid, config.options.startup_timeout)
    if status is None:
        _error(f"{config.options.app} has not loaded within {config.options.startup_timeout:g} s (--startup-timeout)")
        return NOT_BOOTED
    code = os.waitstatus_to_exitcode(status)
    if code not in (FINE, NOT_BOOTED):
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        _error(f"the process {how} while {config.options.app} was imported")
        return NOT_BOOTED
    return code


def _wait(pid: int, timeout: float) -> int | None:
    """The status of a child, None when it had to be killed after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(_POLL)  # waitpid() knows no timeout
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _load_and_exit(config: Config) -> None:
    """Be the child; never returns."""
    code = INTERNAL_ERROR
    try:
        code = _load(config)
    except BaseException:  # noqa: BLE001 - nothing may climb out of the child into the frames of its parent
        _say(f"{traceback.format_exc()}preforkd: error: this is a bug in preforkd\n")
    finally:
        with contextlib.suppress(BaseException):  # whatever it is: this is the end of the process
            flush_output()
            log.standard_error().finish(FINISH)
        os._exit(code)


def _load(config: Config) -> int:
    options = config.options
    log.configure("check", level=options.log_level, form=options.log_format)
    began = time.monotonic()
    try:
        enter(config)
        log_as_asked(replace(config, options=replace(options, capture_output=False)))  # it prints what it finds
        from preforkd.workers import main  # here: the event loop is the workers', and not in the master

        try:
            app = main.rehearse(options.worker_settings())
        except main.BootError as exc:
            raise AppError(f"{exc.stage}: {exc}", exc.details) from exc
    except AppError as exc:
        _say(exc.details)
        _error(str(exc))
        return NOT_BOOTED
    offspring.end_if_strayed()
    binds = ", ".join(address.url for address in options.bind)
    workers = f"{options.workers} worker{'' if options.workers == 1 else 's'} ({config.why('workers')})"
    took = time.monotonic() - began
    fine = f"{options.app} is fine ({app.interface}, loaded in {took:.2f} s): to be served on {binds} by {workers}\n"
    output = Output(log.standard_output(), Losses("the outcome", "standard output"))
    output.write(fine.encode())
    output.finish(FINISH)
    return FINE


def _error(text: str) -> None:
    _say(f"preforkd: error: {text}\n")


def _say(text: str) -> None:
    """Write on standard error; not on `sys.stderr`, which may be anything that an app has put there."""
    log.standard_error().write(text.encode("utf-8", "backslashreplace"))
