"""The environ is complete, and a client cannot forge any of it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from preforkd.workers.gateways.wsgi.environ import EnvironSource, connection_environ, split_target
from preforkd.workers.http.message import HttpVersion10, HttpVersion11, RequestMessage


class Transport(asyncio.BaseTransport):
    """Knows what it was told."""

    def __init__(self, **extra: Any) -> None:
        super().__init__(extra)


TCP = Transport(sockname=("10.0.0.1", 8080), peername=("10.0.0.2", 40000))


def environ_of(
    target: str = "/",
    *fields: tuple[bytes, bytes],
    method: str = "GET",
    root_path: str = "",
    transport: asyncio.BaseTransport = TCP,
    threads: int = 1,
) -> dict[str, Any]:
    peer = transport.get_extra_info("peername")
    client = peer[:2] if isinstance(peer, tuple) else None
    source = EnvironSource(connection_environ(transport, threads=threads), root_path)
    return source.environ(
        RequestMessage(method, target, HttpVersion11, [(name.lower(), value) for name, value in fields], False), client
    )


def test_every_variable_of_pep_3333_is_there_with_its_type() -> None:
    fields = (b"Host", b"example.com"), (b"Content-Type", b"text/plain"), (b"Content-Length", b"3")
    environ = environ_of("/a/b?x=1&y", *fields, method="POST")
    assert environ == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "x=1&y",
        "REQUEST_URI": "/a/b?x=1&y",
        "RAW_URI": "/a/b?x=1&y",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "3",
        "SERVER_NAME": "10.0.0.1",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "preforkd",
        "REMOTE_ADDR": "10.0.0.2",
        "REMOTE_PORT": "40000",
        "HTTP_HOST": "example.com",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }


def test_http_1_0_and_https_and_threads_are_said() -> None:
    transport = Transport(sockname=("::1", 443, 0, 0), peername=("::2", 1, 0, 0), sslcontext=object())
    source = EnvironSource(connection_environ(transport, threads=2), "")
    environ = source.environ(RequestMessage("GET", "/", HttpVersion10, [], True), ("::2", 1))
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert environ["wsgi.url_scheme"] == "https"
    assert environ["wsgi.multithread"] is True
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"], environ["REMOTE_ADDR"]) == ("::1", "443", "::2")


@pytest.mark.parametrize(
    ("host", "name", "port"),
    [
        (b"example.com", "example.com", "80"),
        (b"example.com:8000", "example.com", "8000"),
        (b"[::1]", "[::1]", "80"),
        (b"[::1]:8000", "[::1]", "8000"),
        (b"example.com:", "example.com", "80"),
        (None, "localhost", "80"),
    ],
)
def test_on_a_unix_socket_the_server_is_the_one_of_the_host_field(host: bytes | None, name: str, port: str) -> None:
    fields = ((b"Host", host),) if host else ()
    environ = environ_of("/", *fields, transport=Transport(sockname="/run/x.sock", peername=""))
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"], environ["REMOTE_ADDR"]) == (name, port, "")
    assert "REMOTE_PORT" not in environ


def test_a_field_with_an_underscore_cannot_pass_for_one_with_a_hyphen() -> None:
    fields = (b"X-Real-IP", b"1.1.1.1"), (b"X_Real_IP", b"6.6.6.6"), (b"Content_Length", b"9"), (b"x_y-z", b"1")
    environ = environ_of("/", *fields)
    assert environ["HTTP_X_REAL_IP"] == "1.1.1.1"
    assert not {"CONTENT_LENGTH", "HTTP_X_Y_Z", "HTTP_CONTENT_LENGTH"} & environ.keys()


@pytest.mark.parametrize("name", [b"Proxy", b"PROXY", b"proxy"])
def test_a_client_cannot_set_http_proxy(name: bytes) -> None:
    assert "HTTP_PROXY" not in environ_of("/", (name, b"http://evil:1"))


def test_a_client_cannot_set_variables_of_the_server() -> None:
    fields = (b"wsgi.input", b"x"), (b"Remote-Addr", b"6.6.6.6"), (b"Script-Name", b"/x"), (b"Https", b"on")
    environ = environ_of("/", *fields)
    assert environ["REMOTE_ADDR"] == "10.0.0.2"
    assert environ["SCRIPT_NAME"] == ""
    assert environ["HTTP_WSGI.INPUT"] == "x"
    assert "wsgi.input" not in environ
    assert environ["HTTP_HTTPS"] == "on"
    assert "HTTPS" not in environ


def test_repeated_fields_are_joined_and_cookies_as_cookies_are() -> None:
    fields = (b"Accept", b"a"), (b"accept", b"b"), (b"Cookie", b"x=1"), (b"cookie", b"y=2")
    environ = environ_of("/", *fields)
    assert environ["HTTP_ACCEPT"] == "a,b"
    assert environ["HTTP_COOKIE"] == "x=1; y=2"


def test_values_are_the_bytes_as_latin_1() -> None:
    environ = environ_of("/", (b"X-Name", b"Jos\xc3\xa9\xff\xa0"))
    assert environ["HTTP_X_NAME"] == "Jos\xc3\xa9\xff\xa0"


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/?", "/", ""),
        ("/a?b?c", "/a", "b?c"),
        ("/caf%C3%A9/%2e%2E/%zz%", "/caf\xc3\xa9/../%zz%", ""),
        ("/a%2Fb?q=%20", "/a/b", "q=%20"),
        ("/a%3Fb", "/a?b", ""),
        ("//double//slash", "//double//slash", ""),
        ("/a+b;c=1", "/a+b;c=1", ""),
        ("http://example.com/x?y", "/x", "y"),
        ("HTTP://example.com", "/", ""),
        ("http://example.com?y", "/", "y"),
        ("*", "*", ""),
    ],
)
def test_path_and_query_of_every_form_of_target(target: str, path: str, query: str) -> None:
    environ = environ_of(target, method="OPTIONS")
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == (path, query)
    assert split_target(target) == (path, query)
    assert environ["REQUEST_URI"] == environ["RAW_URI"] == target


@pytest.mark.parametrize(
    ("target", "script", "path"),
    [
        ("/app/x", "/app", "/x"),  # the proxy passes the whole path
        ("/x", "/app", "/x"),  # the proxy strips its part
        ("/app", "/app", ""),
        ("/application", "/app", "/application"),
        ("*", "", "*"),  # the server, not a path in it
    ],
)
def test_the_root_path_is_the_script_name_whether_a_proxy_strips_it_or_not(target: str, script: str, path: str) -> None:
    environ = environ_of(target, root_path="/app")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script, path)


def test_the_environ_of_a_request_is_its_own() -> None:
    source = EnvironSource(connection_environ(TCP, threads=1), "")
    fields = [(b"host", b"a")]
    first = source.environ(RequestMessage("GET", "/1?x", HttpVersion11, fields, False), None)
    first["HTTP_HOST"] = first["my.own"] = first["wsgi.input"] = "changed"
    second = source.environ(RequestMessage("POST", "/2", HttpVersion11, fields, False), None)
    assert (second["HTTP_HOST"], second["PATH_INFO"], second["QUERY_STRING"]) == ("a", "/2", "")
    assert not {"my.own", "wsgi.input"} & second.keys()
    third = source.environ(RequestMessage("GET", "/3", HttpVersion11, [(b"accept", b"x")], False), None)
    assert "HTTP_HOST" not in third
