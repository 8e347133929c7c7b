"""Streams when their worker leaves, and when their client does: every kind of app learns of it and ends in order."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.e2e.client import Answer, Connection, TruncatedError, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, BOOT, Daemon
from tests.e2e.test_bombs import memory

APP = f"{APPS / 'streams.py'}:app"
WSGI = f"{APPS / 'wsgi_streams.py'}:app"
SOON = 8.0  # seconds: at once, on a busy machine, and far from the end of the default --graceful-timeout
CROWD, BATCH = 1000, 250  # clients: of which so many are there at a time


def open_stream(daemon: Daemon, path: str, *, method: str = "GET", within: float = SOON) -> Connection:
    """A connection that streams."""
    connection = Connection(daemon.port, timeout=within)
    connection.ask(path, method=method, headers=[("Content-Length", "0")] if method == "POST" else [])
    connection.read_some()
    return connection


def live(daemon: Daemon) -> int:
    number: int = json.loads(get(daemon.port, "/live").text)["live"]
    return number


def no_error(daemon: Daemon) -> bool:
    return " ERROR " not in daemon.log() and "Traceback" not in daemon.log()


# A stop, a reload, a recycling


@pytest.mark.parallel
@pytest.mark.parametrize("way", ["listens", "cancels", "quits", "closes", "sends", "knows"])
def test_an_event_stream_ends_in_order_at_the_beginning_of_a_stop(start: Start, way: str) -> None:
    daemon = start(app=APP, workers=1)
    with open_stream(daemon, f"/events/{way}") as stream:
        daemon.signal(signal.SIGTERM)
        answer = stream.answer()
        assert answer.text.startswith("data: first\n\n"), "and a last chunk, else this would have raised"
        assert answer.text.endswith("data: bye\n\n") == (way == "knows"), "who knows of the drain has last words"
    assert daemon.wait_exit(SOON) == 0
    daemon.wait_log(f"^{way} has ended$")
    assert no_error(daemon)
    daemon.wait_log("told 1 stream that this worker leaves" if way != "knows" else "^knows")


@pytest.mark.parallel
def test_an_event_stream_of_http_1_0_ends_in_order_too(start: Start) -> None:
    daemon = start(app=APP, workers=1)
    with Connection(daemon.port, timeout=SOON) as stream:
        stream.send(b"GET /events/listens HTTP/1.0\r\n\r\n")
        stream.read_some()
        daemon.signal(signal.SIGTERM)
        assert stream.answer().text == "data: first\n\n", "by a FIN and not by a reset"
    assert daemon.wait_exit(SOON) == 0
    assert no_error(daemon)


@pytest.mark.parallel
def test_event_streams_end_in_a_reload_and_in_a_recycling_and_come_back_to_the_successor(start: Start) -> None:
    daemon = start("--max-requests", "5", "--max-requests-jitter", "0", app=APP, workers=1)
    for cause in ("reload", "recycling"):
        [worker] = daemon.workers()
        with open_stream(daemon, "/events/listens") as stream:
            if cause == "reload":
                daemon.signal(signal.SIGHUP)
            else:
                for _ in range(5):
                    get(daemon.port, "/live")
            assert stream.answer().text == "data: first\n\n", cause
        with open_stream(daemon, "/events/listens"):
            pid = json.loads(get(daemon.port, "/live").text)["pid"]
            assert pid != worker.pid, cause
        daemon.wait_workers(1, but={worker.pid})
    assert no_error(daemon)


def test_other_streams_have_all_but_the_last_of_the_time_and_must_not_look_whole(start: Start) -> None:
    daemon = start("--graceful-timeout", "4", "--idle-grace", "0", app=APP, workers=1)
    with (
        open_stream(daemon, "/events/listens") as returning,
        open_stream(daemon, "/events/listens", method="POST") as posted,
        open_stream(daemon, "/length/listens") as promised,
        open_stream(daemon, "/text/listens") as text,
        open_stream(daemon, "/text/closes") as closed,
    ):
        daemon.signal(signal.SIGTERM)
        returning.answer()
        early = time.monotonic()
        assert daemon.log().count("listens has ended") <= 2, "the one with a length is an event stream, too"
        assert posted.answer().text == "data: first\n\n", "events are whole whenever they end"
        assert time.monotonic() - early > 2, "whose client does not come back"
        for cut in (promised, text, closed):
            with pytest.raises(TruncatedError):
                cut.answer()
    assert daemon.wait_exit(SOON) == 0
    assert daemon.log().count("WARNING") == 3
    assert daemon.log().count("is cut: its app ends it, for its worker leaves") == 3
    assert no_error(daemon)


@pytest.mark.parallel
@pytest.mark.parametrize(
    ("option", "early"),
    [(["--drain-streams", "all"], True), (["--drain-streams"], True), (["--drain-streams=late"], False)],
    ids=["all", "alone", "late"],
)
def test_the_option_says_which_streams_are_told_at_once(start: Start, option: list[str], early: bool) -> None:
    daemon = start("--graceful-timeout", "5", *option, app=APP, workers=1)
    with open_stream(daemon, "/events/listens") as events, open_stream(daemon, "/text/listens") as text:
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        events.answer()
        with pytest.raises(TruncatedError):
            text.answer()
        assert (time.monotonic() - began < 3) == early
    assert daemon.wait_exit(SOON) == 0


def test_a_stream_is_told_by_the_same_rule_when_its_worker_stands_by_first(start: Start) -> None:
    daemon = start("--trial", "3", "--graceful-timeout", "5", app=APP, workers=1)
    with open_stream(daemon, "/text/listens", within=20) as text:
        daemon.signal(signal.SIGHUP)
        took_over = logged_at(daemon, r"worker 0 \(generation 2\) is ready")
        with pytest.raises(TruncatedError):
            text.answer()
        told = logged_at(daemon, "told 1 stream")
    assert 3.4 < told - took_over < 4.5, "a fifth before the end, 4 s; not a fifth of what the standby has left, 4.6 s"
    daemon.wait_log("reload done")


def logged_at(daemon: Daemon, pattern: str) -> float:
    """When such a line was logged, seconds."""
    line = daemon.wait_log(rf"^(\S+) .*{pattern}")
    return datetime.fromisoformat(line[1]).timestamp()


# WSGI


@pytest.mark.parallel
@pytest.mark.parametrize("threads", ["2", "0"], ids=["threads", "loop"])
@pytest.mark.parametrize("way", ["ticks", "knows"])
def test_an_event_stream_of_a_wsgi_app_ends_in_order(start: Start, way: str, threads: str) -> None:
    daemon = start("--threads", threads, app=WSGI, workers=1)
    with open_stream(daemon, f"/events/{way}") as stream:
        daemon.signal(signal.SIGTERM)
        assert stream.answer().text.endswith("data: bye\n\n" if way == "knows" else "data: tick\n\n")
    assert daemon.wait_exit(SOON) == 0
    daemon.wait_log(f"^{way} has ended$")
    assert no_error(daemon)


@pytest.mark.parallel
def test_a_wsgi_event_stream_whose_thread_waits_ends_for_its_client_at_once(start: Start) -> None:
    daemon = start("--threads", "3", app=WSGI, workers=1)
    with open_stream(daemon, "/events/waits") as stream, open_stream(daemon, "/short/") as short:
        daemon.signal(signal.SIGTERM)
        answer = stream.answer()
        assert answer.text == "data: first\n\n"
        assert "waits has ended" not in daemon.log(), "its generator still waits"
        assert short.answer().text == "0\n1\n2\n", "what is no event stream is finished"
    assert daemon.wait_exit(SOON) == 0
    daemon.wait_log("^waits has ended$")
    assert no_error(daemon)


# Clients that leave


@pytest.mark.parallel
@pytest.mark.parametrize("way", ["listens", "cancels", "quits", "sends"])
def test_a_client_that_leaves_ends_its_stream(start: Start, way: str) -> None:
    daemon = start(app=APP, workers=1)
    for kind in ("events", "text"):
        with open_stream(daemon, f"/{kind}/{way}"):
            assert live(daemon) == 1
        daemon.until(lambda: live(daemon) == 0, SOON, "the app knows that its client has left")
    assert no_error(daemon)


@pytest.mark.parallel
def test_a_crowd_that_leaves_quiet_streams_leaves_nothing_behind(start: Start) -> None:
    daemon = start(app=APP, workers=1)
    held = []
    for _ in range(2):  # the first crowd grows the allocator's arenas, the second finds them
        for _ in range(CROWD // BATCH):
            with ExitStack() as stack:
                for _ in range(BATCH):
                    stack.enter_context(open_stream(daemon, "/text/listens"))
                assert live(daemon) == BATCH
            daemon.until(lambda: live(daemon) == 0, BOOT, "all apps know that their clients have left")
        held.append(memory(daemon))
    assert held[1] - held[0] < 2, "MB"
    assert no_error(daemon)


@pytest.mark.parallel
@pytest.mark.parametrize("behind", ["requests", "a body"])
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_client_that_leaves_is_noticed_though_nothing_more_is_read_from_it(
    start: Start, leave: str, behind: str
) -> None:
    daemon = start(app=APP, workers=1)
    with Connection(daemon.port, timeout=SOON) as stream:
        if behind == "requests":
            stream.send(4 * b"GET /text/cancels HTTP/1.1\r\nHost: a\r\n\r\n")
        else:
            stream.send(b"POST /text/cancels HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + bytes(100000))
        stream.read_some()
        assert live(daemon) == 1
        getattr(stream, leave)()
        daemon.until(lambda: live(daemon) == 0, SOON, "the app knows that its client has left")
    daemon.wait_log('"(GET|POST) /text/cancels HTTP/1.1" 200 13 ')
    assert no_error(daemon)


@pytest.mark.parallel
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_an_app_that_listens_to_nobody_is_cancelled_in_time_if_that_is_wanted(start: Start, leave: str) -> None:
    patient, strict = start(app=APP, workers=1), start("--disconnect-timeout", "0.5", app=APP, workers=1)
    streams = [open_stream(daemon, "/text/deaf") for daemon in (patient, strict)]
    assert (live(patient), live(strict)) == (1, 1)
    for stream in streams:
        getattr(stream, leave)()
    strict.until(lambda: live(strict) == 0, SOON, "it is cancelled")
    assert live(patient) == 1, "0 is never"
    for daemon in (patient, strict):
        assert no_error(daemon)
    with open_stream(strict, "/text/deaf"):
        time.sleep(1)  # longer than the timeout: it is for clients that leave
        assert live(strict) == 1


@pytest.mark.parallel
def test_a_websocket_whose_app_listens_to_nobody_is_cancelled_in_time(start: Start) -> None:
    daemon = start("--disconnect-timeout", "0.5", app=APP, workers=1)
    with connect(f"ws://127.0.0.1:{daemon.port}/", close_timeout=1) as client:
        client.socket.shutdown(socket.SHUT_RDWR)
    daemon.wait_log("^the WebSocket has ended$", SOON)
    assert no_error(daemon)


@pytest.mark.parallel
def test_what_an_app_does_behind_its_response_is_not_cancelled(start: Start) -> None:
    daemon = start("--disconnect-timeout", "0.1", app=f"{APPS / 'asgi_site.py'}:app", workers=1)
    with Connection(daemon.port) as connection:
        connection.get("/background")
    daemon.wait_log("^background work is done$", SOON)


BIG = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8000000")]})
    await send({"type": "http.response.body", "body": bytes(8000000)})
"""


