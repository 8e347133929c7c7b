"""Every option, declared once: its name in every source, kind, default, help and section."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, field, fields
from typing import Any

from preforkd.daemon.address import Address, TcpAddress, UnixAddress
from preforkd.daemon.tls_values import TLS_SETTINGS, Binds, NamedCertificate, NamedCertificates
from preforkd.daemon.values import (
    AUTO,
    Addresses,
    Choice,
    Count,
    FieldName,
    Flag,
    Kind,
    LogFormat,
    Networks,
    Percent,
    Portion,
    Seconds,
    ServerField,
    Size,
    StreamChoice,
    Text,
    Texts,
    Umask,
    UrlPath,
    UrlPaths,
)
from preforkd.workers.records import dataclass
from preforkd.workers.settings import WorkerSettings

SEED_ACCESS_LOG_FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is known of one option.

    Attributes:
        name: as in TOML; the command line has `--kebab-case`, the environment `PREFORKD_SNAKE_CASE`.
        kind: what values it takes.
        default: what it is when no source gives it, as if TOML had given it.
        section: its heading in the help and in `--print-config`.
        help: one or two sentences, without the default.
        short: its one-letter flag.
        repeatable: the command line may give it several times; its kind gets a sequence then.
        generic: the variable of other tools that gives it when nothing more particular does.
        generic_form: how that variable's value becomes the option's.
    """

    name: str
    kind: Kind
    default: object
    section: str
    help: str
    short: str = ""
    repeatable: bool = False
    generic: str = ""
    generic_form: str = "{}"

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return "APP" if self.name == "app" else "--" + self.name.replace("_", "-")

    @property
    def negative(self) -> str:
        """What switches it off on the command line; empty when it is no flag."""
        return self.flag.replace("--", "--no-", 1) if isinstance(self.kind, Flag) else ""

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return "PREFORKD_" + self.name.upper()

    @property
    def default_text(self) -> str:
        """The default as one would type it."""
        if isinstance(self.default, str):
            return self.default
        return ", ".join(map(str, self.default)) if isinstance(self.default, tuple) else self.kind.write(self.default)


def _option(section: str, kind: Kind, default: object, help: str, **names: object) -> Any:  # noqa: A002 - its name there
    """A field of `Options`; Any, so that a field annotated `int` may have the default "auto"."""
    return field(default=default, metadata={"kind": kind, "section": section, "help": help, **names})


