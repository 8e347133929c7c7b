"""TLS under load: no stop, reload or upgrade costs a client a request, and WebSockets are told 1012."""

from __future__ import annotations

import signal
import ssl
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.certificates import Authority, needs_openssl
from tests.e2e import load as names
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, BOOT, Daemon
from tests.e2e.load import Result, load

pytestmark = [needs_openssl, pytest.mark.parallel]

MIXED = {"paths": ("/", "/slow/0.05", "/chunks/3/0.01"), "expect": r"\w \d+(\n0\n1\n2\n)?"}


class Files:
    """What a daemon speaks TLS with, and whom its clients trust."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        certificate, key = self.authority.issue("server", "localhost")
        self.arguments = ("--certfile", str(certificate), "--keyfile", str(key), "--no-access-log")

    def websocket(self, daemon: Daemon) -> ClientConnection:
        """A WebSocket over TLS.

        Over 1.3 one opening of a thousand is lost by this client: a thread of its reads the session tickets while
        another one writes the request, and the `ssl` of Python 3.11 guards no connection against that.
        """
        context = self.authority.client()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return connect(f"wss://localhost:{daemon.port}/", ssl=context, open_timeout=BOOT, close_timeout=BOOT)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


def test_reloads_and_an_upgrade_fail_no_request(start: Start, files: Files) -> None:
    daemon = start(*files.arguments)
    with load(daemon.port, authority=str(files.authority.certificate), **MIXED) as result:
        for number, signum in enumerate([signal.SIGHUP, signal.SIGHUP, signal.SIGUSR2, signal.SIGHUP], start=2):
            daemon.signal(signum)
            daemon.wait_log(f"generation {number} serves")
    assert result.failed == 0, result.describe()
    assert result.total > 100
    assert daemon.stop() == 0


def test_a_stop_finishes_what_it_has_accepted(start: Start, files: Files) -> None:
    daemon = start(*files.arguments, "--idle-grace", "1")
    with load(daemon.port, authority=str(files.authority.certificate), **MIXED) as result:
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_exit(10.0) == 0
    assert_only_refused(result)


def assert_only_refused(result: Result) -> None:
    """Every request was answered, but for those that found nobody."""
    assert set(result.outcomes) <= {names.OK, names.REFUSED}, result.describe()
    assert result.outcomes[names.OK], result.describe()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_websockets_are_told_1012(start: Start, files: Files, signum: signal.Signals) -> None:
    daemon = start(*files.arguments, app=f"{APPS / 'tls_site.py'}:asgi")
    with ExitStack() as stack:
        clients = [stack.enter_context(files.websocket(daemon)) for _ in range(4)]
        for client in clients:
            client.send("hello")
            assert client.recv(BOOT) == "wss"
        daemon.signal(signum)
        for client in clients:
            with pytest.raises(ConnectionClosed):
                client.recv(BOOT)
            assert client.close_code == 1012
    if signum == signal.SIGTERM:
        assert daemon.wait_exit(10.0) == 0
    else:
        with files.websocket(daemon) as again:
            again.send("hello")
            assert again.recv(BOOT) == "wss"
