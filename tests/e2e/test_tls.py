"""TLS on the real daemon: what is spoken and what refused, names, clients' certificates, what is wrong at the start."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xprocess.xprocess import XProcess  # type: ignore[import-untyped] # pytest-xprocess has no type hints

from tests.certificates import RSA, Authority, needs_openssl, trusting
from tests.e2e.client import Connection, NoAnswerError, get
from tests.e2e.conftest import COMMAND, Start, shared_daemon
from tests.e2e.daemon import APPS, BOOT, ROOT, SITE, Daemon, free_port

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


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    authority = Authority(folder)
    authority.issue("good", "localhost")
    authority.issue("other", "localhost")
    authority.issue("old", "localhost", days=-1)
    authority.issue("locked", "localhost", password=PASSWORD)
    authority.issue("user", "localhost", usage="clientAuth")
    (folder / "text").write_text("no certificate\n")
    return folder


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


class ByHand:
    """A client whose records are sent by hand."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self.outgoing, server_hostname="localhost")
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=BOOT)
        self.until_done(self.tls.do_handshake)
        self.flush()

    def flush(self) -> None:
        """Send what is ready."""
        if self.outgoing.pending:
            self.socket.sendall(self.outgoing.read())

    def until_done(self, step: Callable[[], object]) -> object:
        """Have a step done that waits for records of the other side."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.flush()
                if not (data := self.socket.recv(65536)):
                    raise
                self._incoming.write(data)

    def answer(self) -> bytes:
        """The beginning of the answer."""
        data = self.until_done(lambda: self.tls.read(15))
        assert isinstance(data, bytes)
        return data


REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_client_that_has_finished_sending_gets_its_answer(secured: Secured) -> None:
    client = ByHand(secured.port, secured.client)
    with client.socket:
        client.tls.write(REQUEST)
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()  # a close_notify; it would wait for the other
        client.flush()
        client.socket.shutdown(socket.SHUT_WR)
        assert client.answer() == b"HTTP/1.1 200 OK"


def test_a_request_of_which_half_a_record_has_come_when_an_idle_connection_would_be_closed_is_answered(
    start: Start, files: Path
) -> None:
    pair = ("--certfile", str(files / "good.crt"), "--keyfile", str(files / "good.key"))
    daemon = start(*pair, "--idle-grace", "0.2", workers=1)
    client = ByHand(daemon.port, trusting(files / "authority.pem"))
    with client.socket:
        client.tls.write(REQUEST)
        records = client.outgoing.read()
        client.socket.sendall(records[:-9])
        daemon.signal(signal.SIGTERM)
        time.sleep(0.5)  # the idle rest is closed now
        client.socket.sendall(records[-9:])
        assert client.answer() == b"HTTP/1.1 200 OK"
    assert daemon.wait_exit(2.0) == 0


def test_half_a_record_does_not_delay_a_stop(start: Start, files: Path) -> None:
    pair = ("--certfile", str(files / "good.crt"), "--keyfile", str(files / "good.key"))
    daemon = start(*pair, "--idle-grace", "0.2", workers=1)
    client = ByHand(daemon.port, trusting(files / "authority.pem"))
    with client.socket:
        client.tls.write(REQUEST)
        client.socket.sendall(client.outgoing.read()[:-9])
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_exit(3.0) == 0


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


def test_large_bodies_pass_both_ways_record_by_record(start: Start, files: Path) -> None:
    pair = ("--certfile", str(files / "good.crt"), "--keyfile", str(files / "good.key"))
    daemon = start(*pair, app=f"{APPS / 'wsgi_site.py'}:app", workers=1)
    assert f"https://127.0.0.1:{daemon.port}" in daemon.log(), "with a certificate every address speaks TLS"
    with Connection(daemon.port, tls=trusting(files / "authority.pem")) as connection:
        connection.ask("/upload", method="POST", body=os.urandom(3_000_000))
        assert connection.answer().text.split()[2] == "3000000"
        assert connection.get("/large/3000000").body == b"x" * 3_000_000
        assert connection.get("/source").body == (APPS / "wsgi_site.py").read_bytes()


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


# What is wrong at the start


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--certfile none.crt", "--certfile on the command line: {}/none.crt does not exist"),
        ("--certfile good.crt --keyfile none.key", "--certfile on the command line: {}/none.key does not exist"),
        ("--certfile good.crt --keyfile .", "{} cannot be read: Is a directory"),
        ("--certfile text", "{}/text holds no certificate (PEM: -----BEGIN CERTIFICATE-----)"),
        ("--certfile good.crt", "{}/good.crt holds no private key (PEM: -----BEGIN PRIVATE KEY-----)"),
        ("--certfile good.crt --keyfile other.key", "the key does not fit the certificate"),
        ("--certfile old.crt --keyfile old.key", "the certificate {}/old.crt has expired on "),
        ("--certfile user.crt --keyfile user.key", "no client would take the certificate: unsu"),
        ("--certfile locked.crt --keyfile locked.key", "the key is encrypted: give its password by keyfile_password"),
        (
            "--certfile locked.crt --keyfile locked.key --keyfile-password @text",
            "the key cannot be decrypted: is the password right?",
        ),
        (
            "--certfile locked.crt --keyfile locked.key --keyfile-password $NO_SUCH_THING",
            "there is no variable NO_SUCH_THING in the environment",
        ),
        (
            "--certfile locked.crt --keyfile locked.key --keyfile-password opensesame",
            "--keyfile-password on the command line: everybody can read it there",
        ),
        ("--keyfile good.key", "--keyfile on the command line: no address speaks TLS: give certfile too"),
        ("--bind tls:127.0.0.1:1", '--bind on the command line: "tls:127.0.0.1:1" has no certificate'),
        (
            "--certfile good.crt --keyfile good.key --cert-reqs required",
            "--cert-reqs on the command line: required needs the authorities to verify with: --ca-certs",
        ),
        (
            "--certfile good.crt --keyfile good.key --ca-certs text",
            "--ca-certs on the command line: {}/text holds no certificate",
        ),
        (
            "--certfile good.crt --keyfile good.key --ciphers nonsense",
            '--ciphers on the command line: OpenSSL knows no cipher of TLS 1.2 among "nonsense"',
        ),
        (
            "--certfile good.crt --keyfile good.key --sni-certificate other.crt:good.key",
            "--sni-certificate on the command line: {0}/other.crt and {0}/good.key: the key does not fit",
        ),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line_before_anything_is_forked(
    files: Path, arguments: str, said: str
) -> None:
    command = [*COMMAND, SITE, "--chdir", str(files), "--bind", f"127.0.0.1:{free_port()}", *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOOT, cwd=ROOT)
    assert done.returncode == 2
    assert said.format(files) in done.stderr
    assert done.stderr.count("\n") == 1
    assert "opensesame" not in done.stderr


def test_the_password_is_neither_in_the_process_list_nor_in_what_is_printed(files: Path, start: Start) -> None:
    pair = ("--certfile", str(files / "locked.crt"), "--keyfile", str(files / "locked.key"))
    environment = {"PREFORKD_KEYFILE_PASSWORD": "opensesame"}
    daemon = start(*pair, environment=environment, workers=1)
    for process in daemon.processes():
        assert "opensesame" not in " ".join(process.cmdline())
    shown = subprocess.run(
        [*COMMAND, SITE, "--print-config", *pair],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    assert 'keyfile_password = "***"' in shown
    assert "opensesame" not in shown
    assert get(daemon.port, tls=trusting(files / "authority.pem")).status == 200


# Ends


def test_a_silent_or_slow_handshake_does_not_delay_a_stop(start: Start, files: Path) -> None:
    pair = ("--certfile", str(files / "good.crt"), "--keyfile", str(files / "good.key"))
    daemon = start(*pair, "--idle-grace", "0.3", workers=1)
    with Connection(daemon.port), Connection(daemon.port) as slow:
        slow.send(b"\x16\x03\x01\x02\x00")
        time.sleep(0.1)  # taken, or still queued: both must not matter
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_exit(3.0) == 0


def test_a_handshake_that_a_stop_has_found_half_done_is_finished_and_served(start: Start, files: Path) -> None:
    pair = ("--certfile", str(files / "good.crt"), "--keyfile", str(files / "good.key"))
    daemon = start(*pair, workers=1)
    plain = socket.create_connection(("127.0.0.1", daemon.port), timeout=BOOT)
    daemon.signal(signal.SIGTERM)
    daemon.wait_log("SIGTERM: stopping")
    with trusting(files / "authority.pem").wrap_socket(plain, server_hostname="localhost") as secure:
        secure.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert secure.recv(100).startswith(b"HTTP/1.1 200")
    assert daemon.wait_exit(5.0) == 0


def test_a_response_that_is_refused_early_reaches_a_client_that_goes_on_sending(start: Start, files: Path) -> None:
    pair = ("--certfile", str(files / "good.crt"), "--keyfile", str(files / "good.key"))
    daemon = start(*pair, "--limit-body", "1000", workers=1)
    with Connection(daemon.port, tls=trusting(files / "authority.pem")) as connection:
        connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n")
        for _ in range(20):
            connection.send(b"x" * 10000)
        assert connection.answer().status == 413
        connection.expect_close()


def test_an_upgrade_in_place_and_a_reload_go_on_with_tls(start: Start, files: Path) -> None:
    pair = ("--certfile", str(files / "good.crt"), "--keyfile", str(files / "good.key"))
    daemon = start(*pair, workers=1)
    client = trusting(files / "authority.pem")
    for signum, said in ((signal.SIGUSR2, r"generation 2 serves"), (signal.SIGHUP, r"generation 3 serves")):
        daemon.signal(signum)
        daemon.wait_log(said)
        assert get(daemon.port, tls=client).status == 200
    assert daemon.stop() == 0


def test_a_reload_may_give_a_plain_address_tls(start: Start, files: Path, tmp_path: Path) -> None:
    config = tmp_path / "preforkd.toml"
    config.write_text("")
    daemon = start("--config", str(config), workers=1)
    assert get(daemon.port).status == 200
    config.write_text(f'certfile = "{files / "good.crt"}"\nkeyfile = "{files / "good.key"}"\n')
    daemon.signal(signal.SIGHUP)
    daemon.wait_log(r"generation 2 serves")
    assert get(daemon.port, tls=trusting(files / "authority.pem")).status == 200


def test_every_interface_of_both_kinds_is_one_word(start: Start) -> None:
    port = free_port()
    start("--bind", f"*:{port}", port=None, workers=1)
    for host in ("127.0.0.1", "::1"):
        try:
            with socket.create_connection((host, port), timeout=BOOT) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
        except OSError:
            if host == "127.0.0.1" or Path("/proc/net/if_inet6").exists():
                raise


INHERIT = """
import fcntl, os, socket, sys
sockets = [socket.create_server(("127.0.0.1", int(port))) for port in sys.argv[1:3]]
for number, copy in enumerate([fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 10) for one in sockets], start=3):
    os.dup2(copy, number)
os.environ |= {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "plain:secure", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[3], sys.argv[3:])
"""


def test_sockets_of_systemd_and_inherited_ones_speak_tls(start: Start, files: Path) -> None:
    pair = ("--certfile", str(files / "good.crt"), "--keyfile", str(files / "good.key"))
    plain, secure = free_port(), free_port()
    command = [sys.executable, "-c", INHERIT, str(plain), str(secure), *COMMAND]
    start("--bind", "fd:3", "--bind", "tls:systemd:secure", *pair, port=None, workers=1, command=command)
    assert get(plain).status == 200
    assert get(secure, tls=trusting(files / "authority.pem")).status == 200
