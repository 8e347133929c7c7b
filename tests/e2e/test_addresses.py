"""The address that an app sees is the one that is configured."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.e2e.conftest import Start

ASGI = """
import json

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": json.dumps(scope["server"]).encode()})
"""
WSGI = """
import json

def app(environ, start_response):
    start_response("200 OK", [])
    return [json.dumps({key: value for key, value in environ.items() if isinstance(value, str)}).encode()]
"""
SEED = """
import json
from preforkd.workers import Response, ServerHttpProtocol

class app(ServerHttpProtocol):
    async def handle_request(self, message, payload):
        response = Response(self.writer, 200)
        response.send_headers()
        response.write(json.dumps(self.transport.get_extra_info("sockname")).encode())
        await response.write_eof()
"""


def ask(path: str) -> tuple[str, str]:
    """What is answered on a unix socket, and the name that the kernel has for the other side."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect("\0" + path[1:] if path.startswith("@") else path)
        client.sendall(b"GET / HTTP/1.0\r\nHost: shop:81\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        name = client.getpeername()
    return answer.partition(b"\r\n\r\n")[2].decode(), name if isinstance(name, str) else name.decode()


@pytest.mark.parallel
@pytest.mark.parametrize("stale", [False, True], ids=["new", "in place of a stale one"])
@pytest.mark.parametrize(("interface", "code"), [("asgi", ASGI), ("wsgi", WSGI), ("protocol", SEED)])
def test_a_unix_socket_has_the_configured_path(
    start: Start, tmp_path: Path, interface: str, code: str, stale: bool
) -> None:
    (tmp_path / "app.py").write_text(code)
    path = tmp_path / "s.sock"
    if stale:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    start("--bind", f"unix:{path}?mode=660", app=f"{tmp_path}/app.py:app", port=None, workers=1)
    body, name = ask(str(path))
    assert name == str(path)
    assert path.stat().st_mode & 0o777 == 0o660
    told = json.loads(body)
    if interface == "wsgi":
        assert (told["SERVER_NAME"], told["SERVER_PORT"]) == ("shop", "81"), "PEP 3333 has no place for a path"
        assert not [value for value in told.values() if "~" in value]
    else:
        assert told == ([str(path), None] if interface == "asgi" else str(path))


@pytest.mark.parallel
def test_a_name_without_a_file_is_said_as_it_is_configured(start: Start, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ASGI)
    name = f"@preforkd-{tmp_path.name}"
    start("--bind", f"unix:{name}", app=f"{tmp_path}/app.py:app", port=None, workers=1)
    assert json.loads(ask(name)[0]) == [name, None]


@pytest.mark.parallel
@pytest.mark.parametrize(("interface", "code"), [("asgi", ASGI), ("wsgi", WSGI), ("protocol", SEED)])
def test_an_empty_host_is_taken_on_unix_sockets_and_on_tcp(
    start: Start, tmp_path: Path, interface: str, code: str
) -> None:
    (tmp_path / "app.py").write_text(code)
    path = tmp_path / "s.sock"
    daemon = start("--bind", f"unix:{path}", app=f"{tmp_path}/app.py:app", workers=1)
    for family, address in ((socket.AF_UNIX, str(path)), (socket.AF_INET, ("127.0.0.1", daemon.port))):
        with socket.socket(family) as client:
            client.settimeout(10)
            client.connect(address)
            client.sendall(b"GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n")
            head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        if interface == "wsgi":
            told = json.loads(body)
            assert (told["HTTP_HOST"], told["SERVER_NAME"]) == (
                "",
                "localhost" if family == socket.AF_UNIX else "127.0.0.1",
            )
