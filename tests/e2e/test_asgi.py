"""ASGI apps behind the real daemon: nothing is lost, and the app is told of what happens to its worker."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.e2e.apps import AppFile
from tests.e2e.client import HANDSHAKE, Connection, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, SHORT_TRIAL, Daemon
from tests.e2e.load import load

FILE = APPS / "asgi_site.py"
APP = f"{FILE}:app"


@pytest.fixture
def site(tmp_path: Path) -> AppFile:
    return AppFile(tmp_path, FILE, "app")


def websocket(daemon: Daemon) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{daemon.port}/", close_timeout=3)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.mark.parallel
def test_the_interface_is_found_and_named(start: Start) -> None:
    daemon = start(app=APP)
    assert get(daemon.port).text.startswith("1 ")
    assert start("--interface", "asgi", app=APP).wait_serving() > 0


@pytest.mark.parallel
def test_a_reload_under_load_loses_nothing(start: Start, site: AppFile) -> None:
    daemon = start(*SHORT_TRIAL, "--no-access-log", app=site.target)
    with load(daemon.port, paths=["/", "/background"], expect=r"[12] \d+") as result:
        for version in ("2", "1", "2"):
            site.version(version)
            mark = daemon.mark()
            daemon.signal(signal.SIGHUP)
            daemon.wait_log("reload done", 30, since=mark)
    assert result.failed == 0, result.describe()
    assert {body[0] for body in result.bodies} == {"1", "2"}
    daemon.wait_log("^stopping 1$")


def test_a_stop_under_load_finishes_what_was_accepted(start: Start) -> None:
    daemon = start("--no-access-log", app=APP)
    with Connection(daemon.port) as slow, Connection(daemon.port) as idle:
        slow.ask("/slow")
        assert idle.get("/background").text
        time.sleep(0.1)
        daemon.signal(signal.SIGTERM)
        answer = slow.answer()
        assert (answer.status, answer.closes) == (200, True)
    assert daemon.wait_exit() == 0
    daemon.wait_log("^background work is done$")
    assert daemon.log().count("stopping 1") == 2, "the lifespan of both workers has ended"


# Lifespan


@pytest.mark.parallel
def test_a_startup_that_fails_is_a_failed_boot_with_its_message(start: Start, site: AppFile) -> None:
    site.version("1", receive='await send({"type": "lifespan.startup.failed", "message": "no database"})')
    daemon = start(app=site.target, wait=False, tolerated="Traceback")
    assert daemon.wait_exit() == 3
    daemon.wait_log(r"did not boot: lifespan: the app's startup failed: no database")


@pytest.mark.parallel
def test_a_startup_that_raises_is_a_failed_boot_with_its_traceback(start: Start, site: AppFile) -> None:
    site.version("1", send='raise LookupError("no database")')
    daemon = start(app=site.target, wait=False, tolerated="Traceback")
    assert daemon.wait_exit() == 3
    daemon.wait_log(r"did not boot: lifespan: the app's startup failed: LookupError: no database")
    daemon.wait_log(rf'File "{site.path}", line \d+', since=0)


def test_nothing_is_served_before_the_startup_is_complete(start: Start, site: AppFile) -> None:
    site.version("1", send="await asyncio.sleep(1.0)")
    daemon = start(app=site.target, workers=1, wait=False)
    daemon.wait_log("^starting 1$")
    with pytest.raises(OSError):
        Connection(daemon.port, timeout=1)
    daemon.wait_log("is ready")
    assert get(daemon.port).text.startswith("1 ")


@pytest.mark.parallel
def test_a_startup_that_hangs_is_ended_by_the_startup_timeout(start: Start, site: AppFile) -> None:
    site.version("1", send="await asyncio.sleep(60)")
    daemon = start("--startup-timeout", "1", app=site.target, workers=1, wait=False, tolerated="Fatal Python error")
    assert daemon.wait_exit() == 3
    daemon.wait_log("--startup-timeout")


@pytest.mark.parallel
def test_a_reload_to_an_app_that_does_not_start_leaves_the_old_one_and_its_lifespan(
    start: Start, site: AppFile
) -> None:
    daemon = start(app=site.target)
    with websocket(daemon) as client:
        site.version("2", send='raise LookupError("no database")')
        daemon.tolerate("Traceback")
        daemon.signal(signal.SIGHUP)
        daemon.wait_log("reload failed", 30)
        client.send("still here?")
        assert client.recv(5) == "1 still here?"
    assert get(daemon.port).text.startswith("1 ")
    assert "stopping" not in daemon.log()


def test_a_shutdown_that_hangs_is_cancelled_within_its_budget(start: Start, site: AppFile) -> None:
    text = site.path.read_text().replace('print(f"stopping', 'await asyncio.sleep(60)\n    print(f"stopping')
    site.deploy(text)
    daemon = start("--shutdown-timeout", "2", "--idle-grace", "0", app=site.target)
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 3
    daemon.wait_log("has not shut down within")


@pytest.mark.parallel
def test_the_health_path_is_answered_before_an_asgi_app(start: Start) -> None:
    daemon = start("--health-path", "/healthz", app=APP)
    with Connection(daemon.port) as connection:
        assert connection.get("/healthz").text == "ready\n"
        assert connection.get("/").text.startswith("1 ")
    assert "/healthz" not in daemon.log()


# Draining


@pytest.mark.parallel
def test_websockets_are_told_1012_and_the_stop_is_quick(start: Start, stack: contextlib.ExitStack) -> None:
    daemon = start("--graceful-timeout", "10", app=APP)
    clients = [stack.enter_context(websocket(daemon)) for _ in range(6)]
    for client in clients:
        client.send("hello")
        assert client.recv(5) == "1 hello"
    daemon.signal(signal.SIGTERM)
    for client in clients:
        with pytest.raises(ConnectionClosed):
            client.recv(10)
        assert (client.close_code, client.close_reason) == (1012, "service restart")
    assert daemon.wait_exit(8) == 0
    assert daemon.log().count("websocket 1012") == 6


@pytest.mark.parallel
def test_a_handshake_that_its_app_has_not_answered_when_the_worker_stops_is_answered_503(start: Start) -> None:
    daemon = start("--graceful-timeout", "20", app=APP, workers=1)
    with Connection(daemon.port) as waiting:
        waiting.ask("/never-accepts", headers=HANDSHAKE)
        assert get(daemon.port).status == 200, "the app has the handshake"
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        answer = waiting.answer()
        assert (answer.status, answer.closes) == (503, True)
    assert daemon.wait_exit(8) == 0
    assert time.monotonic() - began < 8, "an app that can be told holds up nothing"
    daemon.wait_log("^websocket 1012 before it was accepted$")


@pytest.mark.parallel
def test_an_app_that_never_answers_a_handshake_is_cancelled_and_its_client_answered(start: Start) -> None:
    daemon = start("--graceful-timeout", "5", app=APP, workers=1)
    with Connection(daemon.port) as waiting:
        waiting.ask("/listens-to-nobody", headers=HANDSHAKE)
        assert get(daemon.port).status == 200, "the app has the handshake"
        daemon.signal(signal.SIGTERM)
        answer = waiting.answer()
        assert (answer.status, answer.closes) == (503, True)
    assert daemon.wait_exit(8) == 0
    assert "cutting" not in daemon.log()


@pytest.mark.parallel
def test_websockets_of_a_reload_are_told_1012_and_find_the_new_code(start: Start, site: AppFile) -> None:
    daemon = start(*SHORT_TRIAL, "--graceful-timeout", "4", "--no-access-log", app=site.target)
    codes: list[int | None] = []
    versions: set[str] = set()
    talking: set[int] = set()
    stop = threading.Event()
    failures: list[BaseException] = []

    def chat() -> None:
        try:
            while not stop.is_set():
                with websocket(daemon) as client:
                    try:
                        while not stop.is_set():
                            client.send("x")
                            versions.add(str(client.recv(10))[0])
                            talking.add(threading.get_ident())
                            time.sleep(0.01)
                    except ConnectionClosed:
                        codes.append(client.close_code)
        except BaseException as exc:  # noqa: BLE001 -- reported by the test's own thread
            failures.append(exc)

    threads = [threading.Thread(target=chat) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        daemon.until(lambda: len(talking) == len(threads), 10, "every WebSocket is answered by the old code")
        site.version("2")
        mark = daemon.mark()
        daemon.signal(signal.SIGHUP)
        daemon.wait_log("reload done", 30, since=mark)
        daemon.until(lambda: len(codes) >= 8, 15, "every WebSocket was told")
        daemon.until(lambda: "2" in versions, 5, "the new code answers")
    finally:
        stop.set()
        for thread in threads:
            thread.join(15)
    assert not failures
    assert set(codes) == {1012}


@pytest.mark.parametrize("path", ["/ticks", "/ticks-by-event"])
def test_a_stream_can_end_in_order_when_its_worker_leaves(start: Start, path: str) -> None:
    daemon = start("--graceful-timeout", "20", "--drain-streams", app=APP)
    with Connection(daemon.port) as connection:
        connection.ask(path)
        connection.read_some()
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert connection.answer().text.endswith("tick\nend in order\n")
        assert time.monotonic() - began < 3
    assert daemon.wait_exit(5) == 0


def test_a_stream_is_told_shortly_before_it_is_cut(start: Start) -> None:
    daemon = start("--graceful-timeout", "4", app=APP)
    with Connection(daemon.port) as connection:
        connection.ask("/ticks")
        connection.read_some()
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert connection.answer().text.endswith("tick\nend in order\n")
        assert 2 < time.monotonic() - began < 4, "not at once, and before the end of --graceful-timeout"
    assert daemon.wait_exit(5) == 0