@pytest.mark.parallel
def test_a_client_that_has_closed_its_side_and_is_slow_to_read_gets_all(start: Start, tmp_path: Path) -> None:
    (path := tmp_path / "big.py").write_text(BIG)
    daemon = start("--disconnect-timeout", "0.2", app=f"{path}:app", workers=1)
    with Connection(daemon.port) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.ask("/")
        connection.socket.shutdown(socket.SHUT_WR)
        time.sleep(1.5)  # several times the timeout
        assert len(connection.answer().body) == 8_000_000


SEED = """
import asyncio
from preforkd.workers import ServerHttpProtocol

class Handler(ServerHttpProtocol):
    async def handle_request(self, message, payload):
        try:
            print("began", flush=True)
            await asyncio.sleep(3600)
        finally:
            print("ended", flush=True)
"""


@pytest.mark.parallel
def test_a_handler_whose_client_has_closed_its_side_is_cancelled_in_time(start: Start, tmp_path: Path) -> None:
    (path := tmp_path / "handler.py").write_text(SEED)
    daemon = start("--disconnect-timeout", "0.5", app=f"{path}:Handler", workers=1)
    with Connection(daemon.port) as connection:
        connection.ask("/")
        daemon.wait_log("^began$")
        connection.socket.shutdown(socket.SHUT_WR)
        daemon.wait_log("^ended$", SOON)
    assert no_error(daemon)


