"""The status of a response: an integer, fixed with the head, and the same for framing, wire and counters."""

from __future__ import annotations

import asyncio
import enum
from http import HTTPStatus
from typing import Any

import pytest

from preforkd.workers import Response
from preforkd.workers.http.connections import connections_of
from tests.workers.http.wire import GET, Echo, Reply, Talk, converse, talk


class Number(int, enum.Enum):
    TEAPOT = 418


def handler(status: Any, before: Any = None, after: Any = None, length: str | None = None) -> type[Echo]:
    """A handler whose response gets another status before and after its head is sent."""

    class Handler(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            response = Response(self.writer, status)
            if before is not None:
                response.status = before
            if length is not None:
                response.add_header("Content-Length", length)
            response.send_headers()
            if after is not None:
                response.status = after
            response.write(b"hello")
            if after is not None:
                response.status = after
            await response.write_eof()

    return Handler


def counted(protocol: type[Echo], data: bytes = GET) -> tuple[Talk, list[int]]:
    async def main() -> tuple[Talk, list[int]]:
        result = await converse(protocol(), [data, GET])
        return result, connections_of(asyncio.get_running_loop()).responses

    return asyncio.run(main())


@pytest.mark.parametrize("status", [404.0, True, "200 OK\r\nX: y", "200", 99, 1000, -200, 9999, None])
def test_a_status_that_is_no_integer_of_three_digits_is_refused(status: Any) -> None:
    assert talk(GET, handler=handler(status)).statuses == [500]
    if status is not None:
        result = talk(GET, handler=handler(200, before=status))
        assert result.statuses == [500]
        assert b"X: y" not in result.output


@pytest.mark.parametrize("status", [HTTPStatus.IM_A_TEAPOT, Number.TEAPOT, 418])
def test_an_enum_of_integers_gives_its_value(status: Any) -> None:
    for one in (handler(status), handler(200, before=status)):
        reply = talk(GET, handler=one).replies[0]
        assert (reply.status, reply.reason, reply.body) == (418, "I'm a Teapot", b"hello")


def test_a_status_that_is_changed_before_the_head_decides_about_the_body() -> None:
    result, classes = counted(handler(200, before=204, length="5"))
    assert [(reply.status, reply.body) for reply in result.replies] == [(204, b"")] * 2
    assert "Content-Length" not in result.replies[0].headers
    assert classes[2] == 2
    result, classes = counted(handler(204, before=404, length="5"))
    assert [(reply.status, reply.body) for reply in result.replies] == [(404, b"hello")] * 2
    assert classes[4] == 2


@pytest.mark.parametrize("length", ["5", None])
@pytest.mark.parametrize("after", [204, 500, "200 OK\r\nX: y"])
def test_a_status_that_is_changed_after_the_head_changes_nothing(after: Any, length: str | None) -> None:
    result, classes = counted(handler(200, after=after, length=length))
    assert [(reply.status, reply.reason, reply.body) for reply in result.replies] == [(200, "OK", b"hello")] * 2
    assert classes == [0, 0, 2, 0, 0, 0, 0, 0, 0, 0]


def test_a_reason_outlives_a_change_of_the_status() -> None:
    class Handler(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            response = Response(self.writer, 200, reason="As I say")
            response.status = 599
            response.send_headers()
            await response.write_eof()

    reply = talk(GET, handler=Handler).replies[0]
    assert (reply.status, reply.reason) == (599, "As I say")


def test_connection_upgrade_of_a_status_that_was_101_is_not_sent() -> None:
    class Handler(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            response = Response(self.writer, 101)
            response.add_headers(("Connection", "Upgrade"), ("Content-Length", "0"))
            response.status = 200
            response.send_headers()
            await response.write_eof()

    assert talk(GET, handler=Handler).replies[0].headers.getall("Connection") == ["keep-alive"]


def check_205(replies: list[Reply]) -> None:
    assert [(reply.status, reply.body, reply.headers.getall("Content-Length")) for reply in replies] == [
        (205, b"", ["0"])
    ] * 2
    assert "Transfer-Encoding" not in replies[0].headers


@pytest.mark.parametrize("length", ["5", "0", None])
def test_205_has_no_body_and_says_so(length: str | None) -> None:
    check_205(counted(handler(205, length=length))[0].replies)


def test_205_has_no_body_from_asgi() -> None:
    from preforkd.workers.gateways.asgi import AsgiGateway

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 205, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})

    async def main() -> Talk:
        return await converse(AsgiGateway(app).handler(), [GET, GET])

    check_205(asyncio.run(main()).replies)


@pytest.mark.parametrize("headers", [[], [("Content-Length", "5")]])
def test_205_has_no_body_from_wsgi(headers: list[tuple[str, str]]) -> None:
    from preforkd.workers.gateways.wsgi import WsgiGateway

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("205 Reset Content", headers)
        return [b"hello"]

    async def main() -> Talk:
        gateway = WsgiGateway(app, threads=0)
        await gateway.startup()
        return await converse(gateway.handler(), [GET, GET])

    check_205(asyncio.run(main()).replies)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (413, "Content Too Large"),
        (414, "URI Too Long"),
        (416, "Range Not Satisfiable"),
        (422, "Unprocessable Content"),
        (418, "I'm a Teapot"),
    ],
)
def test_the_reasons_are_those_of_rfc_9110_with_every_python(status: int, reason: str) -> None:
    assert talk(GET, handler=handler(status)).replies[0].reason == reason
