"""The environ of a WSGI call (PEP 3333) from a request's head and its connection.

What a client may not decide stays out: fields with an underscore in their name would be taken for the ones with a
hyphen (`X_Real_Ip` for `X-Real-Ip`), and `Proxy` would become `HTTP_PROXY`, which HTTP clients take for the address of
a proxy (CVE-2016-5385).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from preforkd.workers.gateways.described import compiled_form
from preforkd.workers.http import compiled
from preforkd.workers.http.names import MEANT, PLAIN
from preforkd.workers.http.tls_info import info_of, variables_of

if TYPE_CHECKING:
    import asyncio

    from preforkd.workers.http.message import Fields, Forwarded, RequestMessage
    from preforkd.workers.proxy_protocol import ProxyHeader

Environ = dict[str, Any]
Address = tuple[str, int]


def variable_of(name: bytes) -> str | None:
    """Return the variable of a field (RFC 3875 section 4.1.18), None when the app must not see it.

    Args:
        name: in lower case.
    """
    if name in (b"content-type", b"content-length"):
        return name.decode("ascii").upper().replace("-", "_")
    if b"_" in name or name == b"proxy":
        return None
    return "HTTP_" + name.decode("ascii").upper().replace("-", "_")


# Of the names that HTTP repeats; others are made anew each time.
_VARIABLES = {name: variable for name in (*PLAIN, *MEANT) if (variable := variable_of(name)) is not None}


def add_fields(environ: Environ, fields: Fields) -> None:
    """Add the request's fields; repeated ones are joined as RFC 9110 section 5.3 and RFC 6265 section 5.4 say."""
    known = _VARIABLES.get
    for name, value in fields:
        variable = known(name) or variable_of(name)
        if variable is None:
            continue
        text = value.decode("latin-1")
        if variable in environ:
            text = f"{environ[variable]}{'; ' if variable == 'HTTP_COOKIE' else ','}{text}"
        environ[variable] = text


def split_target(target: str) -> tuple[str, str]:
    """Return path and query of a request target in any form (RFC 9112 section 3.2), the path percent-decoded.

    The path's bytes are decoded as latin-1, as PEP 3333 wants all strings. That of `OPTIONS *` is `*`, as in gunicorn,
    uWSGI, waitress and granian: an empty one means the root, to which Flask redirects and whose methods Django answers.
    """
    path, _, query = target.partition("?")
    if path[:1] not in ("/", "*"):
        path = "/" + path.partition("://")[2].partition("/")[2]
    if "%" in path:
        path = unquote_to_bytes(path).decode("latin-1")
    return path, query


def connection_environ(
    transport: asyncio.BaseTransport, proxied: ProxyHeader | None = None, *, threads: int
) -> Environ:
    """Return what is the same in all requests of a connection, and of others like it.

    On a unix socket there is no address: `REMOTE_ADDR` is empty, and `SERVER_NAME` and `SERVER_PORT` come with each
    request from its Host field.

    Args:
        transport: of the connection.
        proxied: what a PROXY header has said of it.
        threads: calls at a time in this process.
    """
    scheme = "https" if transport.get_extra_info("sslcontext") is not None else "http"
    environ: Environ = {
        "SERVER_SOFTWARE": "preforkd",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.errors": error_stream(),
        "wsgi.multithread": threads > 1,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,  # the stream ends where the body does, chunked or not
        # Of each request; here so that a copy need not grow, which costs as much again.
        "REQUEST_METHOD": "",
        "REQUEST_URI": "",
        "RAW_URI": "",
        "PATH_INFO": "",
        "QUERY_STRING": "",
    }
    local = transport.get_extra_info("sockname")
    if proxied is not None:
        local = proxied.server or local
        environ["preforkd.proxy"] = {"authority": proxied.authority, "unique_id": proxied.unique_id}
    if isinstance(local, tuple):
        environ["SERVER_NAME"], environ["SERVER_PORT"] = str(local[0]), str(local[1])
    if (tls := transport.get_extra_info("ssl_object")) is not None:
        environ |= variables_of(info_of(tls))
    return environ


