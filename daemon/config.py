"""Where options come from: command line, then `PREFORKD_*`, then TOML, then generic variables, then the default.

`load` is a function of what it is given, so that a reload calls it again with the original command line; all errors of
all sources are found in one go, each with its origin and what would be right.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from preforkd.daemon.address import Address, UnixAddress
from preforkd.daemon.host import Host, auto_connections, auto_workers
from preforkd.daemon.options import BY_NAME, DECLARATIONS, Declaration, Options
from preforkd.daemon.privileges import Identity
from preforkd.daemon.tls_specs import SpecError, TlsSpec, secured, specs
from preforkd.daemon.values import AUTO, quoted
from preforkd.workers.records import dataclass
from preforkd.workers.spelling import similar

if TYPE_CHECKING:
    from preforkd.daemon.certificates import Certificates

DEFAULT_FILE = "preforkd.toml"

_PREFIX = "PREFORKD_"
_NO_OPTIONS = (_PREFIX + "CONFIG", _PREFIX + "SLOT", _PREFIX + "GENERATION")  # the last two are a worker's, for its app
# Kubernetes gives every pod such variables for every Service of its namespace (enableServiceLinks), also for one that
# is called "preforkd" or "preforkd-shop": PREFORKD_SERVICE_HOST, PREFORKD_PORT=tcp://10.0.0.1:80, PREFORKD_PORT_80_TCP.
_SERVICE_LINK = re.compile(
    r"PREFORKD_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII
)
_SERVICE_LINK_URL = re.compile(r"(tcp|udp|sctp)://", re.ASCII)


class ConfigError(Exception):
    """The configuration is wrong.

    Attributes:
        errors: all that is wrong, one line each.
    """

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Config:
    """The options in force.

    Attributes:
        options: their values, resolved.
        origins: for each name who gave the value, as in "--bind on the command line".
        reasons: for each name whose value preforkd chose, why that one.
        asked: the values as they were given: "auto" and relative paths.
        file: the TOML file that was read, None without one.
        warnings: what looks like a mistake but can be served with, one line each.
        notes: what was made of options of other servers, one line each.
        identity: who the workers run as, None: as the master; `load` does not look it up.
        tls: how each address that speaks TLS does.
        certificates: what they speak it with, None without one; `load` reads no certificate.
    """

    options: Options
    origins: Mapping[str, str]
    reasons: Mapping[str, str]
    asked: Mapping[str, object]
    file: str | None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    identity: Identity | None = None
    tls: Mapping[Address, TlsSpec] = field(default_factory=dict)
    certificates: Certificates | None = None

    def why(self, name: str) -> str:
        """One phrase for the log: who gave the option's value, and how "auto" became a number."""
        origin, reason = self.origins[name], self.reasons.get(name)
        return f"{origin}, auto: {reason}" if reason else origin


Found = dict[str, tuple[object, str]]
"""By option: the value and who gave it."""


def load(
    cli: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    folder: str,
    read: Callable[[str], bytes] | None = None,
    host: Callable[[], Host] = Host.probe,
    require_app: bool = True,
) -> Config:
    """Read all sources.

    Args:
        cli: what the command line gave, by option name, as text (a sequence of it for `bind`); None: not given.
            `config` is the path of the TOML file.
        environ: the environment; blanks around a value do not count.
        folder: the absolute folder the daemon was started in: relative paths start there.
        read: gives a file's content; raises OSError.
        host: gives what "auto" goes by.
        require_app: whether it is an error when no source names the app.

    Raises:
        ConfigError: anything in any source is wrong.
    """
    errors: list[str] = []
    environ = {name: text.strip() for name, text in environ.items()}  # a settings page easily adds a blank
    file, in_file = _read_toml(cli, environ, folder, read or _read_file, errors)
    shown = _shown(file, folder)
    own = (_from_cli(cli, errors), _from_environ(environ, errors), _from_toml(in_file, shown, errors))
    # A generic variable may be meant for another program: it is not even looked at where one of ours gives the option.
    generic = {name: value for name, value in _from_generic(environ).items() if not any(name in one for one in own)}
    found = {one.name: _first(one, (*own, generic), errors) for one in DECLARATIONS}
    if require_app and not found["app"][0] and not any(line.startswith("APP ") for line in errors):
        errors.append(
            "no app given: name it, as in `preforkd hello.py:HttpRequestHandler` or `preforkd package.module:app`"
        )
    errors += _given_twice(found)
    if errors:
        raise ConfigError(errors)
    return _resolved(found, folder, host(), shown if file else None)


def _given_twice(found: Found) -> Iterator[str]:
    """Yield what is wrong with addresses that are to be served by the workers and by the admin process, too."""
    (bind, _), (admin, origin) = found["bind"], found["admin"]
    if isinstance(bind, tuple) and isinstance(admin, tuple):
        for address in admin:
            if address in bind:
                yield f"{origin}: {address} is where the app is served: give the admin process an address of its own"


