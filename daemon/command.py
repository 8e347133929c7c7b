"""The command `preforkd`: from its arguments to a configuration, bound sockets, and a master that serves."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from preforkd.daemon import listeners, master, signals
from preforkd.daemon.arguments import usual
from preforkd.daemon.check import check
from preforkd.daemon.config import Config, ConfigError, load
from preforkd.daemon.pidfile import PidFile, PidFileError
from preforkd.daemon.print_config import as_toml
from preforkd.daemon.privileges import PrivilegeError, resolve, set_umask
from preforkd.daemon.roles import import_workers
from preforkd.daemon.systemd import take
from preforkd.daemon.upgrade import UpgradeError, take_over
from preforkd.daemon.version import version_text
from preforkd.workers import log
from preforkd.workers.blame import AppError
from preforkd.workers.http.built import parser_is_built
from preforkd.workers.loader import check_target

if TYPE_CHECKING:
    from preforkd.daemon.certificates import Certificates

PATIENCE = 10.0
"""Seconds in which certificates that do not fit have to become whole when the program has replaced another."""
TRY_AGAIN = 0.2
USAGE = 2
NOT_BOOTED = 3
GUNICORN_FILE = "gunicorn.conf.py"
COMPLETE = "_PREFORKD_COMPLETE"  # of click: a shell asks what a command line may go on with


def run(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: without the program's name.

    Returns:
        The exit code.
    """
    if len(arguments) == 2 and arguments[0] == "migrate":
        return _migrate(arguments[1])
    try:
        cli = usual(arguments)
        if cli is not None and COMPLETE not in os.environ:
            return _run(cli, [])
        from preforkd.daemon import command_line  # here: a start takes the longer for it

        return command_line.run(arguments, _run)
    except (ConfigError, listeners.BindError) as exc:
        return _fail(exc.errors, USAGE)
    except AppError as exc:
        return _fail([str(exc)], NOT_BOOTED)
    except UpgradeError as exc:
        return _fail([str(exc)], USAGE)


def _fail(errors: Sequence[str], code: int) -> int:
    for error in errors:
        sys.stderr.write(f"preforkd: error: {' '.join(error.split())}\n")
    return code


def _migrate(file: str) -> int:
    """Print a preforkd.toml that does what a gunicorn.conf.py does; returns the exit code."""
    from preforkd.daemon.migrate import as_toml as as_toml_of_gunicorn  # no daemon needs it

    try:
        sys.stdout.write(as_toml_of_gunicorn(Path(file).read_bytes(), file))
    except OSError as exc:
        return _fail([f"{file} cannot be read: {exc.strerror}"], USAGE)
    except (SyntaxError, ValueError) as exc:  # ValueError: there are zero bytes in it
        return _fail([f"{file} is not Python: {exc}"], USAGE)
    return 0


def _run(cli: Mapping[str, object], notes: Sequence[str]) -> int:
    """Do what the command line says; returns the exit code.

    Args:
        cli: the options that it gives, by name.
        notes: what is to be said of it in the log.
    """
    if "version" in cli:
        sys.stdout.write(version_text() + "\n")
        return 0
    folder, environ = _start_folder(os.environ), dict(os.environ)
    log.open_standard(environ)
    handover = take_over(environ)
    systemd = take(os.environ, os.getpid())
    if "print_config" in cli:
        sys.stdout.write(as_toml(load(cli, environ, folder=folder, require_app=False)))
        return 0
    config = _checked(load(cli, environ, folder=folder), environ, PATIENCE if handover else 0.0)
    config = replace(config, notes=tuple(notes), warnings=(*config.warnings, *_left_unread(config, environ, folder)))
    if handover and handover.certificates is not None and config.certificates:
        config.certificates.contexts.adopt(handover.certificates)
    if "check" in cli:
        gc.enable()
        return check(config)
    pid_file = _pid_file(config)
    reload = partial(_reload, cli, environ, folder)
    origin = master.Origin(reload, environ, folder, signals.catch(), systemd)
    set_umask(config.options.umask)
    wanted = (*config.options.bind, *config.options.admin)
    bound = [] if handover else listeners.bind_all(wanted, systemd.activation, config.identity)
    import_workers(config.options.interface)
    gc.enable()
    return master.run(config, bound, origin, pid_file, handover)


def _left_unread(config: Config, environ: Mapping[str, str], folder: str) -> list[str]:
    """Say which sources of other servers lie about and are not read."""
    named = sorted(name for name, text in environ.items() if text and _is_of_another_server(name))
    said = [f"{name} in the environment is not read: PREFORKD_* is, and the command line" for name in named]
    if config.file is None and Path(folder, GUNICORN_FILE).is_file():
        said.append(f"{GUNICORN_FILE} is not read, as gunicorn does: `preforkd migrate {GUNICORN_FILE}` translates it")
    return said


