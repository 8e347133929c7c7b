"""OpenTelemetry and Sentry, as the example for hooks sets them up: what they send arrives, to the last of it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.e2e.client import get
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, EXAMPLES, Daemon

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
pytest.importorskip("opentelemetry.instrumentation.asgi")
pytest.importorskip("sentry_sdk")
pytestmark = pytest.mark.parallel
APP = f"{APPS / 'frameworks' / 'traced_app.py'}:app"


class Collector(ThreadingHTTPServer):
    """Takes what both send, on this machine."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taker)
        self.posts: list[tuple[str, bytes]] = []

    def sent(self, path: str) -> bytes:
        """All that was sent to a path."""
        return b"".join(body for where, body in self.posts if where.startswith(path))


class Taker(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert isinstance(self.server, Collector)
        self.server.posts.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


@pytest.mark.parametrize("mode", ["", "--preload"])
def test_what_they_send_arrives(start: Start, mode: str) -> None:
    with collecting() as collector:
        where = f"127.0.0.1:{collector.server_port}"
        daemon: Daemon = start(
            "--hooks",
            str(EXAMPLES / "observability.py"),
            *([mode] if mode else []),
            app=APP,
            workers=1,
            tolerated="Traceback",
            environment={
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{where}",
                "OTEL_BSP_SCHEDULE_DELAY": "60000",  # ms: nothing but the end of the worker sends the spans
                "SENTRY_DSN": f"http://key@{where}/7",
            },
        )
        assert get(daemon.port, "/shop").text == "traced"
        assert get(daemon.port, "/boom").status == 500
        assert daemon.stop() == 0
        spans, events = collector.sent("/v1/traces"), collector.sent("/api/7/envelope/")
    assert b"work of the shop" in spans
    assert b"GET /shop" in spans or b"/shop" in spans
    assert b"0.1" in spans, "the instance is the slot and the generation"
    assert b"boom for Sentry" in events
    assert b"traced_app.py" in events
    assert b'"server_name":"0.1"' in events
    assert daemon.log().count("ValueError: boom for Sentry") == 1
