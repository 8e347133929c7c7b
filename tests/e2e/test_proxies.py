"""Real HAProxy and real nginx in front, over TCP and unix sockets: each interface sees the client, not the proxy."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import needs_openssl
from tests.e2e.client import Connection
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, Daemon, free_port
from tests.e2e.test_forwarded import INTERFACES, from_
from tests.e2e.test_load_balancers import NGINX_MAIN, checked, haproxy, nginx, program, running
from tests.e2e.test_proxy_protocol import bound

APP = APPS / "edge.py"
CLIENT = "127.0.0.5"
CLAIMS = (("X-Forwarded-For", "198.51.100.1"), ("Forwarded", "for=198.51.100.1"), ("X-Forwarded-Prefix", "/evil"))
HAPROXY = """
defaults
    timeout connect 2s
    timeout client 10s
    timeout server 10s
frontend v1
    mode tcp
    bind 127.0.0.1:{v1}
    default_backend v1
backend v1
    mode tcp
    server a 127.0.0.1:{d_v1} send-proxy
frontend v2
    mode http
    bind 127.0.0.1:{v2}
    unique-id-format id-%pid
    http-request set-header X-Forwarded-Proto https
    default_backend v2
backend v2
    mode http
    option httpchk GET /a
    http-check expect status 200
    server a 127.0.0.1:{d_v2} send-proxy-v2 proxy-v2-options unique-id check inter 100ms
frontend secure
    mode http
    bind 127.0.0.1:{secure}
    default_backend secure
backend secure
    mode http
    server a 127.0.0.1:{d_secure} send-proxy-v2 ssl verify required ca-file {ca} verifyhost localhost sni str(localhost)
frontend unix
    mode http
    bind 127.0.0.1:{unix}
    http-request del-header Forwarded
    http-request del-header X-Forwarded-Prefix
    option forwardfor
    http-request set-header X-Forwarded-Proto https
    http-request set-header X-Forwarded-Host shop.example
    http-request set-header X-Forwarded-Port 8443
    http-request set-header X-Forwarded-Prefix /shop
    default_backend unix
backend unix
    mode http
    server a unix@{folder}/x.sock
frontend rfc
    mode http
    bind 127.0.0.1:{rfc}
    http-request add-header Forwarded "for=%[src];proto=https;host=\\"%[req.hdr(host)]\\""
    default_backend rfc
backend rfc
    mode http
    server a 127.0.0.1:{d_rfc}
