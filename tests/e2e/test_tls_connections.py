"""TLS on the real daemon: how connections begin and end, and what they are made on."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.certificates import needs_openssl, trusting
from tests.e2e.client import Connection, get
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import APPS, BOOT, free_port

pytestmark = [needs_openssl, pytest.mark.parallel]


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


def test_a_client_that_has_finished_sending_gets_its_answer(start: Start, tls_files: Path) -> None:
    pair = ("--certfile", str(tls_files / "good.crt"), "--keyfile", str(tls_files / "good.key"))
    client = ByHand(start(*pair, workers=1).port, trusting(tls_files / "authority.pem"))
    with client.socket:
        client.tls.write(REQUEST)
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()  # a close_notify; it would wait for the other
        client.flush()
        client.socket.shutdown(socket.SHUT_WR)
        assert client.answer() == b"HTTP/1.1 200 OK"


def test_a_request_of_which_half_a_record_has_come_when_an_idle_connection_would_be_closed_is_answered(
    start: Start, tls_files: Path
) -> None:
    pair = ("--certfile", str(tls_files / "good.crt"), "--keyfile", str(tls_files / "good.key"))
    daemon = start(*pair, "--idle-grace", "0.2", workers=1)
    client = ByHand(daemon.port, trusting(tls_files / "authority.pem"))
    with client.socket:
        client.tls.write(REQUEST)
        records = client.outgoing.read()
        client.socket.sendall(records[:-9])
        daemon.signal(signal.SIGTERM)
        time.sleep(0.5)  # the idle rest is closed now
        client.socket.sendall(records[-9:])
        assert client.answer() == b"HTTP/1.1 200 OK"
    assert daemon.wait_exit(2.0) == 0


def test_half_a_record_does_not_delay_a_stop(start: Start, tls_files: Path) -> None:
    pair = ("--certfile", str(tls_files / "good.crt"), "--keyfile", str(tls_files / "good.key"))
    daemon = start(*pair, "--idle-grace", "0.2", workers=1)
    client = ByHand(daemon.port, trusting(tls_files / "authority.pem"))
    with client.socket:
        client.tls.write(REQUEST)
        client.socket.sendall(client.outgoing.read()[:-9])
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_exit(3.0) == 0


def test_a_silent_or_slow_handshake_does_not_delay_a_stop(start: Start, tls_files: Path) -> None:
    pair = ("--certfile", str(tls_files / "good.crt"), "--keyfile", str(tls_files / "good.key"))
    daemon = start(*pair, "--idle-grace", "0.3", workers=1)
    with Connection(daemon.port), Connection(daemon.port) as slow:
        slow.send(b"\x16\x03\x01\x02\x00")
        time.sleep(0.1)  # taken, or still queued: both must not matter
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_exit(3.0) == 0


def test_a_handshake_that_a_stop_has_found_half_done_is_finished_and_served(start: Start, tls_files: Path) -> None:
    pair = ("--certfile", str(tls_files / "good.crt"), "--keyfile", str(tls_files / "good.key"))
    daemon = start(*pair, workers=1)
    plain = socket.create_connection(("127.0.0.1", daemon.port), timeout=BOOT)
    daemon.signal(signal.SIGTERM)
    daemon.wait_log("SIGTERM: stopping")
    with trusting(tls_files / "authority.pem").wrap_socket(plain, server_hostname="localhost") as secure:
        secure.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert secure.recv(100).startswith(b"HTTP/1.1 200")
    assert daemon.wait_exit(5.0) == 0


def test_a_response_that_is_refused_early_reaches_a_client_that_goes_on_sending(start: Start, tls_files: Path) -> None:
    pair = ("--certfile", str(tls_files / "good.crt"), "--keyfile", str(tls_files / "good.key"))
    daemon = start(*pair, "--limit-body", "1000", workers=1)
    with Connection(daemon.port, tls=trusting(tls_files / "authority.pem")) as connection:
        connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n")
        for _ in range(20):
            connection.send(b"x" * 10000)
        assert connection.answer().status == 413
        connection.expect_close()


def test_an_upgrade_in_place_and_a_reload_go_on_with_tls(start: Start, tls_files: Path) -> None:
    pair = ("--certfile", str(tls_files / "good.crt"), "--keyfile", str(tls_files / "good.key"))
    daemon = start(*pair, workers=1)
    client = trusting(tls_files / "authority.pem")
    for signum, said in ((signal.SIGUSR2, r"generation 2 serves"), (signal.SIGHUP, r"generation 3 serves")):
        daemon.signal(signum)
        daemon.wait_log(said)
        assert get(daemon.port, tls=client).status == 200
    assert daemon.stop() == 0


def test_a_reload_may_give_a_plain_address_tls(start: Start, tls_files: Path, tmp_path: Path) -> None:
    config = tmp_path / "preforkd.toml"
    config.write_text("")
    daemon = start("--config", str(config), workers=1)
    assert get(daemon.port).status == 200
    config.write_text(f'certfile = "{tls_files / "good.crt"}"\nkeyfile = "{tls_files / "good.key"}"\n')
    daemon.signal(signal.SIGHUP)
    daemon.wait_log(r"generation 2 serves")

    def speaks_tls() -> bool:
        with suppress(ssl.SSLError):  # of the old worker, which has not been told yet that it stands by
            return get(daemon.port, tls=trusting(tls_files / "authority.pem")).status == 200
        return False

    daemon.until(speaks_tls, 5, "TLS")


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


def test_large_bodies_pass_both_ways_record_by_record(start: Start, tls_files: Path) -> None:
    pair = ("--certfile", str(tls_files / "good.crt"), "--keyfile", str(tls_files / "good.key"))
    daemon = start(*pair, app=f"{APPS / 'wsgi_site.py'}:app", workers=1)
    assert f"https://127.0.0.1:{daemon.port}" in daemon.log(), "with a certificate every address speaks TLS"
    with Connection(daemon.port, tls=trusting(tls_files / "authority.pem")) as connection:
        connection.ask("/upload", method="POST", body=os.urandom(3_000_000))
        assert connection.answer().text.split()[2] == "3000000"
        assert connection.get("/large/3000000").body == b"x" * 3_000_000
        assert connection.get("/source").body == (APPS / "wsgi_site.py").read_bytes()


INHERIT = """
import fcntl, os, socket, sys
sockets = [socket.create_server(("127.0.0.1", int(port))) for port in sys.argv[1:3]]
for number, copy in enumerate([fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 10) for one in sockets], start=3):
    os.dup2(copy, number)
