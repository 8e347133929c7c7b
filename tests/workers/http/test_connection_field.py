"""`Connection` on a response says what the server will do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from preforkd.workers import HttpProcessingError, Response
from tests.workers.http.test_protocol import HANDSHAKE
from tests.workers.http.wire import GET, Echo, converse, run, talk, turns

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"


async def answer(handler: Echo, text: bytes, *fields: tuple[str, str]) -> None:
    handler.keep_alive(True)
    response = Response(handler.writer, 200)
    response.add_headers(("Content-Length", str(len(text))), *fields)
    response.send_headers()
    response.write(text)
    await response.write_eof()


class Forgiving(Echo):
    """Answers as if nothing had happened when a body is invalid or does not come."""

    async def handle_request(self, message: Any, payload: Any) -> None:
        try:
            await payload.read()
        except HttpProcessingError as exc:
            await answer(self, str(exc.code).encode())
        else:
            await answer(self, b"good")


def test_close_is_said_when_the_body_was_invalid() -> None:
    result = talk(CHUNKED, b"xyz\r\n", GET, handler=Forgiving)
    assert [(reply.body, reply.headers["Connection"]) for reply in result.replies] == [(b"400", "close")]
    assert result.ended


def test_close_is_said_when_the_body_did_not_come_in_time() -> None:
    async def main() -> None:
        result = await converse(Forgiving(body_timeout=5), [POST], close=False)
        now = asyncio.get_running_loop().time()
        result.protocol.check_deadlines(now)
        result.protocol.check_deadlines(now + 6)
        await turns()
        assert [(reply.body, reply.headers["Connection"]) for reply in result.replies] == [(b"408", "close")]
        assert result.ended
        result.protocol.connection_lost(None)

    run(main)


def test_an_invalid_chunk_in_a_body_that_nobody_reads_ends_the_connection() -> None:
    class Unread(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            await answer(self, b"unread")

    result = talk(CHUNKED, b"xyz\r\n" + GET, GET, handler=Unread)
    assert [(reply.body, reply.headers["Connection"]) for reply in result.replies] == [(b"unread", "close")]
    assert result.ended


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(
    ("framing", "said"),
    [
        ("Content-Length: 65536", "keep-alive"),
        ("Content-Length: 65537", "close"),
        ("Transfer-Encoding: chunked", "close"),
    ],
)
def test_the_head_says_close_while_more_of_the_body_may_come_than_is_worth_reading(
    framing: str, said: str, early: bool
) -> None:
    class Unread(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            response = Response(self.writer, 200)
            response.add_header("Content-Length", "2")
            response.send_headers()
            if early:
                await asyncio.sleep(0)  # the head goes out, and nobody knows what the handler will read
            response.write(b"ok")
            assert response.keep_alive() is (said == "keep-alive")
            await response.write_eof()

    result = talk(f"POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode(), handler=Unread)
    assert [reply.headers["Connection"] for reply in result.replies] == [said]


@pytest.mark.parametrize("status", [200, 101])
def test_an_upgrade_is_said_with_101_only(status: int) -> None:
    class Upgrading(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            response = Response(self.writer, status)
            response.add_headers(("Upgrade", "websocket"), ("Connection", "Upgrade"))
            response.send_headers()
            await response.write_eof()

    result = talk(HANDSHAKE, handler=Upgrading)
    said = result.replies[0].headers.getall("Connection")
    assert said == (["Upgrade"] if status == 101 else ["keep-alive"])


def test_a_method_of_a_subclass_that_is_called_like_an_inner_one_changes_nothing() -> None:
    asked = []

    class Own(Echo):
        def may_keep_alive(self) -> bool:
            return False

        async def handle_request(self, message: Any, payload: Any) -> None:
            asked.append(Response(self.writer, 200).keep_alive())
            await answer(self, b"own")

    result = talk(GET, GET, handler=Own)
    assert [reply.headers["Connection"] for reply in result.replies] == ["keep-alive"] * 2
    assert asked == [True, True]


def test_a_half_close_over_tls_ends_the_connection() -> None:
    class Waiting(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            await asyncio.Event().wait()

    result = talk(GET, handler=Waiting, eof=True, tls=True)
    assert result.transport.closed
    assert result.output == b""