def _is_of_another_server(name: str) -> bool:
    return name == "GUNICORN_CMD_ARGS" or name.startswith(("UVICORN_", "GRANIAN_"))


def _reload(cli: Mapping[str, object], environ: Mapping[str, str], folder: str) -> Config:
    """Read the configuration anew, from the same command line; raises ConfigError for all that is wrong."""
    try:
        return _checked(load(cli, environ, folder=folder), environ)
    except AppError as exc:
        raise ConfigError([str(exc)]) from exc


def _checked(config: Config, environ: Mapping[str, str], patience: float = 0.0) -> Config:
    """Find before a fork what cannot be served, who the workers run as, and what they speak TLS with.

    Raises:
        ConfigError: for the folder, the parser, the user, the group or TLS.
        AppError: for the app.
    """
    options = config.options
    if not Path(options.chdir).is_dir():
        raise ConfigError([f"{config.origins['chdir']}: {options.chdir} is not a folder"])
    if options.parser == "compiled" and not parser_is_built():
        missing = "the compiled parser was not built; install preforkd where there is a C compiler, or take auto"
        raise ConfigError([f"{config.origins['parser']}: {missing}"])
    check_target(options.app, options.app_dir, options.chdir)
    if options.hooks:
        _check_hooks(config)
    if options.log_config:
        _check_log_config(config)
    if options.reload:
        _check_reload(config)
    try:
        identity = resolve(options.user, options.group)
    except PrivilegeError as exc:
        raise ConfigError([f"{config.origins[exc.option]}: {exc}"]) from exc
    return replace(config, identity=identity, certificates=_certificates(config, environ, patience))


def _certificates(config: Config, environ: Mapping[str, str], patience: float) -> Certificates | None:
    """Read the certificates, if there are to be some.

    Args:
        config: says which.
        environ: where passwords may be.
        patience: seconds for which they are tried again. A program that has replaced another cannot go back, and they
            may be being written in this moment; the workers of the other serve on meanwhile.
    """
    if not config.tls:
        return None
    from preforkd.daemon.certificates import CertificateError, Certificates  # few masters need the library of TLS

    deadline = time.monotonic() + patience
    while True:
        try:
            return Certificates(config.tls, environ)
        except CertificateError as exc:
            if time.monotonic() >= deadline:
                raise ConfigError(exc.errors) from exc
        time.sleep(TRY_AGAIN)  # no event says that they are whole


def _check_hooks(config: Config) -> None:
    options = config.options
    try:
        check_target(options.hooks, options.app_dir, options.chdir)
    except AppError as exc:
        raise ConfigError([f"{config.origins['hooks']}: {exc}"]) from exc


def _check_log_config(config: Config) -> None:
    from preforkd.workers import log_config  # here: logging.config is imported where it is used

    try:
        log_config.read(config.options.log_config)
    except ValueError as exc:
        raise ConfigError([f"{config.origins['log_config']}: {exc}"]) from exc


def _check_reload(config: Config) -> None:
    errors = [
        f"{config.origins['reload_dir']}: {folder} is not a folder"
        for folder in config.options.reload_dir
        if not Path(folder).is_dir()
    ]
    if find_spec("watchfiles") is None:
        errors.append(f"{config.origins['reload']}: it needs watchfiles: pip install 'preforkd[reload]'")
    if errors:
        raise ConfigError(errors)


def _pid_file(config: Config) -> PidFile | None:
    """The file for the process id, if there is to be one and it can be."""
    if not config.options.pid:
        return None
    file = PidFile(config.options.pid, os.getpid())
    try:
        file.check()
    except PidFileError as exc:
        raise ConfigError([f"{config.origins['pid']}: {exc}"]) from exc
    return file


def _start_folder(environ: Mapping[str, str]) -> str:
    """The folder that relative paths start from, by the name that the user knows it by.

    The shell's PWD keeps the symlinks that getcwd() resolves: when a deploy switches `current` to another release, a
    reload then finds the new one.
    """
    try:
        real = os.getcwd()  # noqa: PTH109 - text, as PWD is
    except FileNotFoundError:
        raise ConfigError(["the folder that preforkd was started in has been removed"]) from None
    named = environ.get("PWD", "")
    with contextlib.suppress(OSError):  # a PWD that leads nowhere
        if named.startswith("/") and Path(named).samefile(real):
            return named
    return real
