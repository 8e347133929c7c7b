"""ASGI over TLS: the scheme, the extension `tls`, and files without sendfile."""

from __future__ import annotations

import ast
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from preforkd.workers.http.tls_info import distinguished_name
from tests.workers.gateways.asgi.serving import App, Receive, Scope, Send, Served, http, serve, start, text

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
NAME = "/C=AT/O=Test, Inc./CN=client"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    for name, subject in (("server", "/CN=localhost"), ("client", NAME)):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj", subject],
            cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
    return folder


def context(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(folder / "client.pem")
    return context


def ask(server: Served, folder: Path, *, certificate: bool = False, version: ssl.TLSVersion | None = None) -> bytes:
    client = ssl.create_default_context()
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    if certificate:
        client.load_cert_chain(folder / "client.pem", folder / "client.key")
    if version is not None:
        client.maximum_version = version
    with server.connect() as plain, client.wrap_socket(plain.socket) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts).partition(b"\r\n\r\n")[2]


@text
async def tell(scope: Scope, receive: Receive, send: Send) -> dict[str, Any]:
    return {"scheme": scope["scheme"], **scope["extensions"]["tls"]}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_extension_says_version_cipher_and_that_there_is_no_client_certificate(folder: Path, loop: str) -> None:
    with serve(tell, ssl=context(folder), loop=loop) as server:
        said = ast.literal_eval(ask(server, folder).decode())
    assert 0x1301 <= said.pop("cipher_suite") <= 0x1303
    assert said == {
        "scheme": "https",
        "server_cert": None,
        "client_cert_chain": [],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": 0x0304,
    }


def test_a_client_certificate_is_told_as_pem_and_by_its_name(folder: Path) -> None:
    with serve(tell, ssl=context(folder)) as server:
        said = ast.literal_eval(ask(server, folder, certificate=True, version=ssl.TLSVersion.TLSv1_2).decode())
    assert said["tls_version"] == 0x0303
    assert said["client_cert_name"] == r"CN=client,O=Test\, Inc.,C=AT"
    (pem,) = said["client_cert_chain"]
    assert pem.split() == (folder / "client.pem").read_text().split()


def test_connections_share_only_what_their_tls_has_in_common(folder: Path) -> None:
    old = ssl.TLSVersion.TLSv1_2
    ways: list[tuple[bool, ssl.TLSVersion | None]] = [(False, None), (False, old), (True, None), (True, old)]
    with serve(tell, ssl=context(folder)) as server:
        for certificate, version in ways * 2:
            said = ast.literal_eval(ask(server, folder, certificate=certificate, version=version).decode())
            assert said["tls_version"] == (0x0303 if version else 0x0304)
            assert len(said["client_cert_chain"]) == certificate
        assert len(server.gateway._templates) == 2, "one for each version, and none of those with a client's name"


def test_names_are_escaped_as_rfc_4514_says() -> None:
    subject = ((("commonName", ' a"b+c,d;e<f>g\\h'),), (("organizationName", "#x "), ("unheard", "y")))
    assert distinguished_name(subject) == r"O=\#x\ +unheard=y,CN=\ a\"b\+c\,d\;e\<f\>g\\h"


def test_there_is_no_extension_without_tls() -> None:
    @text
    async def app(scope: Scope, receive: Receive, send: Send) -> bool:
        return "tls" in scope["extensions"]

    with serve(app) as server:
        assert server.get().text == "False"


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_file_is_sent_without_sendfile(folder: Path, tmp_path: Path, loop: str) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"0123456789abcdef" * 100_000)

    def app_of(path: Path) -> App:
        @http
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start())
            await send({"type": "http.response.pathsend", "path": str(path)})

        return app

    with serve(app_of(path), ssl=context(folder), loop=loop) as server:
        assert ask(server, folder) == path.read_bytes()
