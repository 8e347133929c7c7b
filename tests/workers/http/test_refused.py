"""A request that is refused: its method still decides whether the answer has a body, and its line is in the log."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from preforkd.workers import Response
from tests.workers.http.wire import WAYS, Echo, byte_by_byte, converse, feed, parse_replies, run, talk, turns

LOG = logging.getLogger("access")
FIELDS = b"\r\nHost: a\r\n"
REFUSED: list[tuple[str, bytes, int, str, dict[str, Any]]] = [
    ("no host", b" /p HTTP/1.1\r\n\r\n", 400, "/p HTTP/1.1", {}),
    ("two hosts", b" /p HTTP/1.1" + FIELDS + b"Host: b\r\n\r\n", 400, "/p HTTP/1.1", {}),
    ("a fragment", b" /p#f HTTP/1.1" + FIELDS + b"\r\n", 400, "/p#f HTTP/1.1", {}),
    ("a field", b" /p HTTP/1.1" + FIELDS + b"a b: c\r\n\r\n", 400, "/p HTTP/1.1", {}),
    ("expectation", b" /p HTTP/1.1" + FIELDS + b"Expect: x\r\n\r\n", 417, "/p HTTP/1.1", {}),
    ("a long body", b" /p HTTP/1.1" + FIELDS + b"Content-Length: 9\r\n\r\n", 413, "/p HTTP/1.1", {"limit_body": 5}),
    ("many fields", b" /p HTTP/1.1" + FIELDS + b"A: b\r\n\r\n", 431, "/p HTTP/1.1", {"limit_headers": 1}),
    (
        "long fields",
        b" /p HTTP/1.1" + FIELDS + b"A: b" * 50 + b"\r\n\r\n",
        431,
        "/p HTTP/1.1",
        {"limit_header_size": 50},
    ),
    ("method", b" /p HTTP/1.1" + FIELDS + b"\r\n", 405, "/p HTTP/1.1", {"allowed_methods": ["PUT"]}),
    ("coding", b" /p HTTP/1.1" + FIELDS + b"Transfer-Encoding: br\r\n\r\n", 501, "/p HTTP/1.1", {}),
    ("a long line", b" /" + b"p" * 30 + b" HTTP/1.1" + FIELDS + b"\r\n", 414, "/ppp", {"limit_request_line": 20}),
    ("version", b" /p HTTP/2.0" + FIELDS + b"\r\n", 505, "/p HTTP/2.0", {}),
    ("1.0", b" /p HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400, "/p HTTP/1.0", {}),
]


# Some limits would refuse the request that is put before this one in a pipeline.
FED = [
    pytest.param(case, way, id=f"{case[0]}, {way}")
    for case in REFUSED
    for way in WAYS
    if "pipelined" not in way or not {"allowed_methods", "limit_header_size", "limit_request_line"} & case[4].keys()
]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize(("case", "way"), FED)
def test_a_refused_request_is_answered_and_logged_by_its_line(
    case: tuple[str, bytes, int, str, dict[str, Any]], method: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="access")
    _, rest, status, line, arguments = case
    result, before = feed(way, method.encode() + rest, access_log=LOG, access_log_format="%(s)s %(r)s", **arguments)
    replies = parse_replies(result.output, ["GET"] * before + [method])
    assert [reply.status for reply in replies] == [200] * before + [status]
    assert bool(replies[-1].body) == (method == "GET")
    assert replies[-1].complete
    assert int(replies[-1].headers["Content-Length"]) > 0
    assert replies[-1].headers["Connection"] == "close"
    assert len(caplog.messages) == before + 1
    assert caplog.messages[-1].startswith(f"{status} {method} {line}")


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\r\nHost: a\r\n\r\n",
        b"\x00\x01\r\n\r\n",
        b"\r\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b" / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_line_that_was_not_understood_is_not_made_up(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="access")
    assert talk(data, access_log=LOG, access_log_format="%(s)s %(r)s").statuses == [400]
    assert caplog.messages == ["400 -"]


def test_a_line_that_is_endless_is_logged_in_part(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="access")
    for portions in ([b"HEAD /" + b"p" * 9000], byte_by_byte(b"HEAD /" + b"p" * 9000)):
        result = talk(*portions, access_log=LOG, access_log_format="%(s)s %(r)s")
        assert [reply.status for reply in parse_replies(result.output, ["HEAD"])] == [414]
    assert caplog.messages == ["414 HEAD /" + "p" * 1023 + " HTTP/1.1"] * 2


@pytest.mark.parametrize(
    ("head", "line"),
    [
        (b"HEAD /p HTTP/1.1\r\nHo", "HEAD /p HTTP/1.1"),
        (b"HEAD /p HTTP/1.", "-"),
        (b"HEAD /", "-"),
    ],
)
def test_half_a_head_that_is_late_is_logged_by_its_line(
    head: bytes, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="access")

    async def main() -> None:
        protocol = Echo(timeout=5, access_log=LOG, access_log_format="%(s)s %(r)s")
        result = await converse(protocol, [head], close=False)
        result.protocol.check_deadlines(asyncio.get_running_loop().time() + 6)
        await turns()
        assert [reply.status for reply in parse_replies(result.output, ["HEAD"] if line != "-" else ["GET"])] == [408]
        result.protocol.connection_lost(None)

    run(main)
    assert caplog.messages == [f"408 {line}"]


def test_no_override_can_keep_the_connection_of_a_refused_request() -> None:
    class Keeping(Echo):
        async def handle_error(self, status: int = 500, message: Any = None, *args: Any, **kwargs: Any) -> None:
            self.messages.append(message)
            self.keep_alive(True)
            response = Response(self.writer, status)
            response.add_header("Content-Length", "0")
            response.send_headers()
            await response.write_eof()

    result = talk(b"POST /p HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\nExpect: y\r\n\r\n", handler=Keeping)
    assert [reply.headers["Connection"] for reply in result.replies] == ["close"]
    assert result.ended
    (message,) = result.protocol.messages
    assert (message.method, message.path, message.headers["User-Agent"]) == ("POST", "/p", "x")
