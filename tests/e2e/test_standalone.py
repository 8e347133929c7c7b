"""The handler class without the daemon: `loop.create_server`, with asyncio and uvloop, with and without TLS."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from tests.apps.site import Site

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
REQUEST = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key for localhost, in one file."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    key = path.with_suffix(".key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", path],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    path.write_text(path.read_text() + key.read_text())
    return path


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def contexts(request: pytest.FixtureRequest) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """The TLS contexts of server and client, or None for both."""
    if not request.param:
        return None, None
    path = request.getfixturevalue("certificate")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=path)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: bytes, header: bytes = b"") -> bytes:
    """One request; the whole answer."""
    writer.write(REQUEST % (path, header))
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


@pytest.mark.parametrize("loop_name", LOOPS)
def test_the_class_serves_on_any_loop(
    loop_name: str, contexts: tuple[ssl.SSLContext | None, ssl.SSLContext | None]
) -> None:
    server_context, client_context = contexts

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Site(debug=True, keep_alive=75), "127.0.0.1", 0, ssl=server_context)
        port = server.sockets[0].getsockname()[1]
        name = "localhost" if client_context else None
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context, server_hostname=name)
        for path in (b"", b"slow/0.01", b"large/1000000"):
            answer = await ask(reader, writer, path)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"Connection: close" not in answer
        answer = await ask(reader, writer, b"fail")
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"a bug in the app" in answer, "debug=True shows the traceback"
        assert await reader.read() == b"", "closed after an error"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=LOOPS[loop_name], debug=False) as runner:
        runner.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize("loop_name", LOOPS)
def test_the_class_leaves_nothing_behind_on_the_loop(loop_name: str) -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Site(keep_alive=75), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await ask(reader, writer, b"", b"Connection: close\r\n")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        assert asyncio.all_tasks() <= before

    with asyncio.Runner(loop_factory=LOOPS[loop_name], debug=True) as runner:
        runner.run(asyncio.wait_for(main(), 20))