"""
NGINX = """
server {{
    listen 127.0.0.1:{unix};
    location / {{
        proxy_pass http://unix:{folder}/x.sock;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto https;
        proxy_set_header X-Forwarded-Prefix /shop;
        proxy_set_header X-Request-ID $request_id;
    }}
}}
server {{
    listen 127.0.0.1:{rfc};
    location / {{
        proxy_pass http://127.0.0.1:{d_rfc};
        proxy_set_header Host $http_host;
        set $client 'for="$remote_addr:$remote_port";proto=https;host="$http_host"';
        proxy_set_header Forwarded "$http_forwarded, $client";
    }}
}}
"""


def told(port: int, host: str = CLIENT) -> dict[str, Any]:
    """What the app is told of a client that claims to be another."""
    with from_(host, port) as connection:
        answer = connection.get("/a", headers=CLAIMS)
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.text)
    found["id"] = answer.header("X-Request-ID")
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a socket can be reached by nginx, whose workers are another user: below no folder that is ours alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def daemons(start: Start, attribute: str, folder: Path, pair: tuple[str, ...]) -> dict[str, Daemon]:
    """One daemon for each way, by the name of the way."""
    app = f"{APP}:{attribute}"
    unix = ("--forwarded-allow-ips", "unix:", "--bind", f"unix:{folder}/x.sock?mode=666")
    return {
        "v1": bound(start, attribute, "v1"),
        "v2": bound(start, attribute, "auto", "--forwarded-allow-ips", "127.0.0.5"),
        "unix": start(*unix, app=app, workers=1),
        "secure": bound(start, attribute, "v2", *pair),
        "rfc": start("--forwarded", "rfc7239", app=app, workers=1),
    }


def check_unix(found: dict[str, Any], host: str) -> None:
    assert (found["client"], found["scheme"], found["host"], found["root"]) == (CLIENT, "https", host, "/shop")
    assert "forwarded" not in found["noted"]
    assert found["noted"]["x-forwarded-for"].endswith(CLIENT)


@pytest.mark.parallel
@INTERFACES
@needs_openssl
def test_behind_haproxy(start: Start, attribute: str, tmp_path: Path, folder: Path, tls_files: Path) -> None:
    path = program("haproxy", "haproxy")
    pair = ("--certfile", str(tls_files / "good.crt"), "--keyfile", str(tls_files / "good.key"))
    behind = daemons(start, attribute, folder, pair)
    ports = {name: free_port() for name in behind}
    config = tmp_path / "haproxy.cfg"
    backends = {f"d_{name}": daemon.port for name, daemon in behind.items()}
    config.write_text(HAPROXY.format(folder=folder, ca=tls_files / "authority.pem", **ports, **backends))
    checked([path, "-c", "-f", str(config)], {})
    with running([path, "-db", "-f", str(config)], {}, ports["v1"]):
        found = told(ports["v1"])
        assert (found["client"], found["scheme"], found["root"]) == (CLIENT, "http", "")
        assert not set(found["noted"]) & {"x-forwarded-for", "forwarded", "x-forwarded-prefix"}
        found = told(ports["secure"])
        assert (found["client"], found["scheme"]) == (CLIENT, "https")
        found = told(ports["v2"])
        assert (found["client"], found["scheme"]) == ("198.51.100.1", "https"), (
            "a client that is a trusted proxy itself"
        )
        assert found["proxied"][1].startswith("id-")
        check_unix(told(ports["unix"]), "shop.example:8443")
        found = told(ports["rfc"])
        assert (found["client"], found["scheme"], found["host"]) == (CLIENT, "https", "tests")
        assert set(found["noted"]) - {"x-request-id"} == {"forwarded"}
        assert "198.51.100.1" not in found["noted"]["forwarded"]
    behind["v2"].until(
        lambda: "127.0.0.1 - - " in behind["v2"].log(), 10, "a check of HAProxy, which is its own (LOCAL)"
    )
    for daemon in behind.values():
        assert "closed a connection" not in daemon.log()


@pytest.mark.parallel
@INTERFACES
def test_behind_nginx(start: Start, attribute: str, tmp_path: Path, folder: Path) -> None:
    path = program("nginx", "nginx-light")
    behind = daemons(start, attribute, folder, ())
    ports = {name: free_port() for name in behind}
    backends = {f"d_{name}": daemon.port for name, daemon in behind.items()}
    (tmp_path / "preforkd.conf").write_text(NGINX.format(folder=folder, **ports, **backends))
    (tmp_path / "nginx.conf").write_text(NGINX_MAIN.format(folder=tmp_path))
    command = [path, "-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    checked([*command, "-t"], {})
    with running(command, {}, ports["unix"]):
        found = told(ports["unix"])
        check_unix(found, "tests")
        assert found["noted"]["x-request-id"] == found["id"], "the one that nginx has given"
        assert len(found["id"]) == 32
        found = told(ports["rfc"])
        assert (found["client"], found["scheme"], found["host"]) == (CLIENT, "https", "tests")


@pytest.mark.parallel
@INTERFACES
def test_behind_the_configurations_that_are_shipped(start: Start, attribute: str, tmp_path: Path) -> None:
    daemon = start(app=f"{APP}:{attribute}", workers=1)
    with ExitStack() as stack:
        for port in (
            stack.enter_context(haproxy(daemon.port, daemon.port)),
            stack.enter_context(nginx(daemon.port, daemon.port, tmp_path)),
        ):
            found = told(port)
            assert (found["client"], found["scheme"], found["host"], found["root"]) == (CLIENT, "http", "tests", "")
            assert set(found["noted"]) <= {"x-forwarded-for", "x-forwarded-proto", "x-request-id"}
            assert found["noted"]["x-forwarded-for"] == CLIENT
            assert found["noted"]["x-request-id"] == found["id"]
    with Connection(daemon.port) as connection:
        assert json.loads(connection.get("/a").text)["client"] == "127.0.0.1"