_APP, _BIND, _TLS, _PROXIES, _WORKERS = "Application", "Listening", "TLS", "Behind proxies", "Workers"
_DEVELOPMENT = "Development"
_TIMEOUTS, _STOP, _LIMITS, _LOG, _PROCESS = "Connections and timeouts", "Stopping", "Limits", "Logging", "Process"
_WATCHING = "Watching and control"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All options, with their values resolved: paths absolute, no "auto" left. Times are seconds, sizes bytes."""

    app: str = _option(
        _APP, Text("APP"), "", 'What to serve: "module:attr", "module", "path/file.py:attr" or "path/file.py".'
    )
    factory: bool = _option(_APP, Flag(), False, "APP is a function; call it without arguments to get the app.")
    interface: str = _option(
        _APP,
        Choice((AUTO, "protocol", "asgi", "wsgi")),
        AUTO,
        "What the app is: a subclass of ServerHttpProtocol, an ASGI 3 or a WSGI application; auto finds out.",
    )
    root_path: str = _option(
        _APP,
        UrlPath(),
        "",
        "Path that the app is mounted at and a proxy has stripped: ASGI's root_path, WSGI's SCRIPT_NAME.",
    )
    threads: int = _option(
        _APP,
        Count(most=1000),
        1,
        "WSGI: calls of the app at a time in each worker. 0: on the event loop itself, for apps that never wait.",
    )
    app_dir: str = _option(
        _APP, Text("FOLDER"), ".", "Folder that the app's modules are imported from; relative to --chdir."
    )
    hooks: str = _option(
        _APP,
        Text("MODULE:OBJECT"),
        "",
        "Its functions boot, ready, drain and exit are called in each worker, with slot, generation and reason.",
    )
    server_header: str = _option(
        _APP,
        ServerField(),
        "preforkd",
        "The Server field of responses, unless the app gives one; off: none.",
    )
    chdir: str = _option(
        _APP,
        Text("FOLDER"),
        ".",
        "Folder to change to at the start and at a reload, so that a switched symlink counts.",
    )
    bind: tuple[Address, ...] = _option(
        _BIND,
        Binds(),
        (TcpAddress("127.0.0.1", 8000),),
        "HOST:PORT, :PORT (every IPv4 interface), [IPV6]:PORT (IPv6 only), *:PORT (every interface, IPv4 and IPv6), "
        "unix:PATH, unix:PATH?mode=660&group=GROUP, unix:@NAME, fd:N, systemd:NAME; tls: before it: TLS. Repeatable.",
        short="-b",
        repeatable=True,
        generic="PORT",
        generic_form="0.0.0.0:{}",
    )
    backlog: int = _option(
        _BIND, Count(least=1, most=65535), 2048, "Connections that the kernel keeps waiting for a worker, per address."
    )
    certfile: str = _option(
        _TLS,
        TLS_SETTINGS["certfile"],
        "",
        "Certificate (PEM) and those up to its root. With it all addresses speak TLS, unless some are written with "
        "tls:, then those alone. A changed file is loaded within seconds; relative to --chdir, as the other files.",
    )
    keyfile: str = _option(_TLS, TLS_SETTINGS["keyfile"], "", "Its private key (PEM); else it is in the certfile too.")
    keyfile_password: str = _option(
        _TLS,
        TLS_SETTINGS["keyfile_password"],
        "",
        "Password of the key: the first line of a file, or a variable; the text itself: TOML or environment alone.",
    )
    sni_certificate: tuple[NamedCertificate, ...] = _option(
        _TLS,
        NamedCertificates(),
        (),
        "A further certificate, for the clients that ask for one of its names (SNI). Repeatable; in TOML "
        "[[sni_certificate]] with certfile, keyfile, keyfile_password and names.",
        repeatable=True,
    )
    tls_min: str = _option(_TLS, TLS_SETTINGS["tls_min"], "1.2", "The oldest version of TLS that is spoken.")
    ciphers: str = _option(
        _TLS,
        TLS_SETTINGS["ciphers"],
        "",
        "Ciphers of TLS 1.2, as OpenSSL writes them; else those with forward secrecy and authenticated encryption.",
    )
    ca_certs: str = _option(
        _TLS, TLS_SETTINGS["ca_certs"], "", "Authorities (PEM) whose client certificates are taken."
    )
    cert_reqs: str = _option(
        _TLS, TLS_SETTINGS["cert_reqs"], "none", "Whether clients are asked for a certificate, and have to have one."
    )
    handshake_timeout: float = _option(_TLS, Seconds(), 10.0, "Time for a TLS handshake. 0: for ever.")
    forwarded: str = _option(
        _PROXIES,
        Choice(("none", "x-forwarded", "rfc7239")),
        "x-forwarded",
        "The fields by which trusted proxies tell who the client is and what it has asked for: X-Forwarded-For, "
        "-Proto, -Host, -Port and -Prefix, or Forwarded. From others they are taken out. none: all are left.",
    )
    forwarded_allow_ips: tuple[str, ...] = _option(
        _PROXIES,
        Networks(),
        ("127.0.0.1", "::1"),
        "Proxies that are trusted: addresses and networks with commas between, unix: for those on unix sockets, * for "
        "everybody.",
        generic="FORWARDED_ALLOW_IPS",
    )
    proxy_protocol: str = _option(
        _PROXIES,
        Choice(("off", "v1", "v2", "auto")),
        "off",
        "Each connection begins with a header of the PROXY protocol, of that version; auto: of either.",
    )
    proxy_allow_from: tuple[str, ...] = _option(
        _PROXIES,
        Networks(),
        ("127.0.0.1", "::1"),
        "With --proxy-protocol: proxies that may connect, as for --forwarded-allow-ips; others are closed.",
    )
    request_id_header: str = _option(
        _PROXIES,
        FieldName(),
        "X-Request-ID",
        "The header with the id of a request: a trusted proxy's, else a new UUID. In the request, the response and the "
        "logs; off: none.",
    )
    workers: int = _option(
        _WORKERS,
        Count(least=1, most=1000, auto=True),
        AUTO,
        "Worker processes; auto: as many as the CPUs that affinity and cgroup quota allow (8 at most without a quota), "
        "but no more than one for each 128 MiB where a cgroup limits memory.",
        short="-w",
        generic="WEB_CONCURRENCY",
    )
    surge: int = _option(
        _WORKERS,
        Count(least=1, auto=True),
        AUTO,
        "Workers that may boot beside those that serve, in a reload; auto: a quarter of the workers.",
    )
    trial: float = _option(
        _WORKERS,
        Seconds(),
        5.0,
        "A reload: so long the old workers stand by when the new ones have taken over, and they go on if one of those "
        "dies or hangs. 0: they do not stand by.",
    )
    trial_workers: int = _option(
        _WORKERS,
        Count(),
        0,
        "A reload: so many new workers serve beside the old ones first, for --trial; then, if all is well, the others "
        "follow. 0: all at once.",
    )
    trial_errors: float = _option(
        _WORKERS,
        Percent(),
        0.0,
        "A reload: the old workers also go on if the new ones' share of 5xx is above theirs by more than so many "
        "percentage points. It must be no chance, and each have answered 20 requests or more. 0: off.",
    )
    max_requests: int = _option(
        _WORKERS,
        Count(),
        0,
        "A worker that has answered so many is replaced; its successor is ready first. 0: never.",
    )
    max_requests_jitter: int = _option(
        _WORKERS,
        Portion(),
        "10%",
        "Up to so many requests more, drawn for each worker, so that they are not all replaced at a time.",
    )
    max_lifetime: float = _option(_WORKERS, Seconds(), 0.0, "A worker that has served so long is replaced. 0: never.")
    max_rss: int = _option(
        _WORKERS,
        Size(),
        0,
        "A worker with more memory of its own, shared pages not counted, is replaced. 0: never.",
    )
    preload: bool = _option(
        _WORKERS,
        Flag(),
        False,
        "Import the app once per generation, in a process that the workers are forked from: they share its memory.",
    )
    startup_timeout: float = _option(
        _WORKERS, Seconds(least=0.1), 60.0, "A worker that has not said by then that it is ready has failed to boot."
    )
    stall_timeout: float = _option(
        _WORKERS,
        Seconds(),
        30.0,
        "A worker whose event loop stands still for so long is killed and replaced. 0: never.",
    )
    limit_connections: int = _option(
        _TIMEOUTS,
        Count(least=1, auto=True),
        AUTO,
        "Connections that a worker holds; at the limit it accepts no more. auto: from the limit of open files.",
    )
    limit_concurrency: int = _option(
        _TIMEOUTS, Count(), 0, "Requests at a time in a worker; those above it are answered 503. 0: no limit."
    )
    limit_queue_time: float = _option(
        _TIMEOUTS,
        Seconds(),
        0.0,
        "A request that has waited longer for a WSGI thread or for its event loop is answered 503. 0: no limit.",
    )
    limit_per_client: int = _option(
        _TIMEOUTS,
        Count(),
        0,
        "Connections of one client (of one /64 network for IPv6) in a worker; more are closed. Trusted proxies are not "
        "counted. 0: no limit.",
    )
    keep_alive: float = _option(
        _TIMEOUTS,
        Seconds(),
        75.0,
        "An idle keep-alive connection is closed then; longer than load balancers keep theirs. 0: off.",
    )
    keep_alive_requests: int = _option(
        _TIMEOUTS, Count(), 0, "Requests on a connection before it is closed. 0: no limit."
    )
    header_timeout: float = _option(_TIMEOUTS, Seconds(), 15.0, "From the accept to the end of the headers. 0: none.")
    body_timeout: float = _option(
        _TIMEOUTS, Seconds(), 60.0, "A request body that does not come, or less than 240 bytes a second. 0: none."
    )
    write_timeout: float = _option(
        _TIMEOUTS,
        Seconds(),
        60.0,
        "A client that does not read its response, or less than 240 bytes a second. 0: none.",
    )
    request_timeout: float = _option(_TIMEOUTS, Seconds(), 0.0, "A whole request. 0: none.")
    disconnect_timeout: float = _option(
        _TIMEOUTS,
        Seconds(),
        0.0,
        "A request whose client has left is cancelled then, if its app has not ended it. 0: never.",
    )
    websocket_ping: float = _option(
        _TIMEOUTS, Seconds(), 20.0, "Between two pings to a WebSocket client. 0: none are sent."
    )
    websocket_ping_timeout: float = _option(
        _TIMEOUTS, Seconds(), 20.0, "A WebSocket client that does not answer a ping is cut then. 0: never."
    )
    websocket_compression: bool = _option(
        _TIMEOUTS, Flag(), True, "Compress WebSocket messages when the client offers it (permessage-deflate)."
    )
    health_path: str = _option(
        _STOP,
        UrlPath(),
        "",
        "Path that the workers answer before the app: 200, or 503 from the moment of TERM on. None when empty.",
    )
    drain_delay: float = _option(
        _STOP,
        Seconds(),
        0.0,
        "TERM: go on as usual for so long, but with Connection: close, until load balancers know.",
    )
    graceful_timeout: float = _option(_STOP, Seconds(), 25.0, "Then: time that requests get to finish.")
    shutdown_timeout: float = _option(_STOP, Seconds(), 5.0, "Then: time that the app gets to shut down.")
    drain_streams: str = _option(
        _STOP,
        StreamChoice(),
        AUTO,
        "Streams that are told at once that their worker leaves, and not only shortly before they are cut. auto: event "
        "streams that answer a GET, for their clients come back; late: none.",
    )
    idle_grace: float = _option(
        _STOP, Seconds(), 2.0, "Idle connections of a worker that stops stay open so long, for a request on its way."
    )
    admin: tuple[Address, ...] = _option(
        _WATCHING,
        Addresses(least=0),
        (),
        "Where a process of its own answers /livez, /readyz, /metrics, /status and a page for people, in the forms of "
        "--bind; never where strangers are. On unix sockets also /control, for root and the master's user. Repeatable.",
        repeatable=True,
    )
    statsd: tuple[Address, ...] = _option(
        _WATCHING,
        Addresses(least=0, kinds=(TcpAddress, UnixAddress)),
        (),
        "Where metrics are sent every second, by UDP or to a unix datagram socket, with gunicorn's names. Repeatable.",
        repeatable=True,
    )
    statsd_prefix: str = _option(_WATCHING, Text(), "", "In front of the names of --statsd, with its dot.")
    statsd_tags: str = _option(
        _WATCHING, Text("TAGS"), "", "Behind each metric of --statsd, in the way of DogStatsD: env:prod,team:shop."
    )
    parser: str = _option(
        _LIMITS,
        Choice(("auto", "compiled", "pure")),
        "auto",
        "Which form of the HTTP parser runs; both keep the same rules. auto: the compiled one where it was built.",
    )
    limit_request_line: int = _option(_LIMITS, Size(least=1), 8190, "Bytes of a request line (414).")
    limit_headers: int = _option(_LIMITS, Count(least=1), 100, "Header fields of a request (431).")
    limit_header_size: int = _option(_LIMITS, Size(least=1), 65536, "Bytes of all headers of a request (431).")
    limit_body: int = _option(_LIMITS, Size(), 0, "Bytes of a request body (413). 0: no limit.")
    limit_websocket_message: int = _option(
        _LIMITS, Size(), 16 * 1024 * 1024, "Bytes of a WebSocket message, decompressed (close code 1009). 0: no limit."
    )
    access_log: bool = _option(_LOG, Flag(), True, "Log each request.")
    access_log_format: str = _option(_LOG, LogFormat(), SEED_ACCESS_LOG_FORMAT, "What an access log line says.")
    access_log_file: str = _option(
        _LOG, Text("FILE"), "-", "Where the access log goes; relative to --chdir. -: standard output."
    )
    access_log_skip: tuple[str, ...] = _option(
        _LOG,
        UrlPaths(),
        (),
        "Requests for this path have no line in the access log, as those of health checks. Repeatable.",
        repeatable=True,
    )
    slow_request: float = _option(
        _LOG,
        Seconds(),
        0.0,
        "A request that takes longer is logged once, with the stack where it is; within a second. 0: none.",
    )
    log_format: str = _option(_LOG, Choice(("text", "json")), "text", "Lines for people, or for machines.")
    log_level: str = _option(
        _LOG,
        Choice(("debug", "info", "warning", "error", "critical")),
        "info",
        "The least severe level that is logged.",
    )
    log_config: str = _option(
        _LOG,
        Text("FILE"),
        "",
        "TOML or JSON for logging.config.dictConfig, carried out in the workers before the app is imported; relative "
        "to --chdir. Its loggers preforkd and preforkd.access are the workers' own.",
    )
    capture_output: bool = _option(
        _LOG, Flag(), False, "What the app prints (sys.stdout, sys.stderr) becomes lines of the log."
    )
    debug: bool = _option(_LOG, Flag(), False, "Show tracebacks in error pages. Never where strangers can see them.")
    user: str = _option(
        _PROCESS, Text("USER"), "", "Workers run as this user, by name or number; the master has to be root."
    )
    group: str = _option(_PROCESS, Text("GROUP"), "", "Workers run as this group; else as the first one of --user.")
    umask: str = _option(_PROCESS, Umask(), "", "For files that the app makes, and for unix sockets without a mode.")
    pid: str = _option(
        _PROCESS, Text("FILE"), "", "File for the master's process id, relative to --chdir; there while it is ready."
    )
    proc_name: str = _option(_PROCESS, Text(), "preforkd", "The first word of the process titles.")

    reload: bool = _option(
        _DEVELOPMENT,
        Flag(),
        False,
        "Reload when a file is saved; one worker, and no old one stands by. Needs the extra: "
        "pip install 'preforkd[reload]'.",
    )
    reload_dir: tuple[str, ...] = _option(
        _DEVELOPMENT,
        Texts("FOLDER"),
        (),
        "Folder that is watched, relative to --chdir; else --app-dir, and the folder of a file that APP names. "
        "Repeatable.",
        repeatable=True,
    )
    reload_include: tuple[str, ...] = _option(
        _DEVELOPMENT,
        Texts("PATTERN"),
        ("*.py",),
        "Files that count, by a pattern of their name or of their path below the folder. Repeatable.",
        repeatable=True,
    )
    reload_exclude: tuple[str, ...] = _option(
        _DEVELOPMENT,
        Texts("PATTERN"),
        (),
        "Files that do not count, by such a pattern. Repeatable.",
        repeatable=True,
    )

    @property
    def counting(self) -> bool:
        """Whether workers count each request by method, status and duration: somebody reads it."""
        return bool(self.admin or self.statsd)

    def worker_settings(self) -> WorkerSettings:
        """What a worker of these options is told."""
        names = [one.name for one in fields(WorkerSettings)]
        return WorkerSettings(**{name: getattr(self, name) for name in names})


def declarations() -> Iterator[Declaration]:
    """Every option in the order of the help."""
    for one in fields(Options):
        if one.default is MISSING:
            raise TypeError(f"option {one.name} has no default")
        yield Declaration(name=one.name, default=one.default, **one.metadata)


DECLARATIONS = tuple(declarations())
BY_NAME = {one.name: one for one in DECLARATIONS}
