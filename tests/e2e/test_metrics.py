"""--admin and --statsd: what is counted is what clients have got, whatever has become of the workers."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.apps import AppFile
from tests.e2e.client import AnswerError, Connection
from tests.e2e.conftest import Start
from tests.e2e.daemon import SHORT_TRIAL
from tests.e2e.load import load
from tests.e2e.test_upgrade import upgrade
from tests.e2e.watching import Admin

pytestmark = pytest.mark.parallel

SAMPLE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)")
GET_200 = 'http_request_method="GET",http_response_status_class="2xx"'


def metrics(admin: Admin) -> dict[str, float]:
    """What is scraped: values by name and labels."""
    answer = admin.get("/metrics")
    assert answer.status == 200
    found = [SAMPLE.fullmatch(line) for line in answer.text.splitlines() if not line.startswith("#")]
    return {f"{one[1]}{{{one[2]}}}" if one[2] else one[1]: float(one[3]) for one in found if one}


class Client:
    """Counts what it gets.

    Args:
        port: of the daemon.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.statuses: Counter[int] = Counter()
        self.methods: Counter[tuple[str, str]] = Counter()

    def ask(self, path: str, method: str = "GET") -> None:
        with Connection(self._port) as connection:
            connection.ask(path, method=method)
            self.count(method, connection.answer(to=method).status)

    def count(self, method: str, status: int) -> None:
        self.statuses[status] += 1
        self.methods[method if method != "BREW" else "_OTHER", f"{status // 100}xx"] += 1

    def ask_all(self) -> None:
        for path in ("/", "/", "/close", "/nowhere", "/fail", "/slow/0.02"):
            self.ask(path)
        for method in ("POST", "HEAD", "DELETE", "BREW"):
            self.ask("/", method)


def kill_in_the_middle(admin: Admin) -> None:
    """KILL a worker while it handles a request, which then gets no answer; return when there is another."""
    before = admin.daemon.worker_pids()
    with Connection(admin.daemon.port) as cut:
        cut.ask("/slow/60")
        (request,) = admin.daemon.until(lambda: admin.status()["in_flight"], 5, "a request in flight")
        admin.daemon.signal(signal.SIGKILL, request["pid"])
        with pytest.raises(AnswerError):
            cut.answer()
    admin.daemon.wait_workers(len(before), but={request["pid"]})


def agree(admin: Admin, client: Client) -> bool:
    """Whether status and metrics say what the client has counted; what it has just got may still be being counted."""
    found, scraped = admin.status()["requests"], metrics(admin)
    classes = Counter({f"{status // 100}xx": 0 for status in client.statuses})
    for status, number in client.statuses.items():
        classes[f"{status // 100}xx"] += number
    durations = "http_server_request_duration_seconds_count"
    return (
        found["total"] == client.statuses.total()
        and {name: number for name, number in found["by_class"].items() if number} == classes
        and {
            status: scraped[f'http_server_responses_total{{http_response_status_code="{status}"}}']
            for status in client.statuses
        }
        == client.statuses
        and {
            key: scraped[f'{durations}{{http_request_method="{key[0]}",http_response_status_class="{key[1]}"}}']
            for key in client.methods
        }
        == client.methods
    )


