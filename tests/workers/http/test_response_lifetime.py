"""A response belongs to the request that it was made for, whoever sends it, and when."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from preforkd.workers import ClientDisconnectedError, ConnectionState, Response, ResponseError
from tests.workers.http.wire import GET, Echo, converse, run, turns


class Handler(Echo):
    """Calls `acts[path]` with itself, then answers."""

    acts: dict[str, Any]

    async def handle_request(self, message: Any, payload: Any) -> None:
        act = self.acts.get(message.path)
        if act is not None:
            await act(self)
        await super().handle_request(message, payload)


def send(response: Response, text: bytes) -> None:
    response.add_header("Content-Length", str(len(text)))
    response.send_headers()
    response.write(text)


def test_a_response_is_not_sent_while_no_request_is_handled() -> None:
    async def main() -> None:
        result = await converse(Echo(), [GET], close=False)
        assert result.protocol.state is ConnectionState.IDLE
        before = result.output
        with pytest.raises(ResponseError, match="made for"):
            send(Response(result.protocol.writer, 200), b"LATE")
        result.protocol.data_received(GET)
        await turns()
        assert result.statuses == [200, 200]
        assert b"LATE" not in result.output
        assert result.output.startswith(before)
        result.protocol.connection_lost(None)

    run(main)


def test_a_response_of_one_request_is_not_sent_in_the_next() -> None:
    errors = []

    class Mixed(Handler):
        async def make(self) -> None:
            self.kept = Response(self.writer, 200)

        async def use(self) -> None:
            try:
                send(self.kept, b"OLD")
            except ResponseError as exc:
                errors.append(exc)

        acts = {"/make": make, "/use": use}  # noqa: RUF012 -- read only

    async def main() -> None:
        portions = [GET.replace(b"/ ", path) for path in (b"/make ", b"/use ")]
        result = await converse(Mixed(), portions)
        assert [reply.body for reply in result.replies] == [b"GET /make 0", b"GET /use 0"]

    run(main)
    assert len(errors) == 1


def test_what_is_written_to_a_response_after_its_request_is_refused() -> None:
    class Head(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            self.kept = Response(self.writer, 200)
            send(self.kept, b"whole")

    async def main() -> None:
        result = await converse(Head(), [GET], close=False)
        assert result.protocol.state is ConnectionState.IDLE
        for text in (b"", b"more"):
            with pytest.raises(ResponseError, match="before write_eof"):
                result.protocol.kept.write(text)
        result.protocol.data_received(GET)
        await turns()
        assert [reply.headers["Connection"] for reply in result.replies] == ["keep-alive"] * 2
        result.protocol.connection_lost(None)

    run(main)


def test_a_handler_whose_connection_was_closed_is_told_so() -> None:
    class Closed(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.abort()
            with pytest.raises(ClientDisconnectedError):
                send(Response(self.writer, 200), b"x")
            self.seen.append(("told", "", b""))

    async def main() -> None:
        result = await converse(Closed(), [GET])
        assert result.output == b""
        assert result.seen == [("told", "", b"")]

    run(main)


def test_a_refused_request_is_answered_by_a_response_like_any_other() -> None:
    class Own(Echo):
        async def handle_error(self, *args: Any, **kwargs: Any) -> None:
            self.keep_alive(False)
            send(Response(self.writer, 400), b"own")

    async def main() -> None:
        for data in (b"\x00\r\n\r\n", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"):
            result = await converse(Own(), [GET, data])
            assert [reply.body for reply in result.replies] == [b"GET / 0", b"own"]
        await asyncio.sleep(0)

    run(main)
