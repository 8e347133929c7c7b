"""TLS on the real daemon: what is spoken and what is refused, names, and clients' certificates."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from xprocess.xprocess import XProcess  # type: ignore[import-untyped] # pytest-xprocess has no type hints

from tests.certificates import RSA, Authority, needs_openssl
from tests.e2e.client import Connection, NoAnswerError, get
from tests.e2e.conftest import Start, shared_daemon
from tests.e2e.daemon import APPS, BOOT, Daemon, free_port

pytestmark = [needs_openssl, pytest.mark.parallel]

PASSWORD = "opensesame"
TLS_SITE = APPS / "tls_site.py"


class Secured:
    """A daemon with one TLS address beside a plain one, and what is needed to speak to it."""

    def __init__(self, daemon: Daemon, port: int, authority: Authority, user: tuple[Path, Path]) -> None:
        self.daemon, self.port, self.authority, self.user = daemon, port, authority, user
        self.client = authority.client()

    def s_client(self, *arguments: str, send: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run `openssl s_client`; it ends at the end of what it is given to send."""
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", "-CAfile"]
        return subprocess.run(
            [*command, str(self.authority.certificate), *arguments], input=send, capture_output=True, timeout=BOOT
        )


@pytest.fixture(scope="module")
def secured(xprocess: XProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    certificate, key = authority.issue("server", "localhost", key=RSA)
    shop, admin = authority.issue("shop", "shop.test", "*.shop.test"), authority.issue("admin", password=PASSWORD)
    (folder / "password").write_text("opensesame\nnot this\n")
    user = authority.issue("user", subject="/O=Bücher, Inc/CN=Ada")
    port = free_port()
    (folder / "preforkd.toml").write_text(
        f"""
[[sni_certificate]]
certfile = "{shop[0]}"
keyfile = "{shop[1]}"

[[sni_certificate]]
certfile = "{admin[0]}"
keyfile = "{admin[1]}"
keyfile_password = "@{folder / "password"}"
names = ["admin.shop.test"]
"""
    )
    arguments = [
        "--config", str(folder / "preforkd.toml"), "--bind", f"tls:127.0.0.1:{port}", "--certfile", str(certificate),
        "--keyfile", str(key), "--ca-certs", str(authority.certificate), "--cert-reqs", "optional",
        "--handshake-timeout", "1", "--idle-grace", "0.3",
    ]  # fmt: skip
    with shared_daemon(xprocess, "tls", *arguments, app=f"{TLS_SITE}:Site", tolerated="(?!)") as start:
        yield Secured(start.daemons[0], port, authority, user)


def test_an_address_speaks_tls_beside_a_plain_one(secured: Secured) -> None:
    told = get(secured.port, tls=secured.client).text
    assert json.loads(told) == {
        "version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "server_name": "localhost", "client_certificate": None
    }  # fmt: skip
    assert get(secured.daemon.port).text == "null"
    assert f"https://127.0.0.1:{secured.port}" in secured.daemon.log()
    assert f"http://127.0.0.1:{secured.daemon.port}" in secured.daemon.log()


def test_curl_trusts_it(secured: Secured) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    url = f"https://localhost:{secured.port}/"
    command = [
        "curl",
        "-sS",
        "--cacert",
        str(secured.authority.certificate),
        "-w",
        "\n%{http_version} %{ssl_verify_result}",
    ]
    done = subprocess.run([*command, url, url], capture_output=True, text=True, timeout=BOOT, check=True)
    assert done.stdout.count("\n1.1 0") == 2


def test_curl_shows_its_certificate(secured: Secured) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    certificate, key = map(str, secured.user)
    command = ["curl", "-sS", "--cacert", str(secured.authority.certificate), "--cert", certificate, "--key", key]
    for version in ("1.2", "1.3"):
        asking = [*command, f"--tlsv{version}", "--tls-max", version, f"https://localhost:{secured.port}/"]
        told = json.loads(subprocess.run(asking, capture_output=True, timeout=BOOT, check=True).stdout)
        assert (told["version"], told["client_certificate"]["common_name"]) == (f"TLSv{version}", "Ada")


@pytest.mark.parametrize("version", ["tls1", "tls1_1"])
def test_old_versions_are_refused(secured: Secured, version: str) -> None:
    done = secured.s_client(f"-{version}", "-cipher", "ALL:@SECLEVEL=0")
    assert done.returncode != 0
    assert b"alert protocol version" in done.stderr


@pytest.mark.parametrize("cipher", ["AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA384", "aNULL", "AES128-SHA", "NULL"])
def test_ciphers_without_secrecy_or_authentication_are_refused(secured: Secured, cipher: str) -> None:
    done = secured.s_client("-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
    assert done.returncode != 0
    assert b"handshake failure" in done.stderr or b"no ciphers available" in done.stderr


def test_tls_1_2_has_forward_secrecy_and_no_compression(secured: Secured) -> None:
    done = secured.s_client("-tls1_2", "-comp")
    assert b"Cipher is ECDHE-RSA-AES" in done.stdout
    assert b"-GCM-SHA" in done.stdout
    assert b"Compression: NONE" in done.stdout
    assert b"Secure Renegotiation IS supported" in done.stdout
    assert b"Verify return code: 0 (ok)" in done.stdout


def test_a_downgrade_is_detected(secured: Secured) -> None:
    done = secured.s_client("-tls1_2", "-fallback_scsv")
    assert b"inappropriate fallback" in done.stderr


def test_renegotiation_is_refused(secured: Secured) -> None:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{secured.port}", "-tls1_2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as asking:
        assert asking.stdin is not None
        assert asking.stdout is not None
        for line in asking.stdout:
            if line.startswith(b"    Extended master secret") or b"Extended master secret" in line:
                break
        asking.stdin.write(b"R\n")
        asking.stdin.flush()
        output, _ = asking.communicate(timeout=BOOT)
    assert b"RENEGOTIATING" in output
    assert b"no renegotiation" in output


@pytest.mark.parametrize(("offered", "agreed"), [("h2,http/1.1", b"ALPN protocol: http/1.1"), ("h2", b"No ALPN")])
def test_http_1_1_is_agreed_on_and_nothing_else(secured: Secured, offered: str, agreed: bytes) -> None:
    assert agreed in secured.s_client("-alpn", offered).stdout


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("localhost", "server"),
        ("shop.test", "shop"),
        ("WWW.shop.test", "shop"),
        ("a.b.shop.test", "server"),
        ("admin.shop.test", "admin"),
        ("elsewhere.test", "server"),
    ],
)
def test_each_name_has_its_certificate(secured: Secured, name: str, subject: str) -> None:
    done = secured.s_client("-servername", name)
    assert f"subject=CN = {subject}\n".encode() in done.stdout