def test_counts_are_those_of_the_clients_across_kills_reloads_and_upgrades(start: Start, tmp_path: Path) -> None:
    app = AppFile(tmp_path)
    admin = Admin(start, tmp_path, *SHORT_TRIAL, app=app.target, tolerated="Traceback|RuntimeError")
    daemon, client = admin.daemon, Client(admin.daemon.port)

    def check() -> None:
        client.ask_all()
        daemon.until(lambda: agree(admin, client), 5, f"{client.statuses} {client.methods}")

    check()
    killed: set[int] = set()
    for _ in range(3):
        known = {worker.pid for worker in daemon.wait_workers(2, but=killed)}
        killed |= known
        for pid in known:
            daemon.signal(signal.SIGKILL, pid)
        daemon.wait_serving(but=known)
        client.statuses[200] += 1
        client.methods["GET", "2xx"] += 1
        check()
    daemon.signal(signal.SIGKILL, admin.pid)
    check()
    daemon.wait_workers(2)
    kill_in_the_middle(admin)
    check()
    before = metrics(admin)
    assert admin.control("reload?wait=1")[1]["result"] == "done"
    check()
    assert admin.control("scale?workers=1&wait=1")[1]["result"] == "done"
    check()
    with Connection(daemon.port) as connection:
        connection.ask(f"/until{tmp_path}/upgraded")
        daemon.until(lambda: admin.status()["in_flight"], 5, "a request of the old program")
        daemon.signal(signal.SIGUSR2)
        daemon.wait_log("reload done: generation 3")
        (tmp_path / "upgraded").touch()
        client.count("GET", connection.answer().status)
    check()
    kill_in_the_middle(admin)
    check()
    after = metrics(admin)
    for name, value in before.items():
        if "_total" in name or re.search(r"_(count|sum|bucket)\{", name):
            assert after[name] >= value, name
    assert after['preforkd_reloads_total{result="done"}'] == 2
    assert after['preforkd_worker_exits_total{reason="killed"}'] == 8
    assert after["preforkd_admin_exits_total"] == 1


def test_counts_go_on_in_the_next_program(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path, tolerated="Traceback|RuntimeError")
    client = Client(admin.daemon.port)
    client.ask_all()
    upgrade(admin.daemon)
    client.statuses[200] += 1
    client.methods["GET", "2xx"] += 1
    client.ask_all()
    admin.daemon.until(lambda: admin.pid and agree(admin, client), 10, f"{client.statuses} {client.methods}")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (the Debian package prometheus)")
def test_promtool_finds_nothing_to_improve_in_what_a_busy_daemon_says(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path, tolerated="Traceback|RuntimeError")
    Client(admin.daemon.port).ask_all()
    text = admin.get("/metrics").text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert text.count(GET_200) == 17, "14 buckets, the one above them, the sum and the count"


def test_requests_in_flight_are_shown_and_what_is_refused_or_cut_is_counted(start: Start, tmp_path: Path) -> None:
    admin = Admin(
        start,
        tmp_path,
        "--limit-concurrency",
        "1",
        "--limit-request-line",
        "100",
        "--graceful-timeout",
        "0.5",
        workers=1,
    )
    with Connection(admin.daemon.port) as slow, Connection(admin.daemon.port) as other:
        slow.ask("/slow/60")

        def shown() -> list[dict[str, object]]:
            found: list[dict[str, object]] = admin.status()["in_flight"]
            return found

        (request,) = admin.daemon.until(shown, 5, "a request in flight")
        assert (request["method"], request["path"], request["slot"]) == ("GET", "/slow/60", 0)
        assert metrics(admin)["http_server_active_requests"] == 1
        assert other.get().status == 503
        with Connection(admin.daemon.port) as long:
            assert long.get("/" + "x" * 200).status == 414
        names = ('preforkd_rejected_requests_total{reason="concurrency"}',
                 'preforkd_rejected_requests_total{reason="uri_too_long"}')  # fmt: skip
        admin.daemon.until(lambda: [metrics(admin)[name] for name in names] == [1, 1], 5, "refused requests")
        admin.control("restart?slot=0")
        forced = "preforkd_drain_forced_requests_total"
        admin.daemon.until(lambda: metrics(admin)[forced] == 1, 10, "a request that was cut")


