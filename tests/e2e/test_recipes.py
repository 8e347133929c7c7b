"""The recipes of deploy/docs/proxies.md, run: TLS to the daemon, the client, WebSocket, event streams, uploads."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority, needs_openssl
from tests.e2e import client
from tests.e2e.client import Connection
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, ROOT, free_port
from tests.e2e.test_forwarded import from_
from tests.e2e.test_load_balancers import NGINX_MAIN, checked, program, running
from tests.e2e.websocket_client import RawWebSocket, frame

PAGE = (ROOT / "deploy" / "docs" / "proxies.md").read_text()
CLIENT = "127.0.0.5"
CLAIMS = [
    ("X-Forwarded-For", "198.51.100.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Port", "1"),
    ("X-Forwarded-Prefix", "/evil"),
    ("Forwarded", "for=198.51.100.1"),
    ("X-Request-ID", "mine"),
]
UPLOAD = 3 << 20

Command = tuple[list[str], list[str], dict[str, str]]


def nginx(folder: Path, text: str) -> Command:
    (folder / "preforkd.conf").write_text(text)
    (folder / "nginx.conf").write_text(NGINX_MAIN.format(folder=folder))
    path = program("nginx", "nginx-light")
    command = [path, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    return command, [*command, "-t"], {}


def haproxy(folder: Path, text: str) -> Command:
    file = folder / "haproxy.cfg"
    file.write_text(text)
    path = program("haproxy", "haproxy")
    return [path, "-db", "-f", str(file)], [path, "-c", "-f", str(file)], {}


def caddy(folder: Path, text: str) -> Command:
    file = folder / "Caddyfile"
    file.write_text("{\n\tadmin off\n}\n" + text)
    path = program("caddy", "caddy")
    options = ["--adapter", "caddyfile", "--config", str(file)]
    home = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    return [path, "run", *options], [path, "validate", *options], home


def recipe(language: str, backend: int, port: int, authority: Path) -> str:
    """The block of the page, with the addresses and the file of this test."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for shipped, ours in {
        "127.0.0.1:8001": f"127.0.0.1:{backend}",
        ":8080": f":{port}",
        "/etc/preforkd/ca.pem": str(authority),
    }.items():
        assert text.count(shipped) == 1, shipped
        text = text.replace(shipped, ours)
    return str(text)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where nginx's workers, who are another user, can read."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parallel
@needs_openssl
@pytest.mark.parametrize(("language", "made"), [("nginx", nginx), ("haproxy", haproxy), ("caddyfile", caddy)])
def test_a_recipe_passes_on_all_that_a_proxy_may_break(
    start: Start, folder: Path, language: str, made: Callable[[Path, str], Command]
) -> None:
    authority = Authority(folder)
    certificate, key = authority.issue("server", "shop.example")
    port = free_port()
    tls = ("--certfile", str(certificate), "--keyfile", str(key))
    daemon = start(*tls, app=f"{APPS / 'behind.py'}:app", workers=1)
    command, check, environment = made(folder, recipe(language, daemon.port, port, authority.certificate))
    checked(check, environment)
    with running(command, environment, port):
        with from_(CLIENT, port) as connection:
            found = json.loads(connection.get("/who", headers=CLAIMS).text)
        assert (found["client"], found["scheme"], found["root"]) == (CLIENT, "http", "")
        assert found["headers"]["host"] == "tests"
        assert "198.51.100.1" not in json.dumps(found)
        assert "evil" not in json.dumps(found)
        assert found["headers"]["x-request-id"] != "mine"
        with Connection(port) as connection:
            connection.ask("/upload", method="POST", body=b"x" * UPLOAD)
            assert json.loads(connection.answer().text)["size"] == UPLOAD
        with RawWebSocket(port, "/echo") as socket:
            socket.send(frame(1, b"hello"))
            reply = socket.reply()
            assert reply is not None
            assert reply.payload == b"hello"
        with Connection(port) as events:
            events.ask("/events")
            seen = b""
            while b"data: first\n\n" not in seen:  # the second is sent only when the first was seen here
                data = events.socket.recv(65536)
                assert data, seen
                seen += data
            client.get(port, "/go")
            while b"data: second\n\n" not in seen:
                data = events.socket.recv(65536)
                assert data, seen
                seen += data