@pytest.mark.parallel
def test_a_wsgi_call_whose_client_has_left_ends_at_its_next_part(start: Start) -> None:
    daemon = start("--disconnect-timeout", "0.5", "--threads", "1", app=WSGI, workers=1)
    open_stream(daemon, "/text/waits").close()
    daemon.wait_log("^waits has ended$", SOON)
    assert get(daemon.port, "/short/").text == "0\n1\n2\n"
    assert no_error(daemon)


# What an app is told


def test_the_extensions_are_plain_data(start: Start) -> None:
    answer: Answer = get(start(app=APP, workers=1).port, "/extensions")
    assert json.loads(answer.text)["preforkd.draining"] == {}


def test_the_example_of_the_page_for_authors_works(start: Start, tmp_path: Path) -> None:
    text = (APPS.parents[1] / "deploy" / "docs" / "apps.md").read_text()
    example = re.search(r"^      draining = (?:.*\n)+?(?=\n  )", text, re.MULTILINE)
    assert example is not None, "the lines that ask for the drain"
    head = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
"""
    body = re.sub("^  ", "", example[0], flags=re.MULTILINE).replace("next_event()", 'await asyncio.sleep(0.02, b"x")')
    (tmp_path / "app.py").write_text(f"import asyncio\n{head}{body}")
    daemon = start(app=f"{tmp_path}/app.py:app", workers=1)
    with open_stream(daemon, "/") as stream:
        daemon.signal(signal.SIGTERM)
        assert set(stream.answer().text) == {"x"}
    assert daemon.wait_exit(SOON) == 0
    assert no_error(daemon)


def test_a_word_that_is_none_is_refused_with_what_would_be_right(start: Start) -> None:
    daemon = start("--drain-streams", APP, app=None, workers=1, wait=False)
    assert daemon.wait_exit() == 2
    daemon.wait_log(re.escape('streams.py:app" is not one of auto, all, late (on the command line it means all'))