os.environ |= {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "plain:secure", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[3], sys.argv[3:])
"""


def test_sockets_of_systemd_and_inherited_ones_speak_tls(start: Start, tls_files: Path) -> None:
    pair = ("--certfile", str(tls_files / "good.crt"), "--keyfile", str(tls_files / "good.key"))
    plain, secure = free_port(), free_port()
    command = [sys.executable, "-c", INHERIT, str(plain), str(secure), *COMMAND]
    start("--bind", "fd:3", "--bind", "tls:systemd:secure", *pair, port=None, workers=1, command=command)
    assert get(plain).status == 200
    assert get(secure, tls=trusting(tls_files / "authority.pem")).status == 200


def test_a_session_is_resumed_at_any_worker(start: Start, tls_files: Path) -> None:
    pair = ("--certfile", str(tls_files / "good.crt"), "--keyfile", str(tls_files / "good.key"))
    daemon = start(*pair, workers=3)
    context = trusting(tls_files / "authority.pem")
    session: ssl.SSLSession | None = None
    workers, reused = set(), []
    with ExitStack() as stack:  # they stay open, so that each worker gets its share
        for _ in range(15):
            plain = socket.create_connection(("127.0.0.1", daemon.port), timeout=BOOT)
            secure = stack.enter_context(context.wrap_socket(plain, server_hostname="localhost", session=session))
            secure.sendall(REQUEST)
            workers.add(secure.recv(1000).rpartition(b" ")[2])  # the ticket has come before that
            reused.append(secure.session_reused)
            session = secure.session
    assert reused == [False] + [True] * 14
    assert len(workers) == 3
