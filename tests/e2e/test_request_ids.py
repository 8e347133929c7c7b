"""One id for a request: in the request, in the app, in the response and in the log, in every interface."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.e2e.client import Connection
from tests.e2e.conftest import Start
from tests.e2e.test_forwarded import STRANGER, from_

APP = """
import json
from preforkd.workers import Response, ServerHttpProtocol

OWN = {"/own": [("X-Request-Id", "the app's")]}


class Site(ServerHttpProtocol):
    async def handle_request(self, message, payload):
        told = [message.headers.getall("X-Request-ID", []), message.request_id]
        response = Response(self.writer, 200)
        response.add_headers(*OWN.get(message.path, []))
        response.send_headers()
        response.write(json.dumps(told).encode())
        self.keep_alive(True)
        await response.write_eof()


async def asgi(scope, receive, send):
    assert scope["type"] != "lifespan"
    told = [[value.decode() for name, value in scope["headers"] if name == b"x-request-id"]]
    told.append(scope["state"].get("request_id", ""))
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": json.dumps(told)})
        return await send({"type": "websocket.close"})
    own = [(name.encode(), value.encode()) for name, value in OWN.get(scope["path"], [])]
    await send({"type": "http.response.start", "status": 200, "headers": own})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


def wsgi(environ, start_response):
    sent = environ.get("HTTP_X_REQUEST_ID")
    start_response("200 OK", OWN.get(environ["PATH_INFO"], []))
    return [json.dumps([[] if sent is None else [sent], environ.get("preforkd.request_id", "")]).encode()]
"""
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
INTERFACES = pytest.mark.parametrize("attribute", ["Site", "asgi", "wsgi"])


@pytest.fixture
def app(tmp_path: Path) -> Path:
    path = tmp_path / "app.py"
    path.write_text(APP)
    return path


def asked(connection: Connection, path: str = "/", *values: str) -> tuple[list[str], str, str | None]:
    answer = connection.get(path, headers=[("X-Request-ID", value) for value in values])
    sent, told = json.loads(answer.text)
    return sent, told, answer.header("X-Request-ID")


@pytest.mark.parallel
@INTERFACES
def test_it_is_the_same_everywhere(start: Start, app: Path, attribute: str) -> None:
    daemon = start("--access-log-format", "line %(id)s %(trace)s %(span)s", app=f"{app}:{attribute}", workers=1)
    ids = []
    with Connection(daemon.port) as connection:
        assert asked(connection, "/", "lb-17") == (["lb-17"], "lb-17", "lb-17")
        for values in ((), ("a b",), ("a", "b"), ("x" * 129,)):
            sent, told, said = asked(connection, "/", *values)
            assert sent == [told] == [said]
            assert uuid.UUID(told).version == 7
            ids.append(told)
        assert asked(connection, "/own", "lb-18") == (["lb-18"], "lb-18", "the app's")
        connection.get("/", headers=[("traceparent", f"00-{TRACE}-{SPAN}-01"), ("X-Request-ID", '"quoted"')])
    with from_(STRANGER, daemon.port) as connection:
        sent, told, said = asked(connection, "/", "lb-17")
        assert sent == [told] == [said] != ["lb-17"]
        ids.append(told)
    with Connection(daemon.port) as connection:
        connection.send(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
        refused = connection.answer()
        assert refused.status == 400
        ids.append(str(refused.header("X-Request-ID")))
        assert uuid.UUID(ids[-1]).version == 7
    assert len(set(ids)) == len(ids)
    expected = ["lb-17", *ids[:4], "lb-18", '\\"quoted\\"', *ids[4:]]
    daemon.until(lambda: daemon.log().count("line ") >= len(expected), 10, "the lines of the access log")
    assert re.findall(r"^line (\S+) ", daemon.log(), re.MULTILINE) == expected
    assert daemon.log().count(f" {TRACE} {SPAN}\n") == 1


@pytest.mark.parallel
@INTERFACES
def test_off_and_another_name(start: Start, app: Path, attribute: str) -> None:
    daemon = start("--request-id-header", "off", app=f"{app}:{attribute}", workers=1)
    with Connection(daemon.port) as connection:
        assert asked(connection, "/", "lb-17") == (["lb-17"], "", None)
        assert asked(connection) == ([], "", None)
    daemon = start("--request-id-header", "X-Trace", "--log-format", "json", app=f"{app}:{attribute}", workers=1)
    with Connection(daemon.port) as connection:
        answer = connection.get("/", headers=[("X-TRACE", "lb-17"), ("traceparent", f"00-{TRACE}-{SPAN}-01")])
        assert (answer.header("X-Trace"), json.loads(answer.text)[1]) == ("lb-17", "lb-17")
        ours = connection.get("/").header("X-Trace")
    daemon.until(lambda: daemon.log().count('"request_id"') >= 2, 10, "the lines of the access log")
    lines: list[dict[str, Any]] = [json.loads(line) for line in daemon.log().splitlines() if '"request_id"' in line]
    assert [(line["request_id"], line["trace_id"], line["span_id"]) for line in lines] == [
        ("lb-17", TRACE, SPAN), (ours, None, None),
    ]  # fmt: skip


@pytest.mark.parallel
def test_a_websocket_has_one(start: Start, app: Path) -> None:
    daemon = start(app=f"{app}:asgi", workers=1)
    with connect(f"ws://127.0.0.1:{daemon.port}/") as websocket:
        sent, told = json.loads(websocket.recv(timeout=10))
        assert websocket.response is not None
        assert sent == [told] == websocket.response.headers.get_all("X-Request-ID")


@pytest.mark.parametrize("value", ["X Y", "Content-Length", "", "a:b", "-x", "x" * 60])
def test_what_can_be_no_name_is_refused(start: Start, value: str) -> None:
    daemon = start("--request-id-header", value, workers=1, wait=False)
    assert daemon.wait_exit() == 2
    daemon.wait_log(r'error: --request-id-header on the command line: .* is not a name .* or "off" for none$')