def _shown(file: str | None, folder: str) -> str:
    """The file as a person in the folder would write it."""
    path = Path(file or "")
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _read_file(path: str) -> bytes:
    return Path(path).read_bytes()


def _read_toml(
    cli: Mapping[str, object],
    environ: Mapping[str, str],
    folder: str,
    read: Callable[[str], bytes],
    errors: list[str],
) -> tuple[str | None, dict[str, object]]:
    """The file's path, None when there is none, and what it holds."""
    named = cli.get("config") or environ.get(_PREFIX + "CONFIG")
    path = Path(folder, str(named or DEFAULT_FILE))
    try:
        if path.suffix == ".py":
            from preforkd.daemon.migrate import refusal  # no daemon needs it

            first, *rows = refusal(str(named), read(str(path)))
            raise ConfigError([f"{_config_origin(cli)}: {first}", *rows])  # alone: without the file much is missing
        text = read(str(path)).decode()
    except FileNotFoundError:
        if not named:
            return None, {}
        errors.append(f"{_config_origin(cli)}: {path} does not exist")
    except OSError as exc:
        errors.append(f"{path} cannot be read: {exc.strerror}")
    except UnicodeDecodeError as exc:
        errors.append(f"{path} is not UTF-8 (byte {exc.start})")
    else:
        return str(path), _parsed(path, text, errors)
    return str(path), {}


def _parsed(path: Path, text: str, errors: list[str]) -> dict[str, object]:
    import tomllib  # here: most daemons have no file, and a start takes the longer for each module

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        errors.append(f"{path} is not TOML: {exc}")
        return {}


def _config_origin(cli: Mapping[str, object]) -> str:
    return "--config on the command line" if cli.get("config") else f"{_PREFIX}CONFIG in the environment"


def _first(one: Declaration, sources: tuple[Found, ...], errors: list[str]) -> tuple[object, str]:
    """The value of the first source that gives the option; a wrong value is an error even where it is not used."""
    read: list[tuple[object, str]] = []
    for raw, origin in (source[one.name] for source in sources if one.name in source):
        try:
            read.append((one.kind.read(raw), origin))
        except ValueError as exc:
            errors.append(f"{origin}: {exc}")
    return read[0] if read else (one.default, "default")


def _from_cli(cli: Mapping[str, object], errors: list[str]) -> Found:
    password = cli.get("keyfile_password")
    if isinstance(password, str) and password[:1] not in ("", "@", "$"):
        errors.append(
            "--keyfile-password on the command line: everybody can read it there: write @FILE or $VARIABLE (in quotes)"
        )
    return {
        name: (value, f"{BY_NAME[name].flag} on the command line")
        for name, value in cli.items()
        if value is not None and name in BY_NAME
    }


def _from_environ(environ: Mapping[str, str], errors: list[str]) -> Found:
    """The `PREFORKD_*` variables; an empty one counts as not set, as container tools write it."""
    found: Found = {}
    for variable, text in environ.items():
        if not variable.startswith(_PREFIX) or variable in _NO_OPTIONS or _is_service_link(variable, text):
            continue
        name = variable.removeprefix(_PREFIX).lower()
        if name not in BY_NAME or variable != BY_NAME[name].variable:
            errors.append(f"{variable} in the environment: no such option{_near(name, _PREFIX, str.upper)}")
        elif text:
            found[name] = (text, f"{variable} in the environment")
    return found


def _is_service_link(variable: str, text: str) -> bool:
    if _SERVICE_LINK.fullmatch(variable):
        return True
    return variable.endswith("_PORT") and _SERVICE_LINK_URL.match(text) is not None


def _from_toml(content: Mapping[str, object], file: str, errors: list[str]) -> Found:
    found: Found = {}
    for key, value in content.items():
        if key in BY_NAME:
            found[key] = (value, f"{key} in {file}")
        elif isinstance(value, dict):
            errors.append(f"[{key}] in {file}: no such table; options stand at the top of the file")
        else:
            hint = _near(key.replace("-", "_").lower())
            errors.append(f"{quoted(key)[1:-1]} in {file}: no such option{hint}")
    return found


def _from_generic(environ: Mapping[str, str]) -> Found:
    return {
        one.name: (one.generic_form.format(environ[one.generic]), f"${one.generic} in the environment")
        for one in DECLARATIONS
        if one.generic and environ.get(one.generic)
    }


def _near(name: str, prefix: str = "", case: Callable[[str], str] = str) -> str:
    near = [name] if name in BY_NAME else similar(name, BY_NAME, 2, 0.7)
    spelled = " or ".join(prefix + case(one) for one in near)
    return f"; did you mean {spelled}?" if near else "; `preforkd --help` lists them"