def error_stream() -> Any:
    """Return `wsgi.errors`; an app may have put None in the place of `sys.stderr`."""
    return sys.stderr or sys.__stderr__


def add_server_of_host(environ: Environ) -> None:
    """Take the server's name and port from the Host field, which the protocol has checked: for unix sockets."""
    host = environ.get("HTTP_HOST") or "localhost"
    name, colon, port = host.rpartition(":")
    if not colon or "]" in port:
        name, port = host, ""
    environ["SERVER_NAME"] = name
    environ["SERVER_PORT"] = port or ("443" if environ["wsgi.url_scheme"] == "https" else "80")


def forward(environ: Environ, said: Forwarded) -> str:
    """Have an environ say what trusted proxies say of the request; return the path that they have stripped."""
    client = said.client
    environ["REMOTE_ADDR"] = client[0] if client is not None else ""
    if client is not None and client[1]:
        environ["REMOTE_PORT"] = str(client[1])
    else:
        environ.pop("REMOTE_PORT", None)
    if said.scheme:
        environ["wsgi.url_scheme"] = said.scheme
    if said.server is not None:
        environ["SERVER_NAME"], environ["SERVER_PORT"] = said.server[0], str(said.server[1])
    elif "SERVER_NAME" not in environ:
        add_server_of_host(environ)
    root = environ["SCRIPT_NAME"] = unquote_to_bytes(said.prefix).decode("latin-1") or environ["SCRIPT_NAME"]
    return str(root)


@compiled.in_both_forms
class EnvironSource:
    """Makes the environs of a connection, and of others like it.

    Args:
        base: what is the same in all their requests.
        root_path: the path that the app is mounted at, without a slash at its end.

    Attributes:
        errors: `wsgi.errors`.
    """

    __slots__ = ("_base", "_needs_server", "_root_path", "_usual", "_variables", "errors")

    def __init__(self, base: Environ, root_path: str) -> None:
        self._base = base
        base["SCRIPT_NAME"] = self._root_path = root_path
        self.errors = base["wsgi.errors"]
        self._needs_server = "SERVER_NAME" not in base
        self._variables = _VARIABLES
        described = compiled_form()
        self._usual = described.environ if described is not None and not root_path and not self._needs_server else None

    def environ(self, message: RequestMessage, client: Address | None) -> Environ:
        """Return the environ of a request, without `wsgi.input` when there is a body.

        Args:
            message: its head.
            client: who has opened the connection.
        """
        # Flat: every request passes here.
        if self._usual is not None:
            usual: Environ | None = self._usual(self._base, self._variables, message, client)
            if usual is not None:
                return usual
        environ = self._base.copy()
        if client is not None:
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client[0], str(client[1])
        add_fields(environ, message.fields)
        if self._needs_server and message.forwarded is None:
            add_server_of_host(environ)
        target = message.path
        if "%" in target or target[0] != "/":
            path, query = split_target(target)
        else:
            path, _, query = target.partition("?")
        environ["REQUEST_METHOD"] = message.method
        if not message.version[1]:
            environ["SERVER_PROTOCOL"] = "HTTP/1.0"
        environ["REQUEST_URI"] = environ["RAW_URI"] = target
        environ["QUERY_STRING"] = query
        root = self._root_path
        if message.forwarded is not None:
            root = forward(environ, message.forwarded) or root
        if root and path == "*":
            environ["SCRIPT_NAME"] = ""  # it means the server, not a path in it
        elif root and path.startswith(root) and path[len(root) : len(root) + 1] in ("/", ""):
            path = path[len(root) :]
        environ["PATH_INFO"] = path
        if message.request_id:
            environ["preforkd.request_id"] = message.request_id
        return environ
