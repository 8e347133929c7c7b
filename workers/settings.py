"""What a worker is told by its master when it is forked."""

from __future__ import annotations

from preforkd.workers.records import dataclass


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The options that a worker acts on; `preforkd.daemon.config` declares, documents and checks each of them.

    Times are seconds, sizes bytes; 0 switches a limit off unless the option's help says otherwise.
    """

    app: str
    interface: str
    factory: bool
    app_dir: str
    hooks: str
    root_path: str
    threads: int
    backlog: int
    max_requests: int
    max_requests_jitter: int
    max_lifetime: float
    max_rss: int
    limit_connections: int
    limit_concurrency: int
    limit_queue_time: float
    limit_per_client: int
    forwarded: str
    forwarded_allow_ips: tuple[str, ...]
    proxy_protocol: str
    proxy_allow_from: tuple[str, ...]
    request_id_header: str
    keep_alive: float
    keep_alive_requests: int
    handshake_timeout: float
    header_timeout: float
    body_timeout: float
    write_timeout: float
    request_timeout: float
    disconnect_timeout: float
    graceful_timeout: float
    shutdown_timeout: float
    idle_grace: float
    parser: str
    drain_streams: str
    limit_request_line: int
    limit_headers: int
    limit_header_size: int
    limit_body: int
    limit_websocket_message: int
    websocket_ping: float
    websocket_ping_timeout: float
    websocket_compression: bool
    access_log: bool
    access_log_format: str
    access_log_file: str
    access_log_skip: tuple[str, ...]
    log_format: str
    log_level: str
    log_config: str
    capture_output: bool
    slow_request: float
    debug: bool
    health_path: str
    counting: bool
    server_header: str