def _resolved(found: Found, folder: str, host: Host, file: str | None) -> Config:
    """Put "auto" and relative paths into numbers and absolute paths."""
    asked = {name: value for name, (value, _origin) in found.items()}
    reasons: dict[str, str] = {}
    values = dict(asked)
    if values["reload"]:
        _for_development(values, found, reasons)
    if values["workers"] == AUTO:
        values["workers"], reasons["workers"] = auto_workers(host)
    if values["limit_connections"] == AUTO:
        values["limit_connections"], reasons["limit_connections"] = auto_connections(host)
    if values["surge"] == AUTO:
        values["surge"], reasons["surge"] = math.ceil(int(str(values["workers"])) / 4), "a quarter of the workers"
    if isinstance(values["max_requests_jitter"], str):
        values["max_requests_jitter"] = _portion(values["max_requests_jitter"], int(str(values["max_requests"])))
        reasons["max_requests_jitter"] = "of max_requests"
    if str(values["app"]).endswith("()"):  # as gunicorn has factories
        values["app"], values["factory"] = str(values["app"]).removesuffix("()"), True
    values["chdir"] = chdir = os.path.normpath(Path(folder, str(values["chdir"])))
    values["app_dir"] = os.path.normpath(Path(chdir, str(values["app_dir"])))
    for name in ("pid", "log_config"):
        if values[name]:
            values[name] = os.path.normpath(Path(chdir, str(values[name])))
    values["reload_dir"] = _watched(values)
    # Each kind has read its own value, which no annotation can say here.
    options = Options(**values)  # type: ignore[arg-type]

    def absolute(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        return tuple(one.under(chdir) if isinstance(one, UnixAddress) else one for one in addresses)

    options = replace(
        options,
        bind=secured(absolute(options.bind), options.certfile),
        admin=absolute(options.admin),
        statsd=absolute(options.statsd),
    )
    origins = {name: origin for name, (_value, origin) in found.items()}
    if errors := list(_wrong_trial(options, origins, reasons)):
        raise ConfigError(errors)
    try:
        tls = specs(options, origins)
    except SpecError as exc:
        raise ConfigError(exc.errors) from exc
    return Config(
        options=options,
        origins=origins,
        tls=tls,
        reasons=reasons,
        asked=asked,
        file=file,
        warnings=tuple(_warnings(options, host)),
    )


def _wrong_trial(options: Options, origins: Mapping[str, str], reasons: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with the trial of a reload: options that each are right, and not together."""
    if options.reload:
        return  # nothing is tried then, and the file may be that of production
    for name in ("trial_workers", "trial_errors"):
        if getattr(options, name) and not options.trial:
            yield f"{origins[name]}: there is no trial, for trial is 0 ({origins['trial']}): write seconds, as in 30"
    if options.trial_workers > options.workers:
        number = "1 worker" if options.workers == 1 else f"{options.workers} workers"
        why = ": ".join(filter(None, (origins["workers"], reasons.get("workers"))))
        yield f"{origins['trial_workers']}: {options.trial_workers} is more than there are: {number} ({why})"


def _for_development(values: dict[str, object], found: Found, reasons: dict[str, str]) -> None:
    """What a developer wants who has not said otherwise: one process to debug, and the new code at once."""
    if values["workers"] == AUTO:
        values["workers"], reasons["workers"] = 1, "for --reload"
    if found["idle_grace"][1] == "default":
        values["idle_grace"], reasons["idle_grace"] = 0.0, "for --reload"


def _watched(values: Mapping[str, object]) -> tuple[str, ...]:
    """The folders to be watched: absolute, each once, and none that another one holds."""
    chdir, app = str(values["chdir"]), str(values["app"]).rpartition(":")[0] or str(values["app"])
    asked = values["reload_dir"]
    named: list[str] = [str(one) for one in asked] if isinstance(asked, tuple) else []
    if not named:
        named = [str(values["app_dir"]), *([str(Path(app).parent)] if app.endswith(".py") else [])]
    folders = dict.fromkeys(Path(os.path.normpath(Path(chdir, one))) for one in named)
    return tuple(str(one) for one in folders if not any(parent in folders for parent in one.parents))


def _portion(percentage: str, whole: int) -> int:
    """So many percent of a number, rounded up."""
    return -(-whole * int(percentage.removesuffix("%")) // 100)


def _warnings(options: Options, host: Host) -> Iterator[str]:
    if options.ca_certs and options.cert_reqs == "none":
        yield "ca_certs is given, but cert_reqs is none: no client is asked for a certificate"
    for name, allowed in (
        ("forwarded_allow_ips", options.forwarded_allow_ips if options.forwarded != "none" else ()),
        ("proxy_allow_from", options.proxy_allow_from if options.proxy_protocol != "off" else ()),
    ):
        if "*" in allowed:
            yield f"{name} is *: whoever can connect can say to be anybody; name the networks of your proxies"
    if options.limit_connections > host.open_files:
        yield (
            f"limit_connections is {options.limit_connections}, but a process may have {host.open_files} files open: "
            "raise the limit (ulimit -n, LimitNOFILE= of systemd)"
        )
