"""What the options of other servers are called here, as data: for command lines, gunicorn.conf.py and documentation.

Options of ours that do not exist (yet) may be named: whoever reads the tables asks `preforkd.daemon.options` for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from preforkd.workers.records import dataclass

SERVERS: Final = ("gunicorn", "uvicorn", "granian", "hypercorn", "uwsgi")


@dataclass(frozen=True, slots=True)
class Equivalent:
    """An option of ours, and what it is called elsewhere, as it is typed there: several names with blanks between."""

    ours: str
    gunicorn: str = ""
    uvicorn: str = ""
    granian: str = ""
    hypercorn: str = ""
    uwsgi: str = ""

    def flags(self, server: str) -> tuple[str, ...]:
        """Return the names that a server has for it."""
        return tuple(getattr(self, server).split())


EQUIVALENTS: Final = (
    Equivalent("app", uwsgi="--module --wsgi-file --callable"),
    Equivalent("factory", "", "--factory", "--factory"),
    Equivalent("interface", "-k --worker-class", "--interface", "--interface", "-k --worker-class"),
    Equivalent("root_path", "--root-path", "--root-path", "--url-path-prefix", "--root-path", "--mount"),
    Equivalent("threads", "--threads", "", "--blocking-threads", "", "--threads"),
    Equivalent("app_dir", "--pythonpath", "--app-dir", "", "", "--pythonpath --pp"),
    Equivalent("chdir", "--chdir", "", "--working-dir", "", "--chdir"),
    Equivalent("server_header", "", "--no-server-header"),
    Equivalent(
        "bind", "-b --bind", "--host --port --uds --fd", "--host --port --uds", "-b --bind", "--http --http-socket"
    ),
    Equivalent("backlog", "--backlog", "--backlog", "--backlog", "--backlog", "--listen"),
    Equivalent("workers", "-w --workers", "--workers", "--workers", "-w --workers", "--processes -p"),
    Equivalent("preload", "--preload"),
    Equivalent("max_requests", "--max-requests", "--limit-max-requests", "", "--max-requests", "--max-requests"),
    Equivalent(
        "max_requests_jitter",
        "--max-requests-jitter",
        "--limit-max-requests-jitter",
        "",
        "--max-requests-jitter",
        "--max-requests-delta",
    ),
    Equivalent("max_lifetime", "", "", "--workers-lifetime", "", "--max-worker-lifetime"),
    Equivalent("max_rss", "", "", "--workers-max-rss", "", "--reload-on-rss"),
    Equivalent("stall_timeout", "-t --timeout", "--timeout-worker-healthcheck", "", "", "--harakiri"),
    Equivalent("request_timeout", uwsgi="--harakiri"),
    Equivalent("graceful_timeout", "--graceful-timeout", "--timeout-graceful-shutdown", "--workers-kill-timeout",
               "--graceful-timeout", "--worker-reload-mercy"),
    Equivalent("keep_alive", "--keep-alive", "--timeout-keep-alive", "", "--keep-alive", "--http-keepalive"),
    Equivalent("header_timeout", "", "", "--http1-header-read-timeout", "", "--http-headers-timeout"),
    Equivalent("limit_connections", "--worker-connections"),
    Equivalent("limit_concurrency", "", "--limit-concurrency", "--backpressure"),
    Equivalent("limit_request_line", "--limit-request-line"),
    Equivalent("limit_headers", "--limit-request-fields"),
    Equivalent("limit_header_size", "--limit-request-field_size", "--h11-max-incomplete-event-size", "", "",
               "--buffer-size"),
    Equivalent("limit_body", "", "", "", "", "--limit-post"),
    Equivalent("limit_websocket_message", "--websocket-max-message-size", "--ws-max-size"),
    Equivalent("websocket_ping", "", "--ws-ping-interval", "", "--websocket-ping-interval"),
    Equivalent("websocket_ping_timeout", "", "--ws-ping-timeout"),
    Equivalent("websocket_compression", "", "--ws-per-message-deflate"),
    Equivalent("access_log", "", "--access-log", "--access-log", "", "--disable-logging"),
    Equivalent("access_log_file", "--access-logfile", "", "", "--access-logfile", "--req-logger"),
    Equivalent("access_log_format", "--access-logformat", "", "--access-log-fmt", "--access-logformat", "--log-format"),
    Equivalent("log_level", "--log-level", "--log-level", "--log-level", "--log-level"),
    Equivalent("log_config", "--log-config --log-config-json", "--log-config", "--log-config", "--log-config"),
    Equivalent("capture_output", "--capture-output"),
    Equivalent("hooks", "post_fork post_worker_init worker_int worker_exit", "", "", "", "@postfork"),
    Equivalent("reload", "--reload", "--reload", "--reload", "--reload", "--py-autoreload"),
    Equivalent("reload_dir", "", "--reload-dir", "--reload-paths"),
    Equivalent("reload_include", "--reload-extra-file", "--reload-include"),
    Equivalent("reload_exclude", "", "--reload-exclude", "--reload-ignore-patterns"),
    Equivalent("user", "-u --user", "", "", "-u --user", "--uid"),
    Equivalent("group", "-g --group", "", "", "-g --group", "--gid"),
    Equivalent("umask", "-m --umask", "", "", "-m --umask", "--umask"),
    Equivalent("pid", "-p --pid", "", "--pid-file", "-p --pid", "--pidfile"),
    Equivalent("proc_name", "-n --name", "", "--process-name", "", "--procname-prefix"),
    Equivalent("certfile", "--certfile", "--ssl-certfile", "--ssl-certificate", "--certfile", "--https"),
    Equivalent("keyfile", "--keyfile", "--ssl-keyfile", "--ssl-keyfile", "--keyfile", "--https"),
    Equivalent("keyfile_password", "", "--ssl-keyfile-password", "--ssl-keyfile-password", "--keyfile-password"),
    Equivalent("ca_certs", "--ca-certs", "--ssl-ca-certs", "--ssl-ca", "--ca-certs", "--https"),
    Equivalent("cert_reqs", "--cert-reqs", "--ssl-cert-reqs", "--ssl-client-verify", "--verify-mode"),
    Equivalent("ciphers", "--ciphers", "--ssl-ciphers", "", "--ciphers", "--https"),
    Equivalent("tls_min", "--ssl-version", "--ssl-version", "--ssl-protocol-min"),
    Equivalent("forwarded_allow_ips", "--forwarded-allow-ips", "--forwarded-allow-ips"),
    Equivalent("proxy_protocol", "--proxy-protocol", "", "", "", "--enable-proxy-protocol"),
    Equivalent("proxy_allow_from", "--proxy-allow-from"),
    Equivalent("statsd", "--statsd-host", "", "", "--statsd-host", "--stats-push"),
    Equivalent("admin", "", "", "--metrics", "", "--stats"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Taken:
    """A foreign option that the command line takes for one of ours.

    Attributes:
        flags: as they are typed.
        ours: the name of the option here.
        form: what the value becomes; one that no `{}` is in is for a flag without a value.
        note: what differs, if anything does.
    """

    flags: str
    ours: str
    form: str = "{}"
    note: str = ""

    @property
    def is_flag(self) -> bool:
        """Whether it is typed without a value."""
        return "{}" not in self.form


@dataclass(frozen=True, slots=True)
class Left:
    """A foreign option that means nothing here, or that cannot be taken.

    Attributes:
        flags: as they are typed.
        text: why it is left out, or what to do instead.
        refused: the daemon does not start with it: without what it says the app would run differently.
        is_flag: it is typed without a value.
        harmless: the values with which it is left out although it is refused with others.
    """

    flags: str
    text: str
    refused: bool = False
    is_flag: bool = False
    harmless: tuple[str, ...] = ()


_SILENT: Final = (
    "a worker whose event loop stands still for so long is replaced; --request-timeout is for requests that take long"
)
_COUNTED: Final = "all headers of a request together count, not the longest"

TAKEN: Final = (
    Taken("--uds", "bind", "unix:{}"),
    Taken("--fd", "bind", "fd:{}"),
    Taken("--no-server-header", "server_header", "off"),
    Taken("--url-path-prefix", "root_path"),
    Taken("--pythonpath", "app_dir"),
    Taken("--working-dir", "chdir"),
    Taken("--blocking-threads", "threads"),
    Taken("--limit-max-requests", "max_requests"),
    Taken("--limit-max-requests-jitter", "max_requests_jitter"),
    Taken("--workers-lifetime", "max_lifetime"),
    Taken("--workers-max-rss", "max_rss", "{}M"),
    Taken("-t --timeout", "stall_timeout", note=_SILENT),
    Taken("--timeout-worker-healthcheck", "stall_timeout"),
    Taken("--timeout-graceful-shutdown --workers-kill-timeout", "graceful_timeout"),
    Taken("--timeout-keep-alive", "keep_alive"),
    Taken("--http1-header-read-timeout", "header_timeout", "{}ms"),
    Taken("--worker-connections", "limit_connections"),
    Taken("--backpressure", "limit_concurrency"),
    Taken("--limit-request-fields", "limit_headers"),
    Taken("--limit-request-field_size --h11-max-incomplete-event-size", "limit_header_size", note=_COUNTED),
    Taken("--websocket-max-message-size --ws-max-size", "limit_websocket_message"),
    Taken("--ws-ping-interval --websocket-ping-interval", "websocket_ping"),
    Taken("--ws-ping-timeout", "websocket_ping_timeout"),
    Taken("--ws-per-message-deflate", "websocket_compression"),
    Taken("--access-logfile", "access_log_file"),
    Taken("--access-logformat --access-log-fmt", "access_log_format"),
    Taken("--log-config-json", "log_config"),
    Taken("--reload-paths", "reload_dir"),
    Taken("--reload-extra-file", "reload_include"),
    Taken("--reload-ignore-patterns", "reload_exclude"),
    Taken("-u", "user"),
    Taken("-g", "group"),
    Taken("-m", "umask"),
    Taken("-p --pid-file", "pid"),
    Taken("-n --name --process-name", "proc_name"),
    Taken("--ssl-certfile --ssl-certificate", "certfile"),
    Taken("--ssl-keyfile", "keyfile"),
    Taken("--ssl-keyfile-password", "keyfile_password"),
    Taken("--ssl-ca-certs --ssl-ca", "ca_certs"),
    Taken("--ssl-ciphers", "ciphers"),
    Taken("--ssl-protocol-min", "tls_min"),
    Taken("--ssl-client-verify", "cert_reqs", "required"),
    Taken("--statsd-host", "statsd"),
)

_ALWAYS_UVLOOP: Final = "the event loop is always uvloop"
_OWN_PARSER: Final = "the HTTP parser is preforkd's own (--parser)"
_STDERR: Final = "the log goes to standard error: redirect that, as in 2>>FILE"
_ENVIRONMENT: Final = (
    "set the environment where the daemon is started: Environment= of systemd, --env of docker, env NAME=VALUE preforkd"
)
_PROXY: Final = "which proxies are believed is said by --forwarded-allow-ips"
_STATIC: Final = "files are served by the app, or by the proxy in front of it"

LEFT: Final = (
    Left("--loop --asgi-loop", _ALWAYS_UVLOOP),
    Left("--http", _OWN_PARSER),
    Left("--http-parser", _OWN_PARSER),
    Left("--ws", "WebSocket is there when the extra is: pip install 'preforkd[websocket]'"),
    Left("--no-ws", "WebSocket is there when the extra is installed", is_flag=True),
    Left("--ws-max-queue", "messages wait in the socket while the app does not receive"),
    Left(
        "--lifespan --asgi-lifespan",
        "an app that raises before it has received anything has no lifespan; leave it out",
        refused=True,
        harmless=("auto", "on"),
    ),
    Left("--use-colors --no-use-colors", "colours are for terminals alone; NO_COLOR=1 switches them off", is_flag=True),
    Left("--proxy-headers --no-proxy-headers", _PROXY, is_flag=True),
    Left("--no-date-header", "every response has a Date (RFC 9110 section 6.6.1)", refused=True, is_flag=True),
    Left("--date-header", "every response has a Date", is_flag=True),
    Left("--header", "response headers are the app's, or those of the proxy in front of it", refused=True),
    Left("--env-file --env-files", _ENVIRONMENT, refused=True),
    Left("-e --env", _ENVIRONMENT, refused=True),
    Left("-D --daemon", "run it under systemd or in a container, or behind `nohup ... &`", refused=True, is_flag=True),
    Left("--error-logfile --log-file", _STDERR, refused=True, harmless=("-",)),
    Left("--log-syslog", f"{_STDERR}; systemd's journal takes it as it is", refused=True, is_flag=True),
    Left("--log-syslog-to --log-syslog-prefix --log-syslog-facility", _STDERR, refused=True),
    Left("--logger-class", "--log-config FILE takes a dictConfig", refused=True),
    Left("--check-config", "--check goes through all of a worker's start, --print-config prints the options",
         refused=True, is_flag=True),
    Left("--reload-engine", "changes are told by watchfiles"),
    Left("--reload-delay --reload-tick", "a change is acted on at once"),
    Left("--worker-tmp-dir", "heartbeats are in memory that all workers share; there are no files"),
    Left("--no-sendfile", "files are sent by the kernel where it can", is_flag=True),
    Left("--reuse-port", "all workers share one socket, and take connections evenly", is_flag=True),
    Left("--initgroups", "workers have the supplementary groups of --user", is_flag=True),
    Left("-R --enable-stdio-inheritance", "standard streams are inherited", is_flag=True),
    Left("--respawn-failed-workers --no-respawn-failed-workers", "a worker that dies is always replaced", is_flag=True),
    Left("--runtime-threads --runtime-blocking-threads --runtime-mode --task-impl", "a worker has one event loop"),
    Left("--paste --paster", "name the app by its module, or write a function that makes it (--factory)", refused=True),
    Left("--spew", "`python -X importtime` and `kill -USR2` to a worker (its stacks) show more", refused=True,
         is_flag=True),
    Left("--static-path-route --static-path-mount", _STATIC, refused=True),
    Left("--ssl-cert-reqs", "--cert-reqs takes a word: none, optional or required", refused=True, harmless=("0",)),
    Left("--ssl-version", "--tls-min 1.2 or 1.3 is the oldest version of TLS that is spoken", refused=True),
    Left("--reset-contextvars", "each request has a context of its own", is_flag=True),
)  # fmt: skip

WORKER_CLASSES: Final = {
    "sync": "wsgi",
    "gthread": "wsgi",
    "asgi": "asgi",
    "asyncio": "auto",
    "uvloop": "auto",
    "uvicorn.workers.UvicornWorker": "asgi",
    "uvicorn.workers.UvicornH11Worker": "asgi",
    "uvicorn_worker.UvicornWorker": "asgi",
    "uvicorn_worker.UvicornH11Worker": "asgi",
}
"""Of gunicorn and hypercorn, and the interface of the apps that they serve."""
INTERFACES: Final = {"asgi3": "asgi", "asginl": "asgi"}
"""Names that others have for the values of --interface."""

SETTINGS: Final = {
    "worker_class": "--worker-class",
    "keepalive": "--keep-alive",
    "accesslog": "--access-logfile",
    "access_log_format": "--access-logformat",
    "errorlog": "--error-logfile",
    "loglevel": "--log-level",
    "logconfig": "--log-config",
    "logconfig_json": "--log-config-json",
    "pidfile": "--pid",
    "proc_name": "--name",
    "raw_env": "--env",
    "preload_app": "--preload",
    "limit_request_field_size": "--limit-request-field_size",
    "proxy_allow_ips": "--proxy-allow-from",
    "reload_extra_files": "--reload-extra-file",
    "syslog": "--log-syslog",
    "syslog_addr": "--log-syslog-to",
    "sendfile": "--no-sendfile",
}
"""Of gunicorn.conf.py, those that are not called as their option is."""

HOOKS: Final = {
    "post_fork": "boot",
    "post_worker_init": "ready",
    "worker_int": "drain",
    "worker_exit": "exit",
}
"""Functions of gunicorn.conf.py, and the hook (--hooks) that runs at the same moment."""
NO_HOOKS: Final = {
    "on_starting": "no code of the app runs in the master: what is to be done once comes before the daemon's start",
    "on_reload": "no code of the app runs in the master",
    "when_ready": "systemd is told by itself (Type=notify); --pid FILE is there when the daemon is ready",
    "pre_fork": "no code of the app runs in the master; --preload imports the app once, before the workers",
    "pre_exec": "no code of the app runs in the master",
    "child_exit": "the log says of each worker how it ended, in JSON as worker_exit",
    "worker_abort": "a worker that hangs is reported with its stacks",
    "nworkers_changed": "the log says so",
    "on_exit": "no code of the app runs in the master",
    "pre_request": "wrap the app: middleware sees each request",
    "post_request": "wrap the app: middleware sees each request",
    "ssl_context": "see the TLS options",
    "logconfig_dict": "write it to a file, in TOML or JSON, and name that with --log-config",
    "default_proc_name": "--proc-name",
    "secure_scheme_headers": "X-Forwarded-Proto and Forwarded are read of trusted peers",
    "wsgi_app": "app",
}
"""Names of gunicorn.conf.py that have no option of the command line, and what to do instead."""


def taken() -> Iterator[tuple[str, Taken]]:
    """Yield each flag that is taken for an option of ours."""
    for one in TAKEN:
        for flag in one.flags.split():
            yield flag, one


def left() -> Iterator[tuple[str, Left]]:
    """Yield each flag that is left out or refused."""
    for one in LEFT:
        for flag in one.flags.split():
            yield flag, one