def test_a_client_that_asks_for_no_name_gets_the_first_certificate(secured: Secured) -> None:
    assert b"subject=CN = server\n" in secured.s_client("-noservername").stdout


def test_a_session_is_resumed(secured: Secured, tmp_path: Path) -> None:
    session, request = tmp_path / "session", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert b"New, TLSv1.2" in secured.s_client("-tls1_2", "-sess_out", str(session), "-ign_eof", send=request).stdout
    assert b"Reused, TLSv1.2" in secured.s_client("-tls1_2", "-sess_in", str(session)).stdout


def test_the_end_of_a_response_is_a_close_notify(secured: Secured) -> None:
    with Connection(secured.port, tls=secured.client) as connection:
        assert connection.get(headers=[("Connection", "close")]).closes
        connection.expect_close()


def test_plain_http_on_the_port_is_told(secured: Secured) -> None:
    with Connection(secured.port) as connection:
        answer = connection.get()
        assert (answer.status, answer.text) == (400, "This port speaks TLS: use https:// instead of http")
        connection.expect_close()


def test_a_silent_client_is_gone_after_the_handshake_timeout(secured: Secured) -> None:
    with Connection(secured.port) as silent, pytest.raises(NoAnswerError):
        silent.answer()


def test_a_flood_of_silent_handshakes_leaves_the_others_alone(secured: Secured) -> None:
    silent = [socket.create_connection(("127.0.0.1", secured.port)) for _ in range(200)]
    try:
        for one in silent[::2]:
            one.send(b"\x16\x03\x01\x02\x00")  # the beginning of a record
        assert get(secured.port, tls=secured.client, timeout=2).status == 200
        assert get(secured.daemon.port, timeout=2).status == 200
    finally:
        for one in silent:
            one.close()


# Clients' certificates

SUBJECT = "CN=Ada,O=B\xfccher\\, Inc"


def test_the_seeds_class_is_told_of_the_clients_certificate(secured: Secured) -> None:
    client = secured.authority.client(secured.user)
    told = json.loads(get(secured.port, tls=client).text)["client_certificate"]
    assert told["pem"].strip() == secured.user[0].read_text().strip()
    assert (told["subject"], told["issuer"], told["common_name"]) == (SUBJECT, "CN=authority", "Ada")
    assert int(told["serial"], 16) > 0
    assert told["not_after"].endswith("GMT")


def test_an_unknown_authority_is_refused(secured: Secured, tmp_path: Path) -> None:
    client = secured.authority.client(Authority(tmp_path, "other").issue("mallory"))
    with pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"):
        get(secured.port, tls=client)


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_apps_are_told_of_the_clients_certificate_and_none_is_refused(
    start: Start, secured: Secured, interface: str, tmp_path: Path
) -> None:
    certificate, key = secured.authority.issue("required", "localhost")
    own = f'{{ address = "127.0.0.1:{(port := free_port())}", ca_certs = "{secured.authority.certificate}", '
    own += 'cert_reqs = "required" }'
    (tmp_path / "preforkd.toml").write_text(
        f'bind = [{own}]\ncertfile = "{certificate}"\nkeyfile = "{key}"\napp = "{TLS_SITE}:{interface}"\n'
    )
    start("--config", str(tmp_path / "preforkd.toml"), app=None, workers=1, port=None)
    told = json.loads(get(port, tls=secured.authority.client(secured.user)).text)
    pem = secured.user[0].read_text().strip()
    assert told["scheme"] == "https"
    if interface == "wsgi":
        assert told["SSL_CLIENT_CERT"].strip() == pem
        assert told["SSL_CLIENT_S_DN"].encode("latin-1").decode() == SUBJECT
        chosen = {name: told[name] for name in ("HTTPS", "SSL_CLIENT_VERIFY", "SSL_CLIENT_I_DN", "SSL_TLS_SNI")}
        assert chosen == {
            "HTTPS": "on", "SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_I_DN": "CN=authority", "SSL_TLS_SNI": "localhost"
        }  # fmt: skip
        assert (told["SSL_PROTOCOL"], told["SSL_CLIENT_S_DN_CN"]) == ("TLSv1.3", "Ada")
    else:
        assert [one.strip() for one in told["client_cert_chain"]] == [pem]
        assert told["client_cert_name"] == SUBJECT
    with pytest.raises((ssl.SSLError, Exception), match=r"(?i)certificate.required"):
        get(port, tls=secured.client)
