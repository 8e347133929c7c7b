"""Why each option has the default that it has, and what else to know of it: for the files that `reference.py` makes.

The help says what an option is, in a line; these say why one would leave it or change it.
"""

from __future__ import annotations

REASONS = {
    "app": "What is given on the command line, or as PREFORKD_APP, takes its place.",
    "factory": "Most apps are objects of a module. The function is a plain one, no coroutine function.",
    "interface": 'Say it where it cannot be seen, as with a callable that takes "*args", or a proxy object.',
    "root_path": "Empty: the app is at the root. A trusted proxy's X-Forwarded-Prefix takes its place.",
    "threads": "1, for an app may not be safe for threads. More is right for apps that wait for a database.",
    "app_dir": "The folder that one deploys from, as with `python -m`.",
    "hooks": '"module:object", "module" or "path/hooks.py"; for what does not live through a fork, as telemetry.',
    "server_header": "A client need not know the version.",
    "chdir": "When it is a symlink that a deploy switches, a reload is all that the deploy needs.",
    "bind": "An address that only this machine can reach, or 0.0.0.0:$PORT where PORT is set, as in a container. "
    'An address may be a table with TLS settings of its own: { address = ":9443", ca_certs = "ca.pem", cert_reqs '
    '= "required" }.',
    "backlog": "Enough for a burst while workers are replaced; the kernel takes no more than net.core.somaxconn.",
    "certfile": "The master reads it (with user = ... only root needs the right to), and looks every second "
    "whether it has changed: a switched symlink, as Kubernetes mounts secrets, counts.",
    "keyfile": "",
    "keyfile_password": '"@FILE" or "$VARIABLE"; never on the command line, which everybody on the machine can read.',
    "sni_certificate": "Each is a table [[sni_certificate]] at the end of this file, with names = "
    '["shop.example", "*.shop.example"]; without names, those that it was issued for count.',
    "tls_min": "1.0 and 1.1 are broken, and 1.2 is still asked for.",
    "ciphers": "TLS 1.3 has no weak ones, and no choice.",
    "ca_certs": "",
    "cert_reqs": "A browser that has none would only be asked a question.",
    "handshake_timeout": "A handshake takes two round trips; who needs longer is no client.",
    "forwarded": "What most proxies send. One that is trusted must set each of these fields or take it out.",
    "forwarded_allow_ips": "What connects from this machine is a proxy or a developer. In a container behind a "
    "load balancer this is the one thing to set: the network that it connects from.",
    "proxy_protocol": "With it every connection must begin so; HAProxy's send-proxy and the NLB of AWS do.",
    "proxy_allow_from": "Whoever may write that header chooses his address.",
    "request_id_header": "So that a line of the access log can be found again from the client's side.",
    "workers": "The start-up log tells the number and the reason. Without a quota 8 at most, for each has the app"
    " in memory: some 50 MiB of a FastAPI app, and twice that in a reload. WEB_CONCURRENCY is used when nothing else"
    " gives it.",
    "surge": "A reload needs that much memory more, for its time.",
    "trial": "Most code that dies, dies at once; while the old workers stand by, a rollback needs no boot.",
    "trial_workers": "A canary doubles the time of a deploy, and needs traffic to say something.",
    "trial_errors": "What share of errors is none of the new code's, only the app's author knows.",
    "max_requests": "A worker that leaks is mended, not recycled; until then this helps.",
    "max_requests_jitter": "A number, or a part of max_requests.",
    "max_lifetime": "Against what grows by time and not by requests.",
    "max_rss": "The safest of the three against leaks: it looks at what they are about. Well below the limit of "
    "the container.",
    "preload": "Less memory, and workers that are back at once; but what the import opens is shared by all of them.",
    "startup_timeout": "Large apps take long to import on a busy machine; a hung boot should not hold a deploy "
    "for ever.",
    "stall_timeout": "Long enough for a garbage collection or a slow call, short enough for a load balancer not "
    "to give up first.",
    "limit_connections": "They wait in the backlog, and other workers take them.",
    "limit_concurrency": "How many an app can take, only the app's author knows.",
    "limit_queue_time": "A little less than your clients wait: what is done for one who has given up is lost.",
    "limit_per_client": "Offices and mobile networks come from one address. The client is the one that a PROXY "
    "header names.",
    "keep_alive": "Load balancers keep their idle connections for 60 s, and the side that is about to send should"
    " be the one that closes.",
    "keep_alive_requests": "A reload closes connections anyway; this is for clients that should spread over new "
    "workers.",
    "header_timeout": "Slow networks need a second; those that need longer hold connections open on purpose.",
    "body_timeout": "An upload may take as long as it likes while it goes on.",
    "write_timeout": "A download may take as long as it likes while it goes on.",
    "request_timeout": "What an app may take for a request, only the app's author knows.",
    "disconnect_timeout": "An app is told that its client has left, and may want to finish all the same.",
    "websocket_ping": "Below the 60 s of load balancers, so that they see traffic.",
    "websocket_ping_timeout": "A phone in a tunnel comes back within that.",
    "websocket_compression": "It costs CPU time, and saves more of the network's.",
    "health_path": "The app may have such a path itself. Requests for it are in no access log.",
    "drain_delay": "0 is right where a load balancer sends a refused request elsewhere, or where there is none; "
    "else longer than it takes to notice. TERM starts one clock: drain_delay, graceful_timeout, shutdown_timeout,"
    " the end. Whoever sends KILL afterwards must wait longer than the three together.",
    "graceful_timeout": "With shutdown_timeout that is the 30 s that Kubernetes waits unless it is told to wait "
    "longer.",
    "shutdown_timeout": "Pools close and queues are flushed in that.",
    "drain_streams": "The clients of event streams come back by themselves; those of a download do not.",
    "idle_grace": "A request that crosses the drain arrives within a round trip; a client nearly never needs 2 s.",
    "admin": 'A probe there waits for nobody: "127.0.0.1:9000", "unix:/run/shop/admin.sock".',
    "statsd": '"HOST:PORT" (UDP) or "unix:PATH".',
    "statsd_prefix": "",
    "statsd_tags": "",
    "parser": "A small request costs the compiled one half of the CPU time.",
    "limit_request_line": "As Apache has it; longer addresses are mistakes.",
    "limit_headers": "Browsers stay well below, also behind proxies.",
    "limit_header_size": "Cookies of 4 kB each, and a token or two.",
    "limit_body": "What an app takes, only the app's author knows; it is streamed, not kept.",
    "limit_websocket_message": "A message is kept in memory whole, and 16M is what others take.",
    "access_log": "Standard output is where a container's log is looked for.",
    "access_log_format": "Atoms of Apache and gunicorn; %(X)s is X for a response that was cut, %(id)s the "
    "request's id.",
    "access_log_file": "USR1 opens a file anew, for logrotate.",
    "access_log_skip": 'For pages that a probe asks for every second: ["/healthz"].',
    "slow_request": "A second or five; streams and long downloads count as slow too.",
    "log_format": '"json" has stable names for events, see the documentation.',
    "log_level": "A deploy is told in a dozen lines.",
    "log_config": "The logger preforkd is the worker's own; what a handler does is waited for.",
    "capture_output": "A print that nobody reads can stop a worker otherwise.",
    "debug": "",
    "user": "Whoever starts it as root wants a port below 1024, and no app of root's.",
    "group": "",
    "umask": '"027", in octal. A unix socket with ?mode= has that.',
    "pid": "systemd and containers know the process without one.",
    "proc_name": "For ps and top, where several daemons run.",
    "reload": "For development alone.",
    "reload_dir": "",
    "reload_include": "The configuration file always counts.",
    "reload_exclude": "Hidden folders and caches never count.",
}