@pytest.mark.parametrize("threads", ["1", "0"])
def test_wsgi_and_how_long_its_requests_wait_for_a_thread(start: Start, tmp_path: Path, threads: str) -> None:
    app = tmp_path / "app.py"
    app.write_text("""
import time

def app(environ, start_response):
    time.sleep(0.03)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
""")
    admin = Admin(start, tmp_path, "--threads", threads, app=f"{app}:app")
    connections = [Connection(admin.daemon.port) for _ in range(8)]
    for connection in connections:
        connection.ask()
    for connection in connections:
        assert connection.answer().status == 200
        connection.close()
    count = "http_server_request_duration_seconds_count{" + GET_200 + "}"
    admin.daemon.until(lambda: metrics(admin).get(count) == 8, 5, "the requests")
    found = metrics(admin)
    assert found["preforkd_thread_queue_seconds_count"] == (8 if threads == "1" else 0)
    if threads == "1":
        waited = found["preforkd_thread_queue_seconds_sum"]
        assert waited > 0.03, "they wait for each other"
        assert found["http_server_request_duration_seconds_sum{" + GET_200 + "}"] > waited


def test_asgi_requests_are_counted_also_when_the_app_goes_on_behind_its_response(start: Start, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text("""
import asyncio

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 201, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
    if scope["path"] == "/behind":
        await asyncio.sleep(0.2)
""")
    admin = Admin(start, tmp_path, "--interface", "asgi", app=f"{app}:app")
    with Connection(admin.daemon.port) as connection:
        for path in ("/", "/behind", "/", "/behind", "/"):
            assert connection.get(path).status == 201
    name = 'http_server_responses_total{http_response_status_code="201"}'
    admin.daemon.until(lambda: metrics(admin).get(name) == 5, 5, "the requests")


def test_metrics_are_sent_with_the_names_of_gunicorn(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        address = f"127.0.0.1:{receiver.getsockname()[1]}"
        daemon = start("--statsd", address, "--statsd-prefix", "shop.", "--statsd-tags", "env:test")
        assert b"shop.gunicorn.workers:" in receiver.recv(65536), "it begins at once"
        with load(daemon.port) as result:
            time.sleep(1)
        got: Counter[str] = Counter()
        end = time.monotonic() + 10
        while got["shop.gunicorn.requests"] < result.bodies.total() and time.monotonic() < end:
            for line in receiver.recv(65536).decode().splitlines():
                name, _, rest = line.partition(":")
                value, kind, *more = rest.split("|")
                assert more[-1] == "#env:test"
                got[name] += int(value) if kind == "c" else 0
        assert got["shop.gunicorn.requests"] == got["shop.gunicorn.request.status.200"] == result.bodies.total()
    assert daemon.stop() == 0


def test_the_queue_of_connections_is_seen(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path, "--limit-connections", "1", workers=1)
    name = f'preforkd_accept_queue_length{{listener="http://127.0.0.1:{admin.daemon.port}"}}'
    with Connection(admin.daemon.port) as held:
        held.get()
        waiting = [Connection(admin.daemon.port) for _ in range(3)]
        admin.daemon.until(lambda: metrics(admin).get(name) == 3, 5, "three connections that wait")
        for one in waiting:
            one.close()


def test_under_load_every_answer_is_counted_once_also_when_workers_are_killed(start: Start, tmp_path: Path) -> None:
    admin = Admin(start, tmp_path, *SHORT_TRIAL)
    daemon = admin.daemon
    with load(daemon.port, paths=("/", "/slow/0.01")) as result:
        assert admin.control("reload?wait=1")[1]["result"] == "done"
        admin.control("upgrade")
        daemon.wait_log("this is the new program")
        daemon.wait_log("reload done: generation 3")
    answered = result.bodies.total()
    daemon.until(lambda: admin.status()["requests"]["total"] == answered, 10, f"{answered} requests")
    with load(daemon.port, paths=("/", "/slow/0.01")) as killed:
        for _ in range(3):
            victims = {worker.pid for worker in daemon.wait_workers(2)}
            for pid in victims:
                daemon.signal(signal.SIGKILL, pid)
            daemon.wait_workers(2, but=victims)
    found = admin.daemon.until(lambda: [admin.status()["requests"]["total"]], 1, "a number")[0] - answered
    # Of those that were lost with a worker some may have been counted when it died, their answers on the way. And the
    # answer that it was writing then may have arrived before it was counted, by 10 us: one of each worker at most.
    assert killed.bodies.total() - 6 <= found <= killed.bodies.total() + killed.failed
