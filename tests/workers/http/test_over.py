"""What outlives its request, and what has left HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from preforkd.workers import ClientDisconnectedError, ConnectionState, HttpProcessingError, Response, ResponseError
from preforkd.workers.http.connections import connections_of
from tests.workers.http.test_protocol import HANDSHAKE, Receiver, Switching
from tests.workers.http.wire import GET, Echo, converse, run, turns

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"


class Stray(Echo):
    """Leaves the reading of its body to a task, and answers."""

    async def handle_request(self, message: Any, payload: Any) -> None:
        if message.method == "GET":
            await super().handle_request(message, payload)
            return
        self.keep_alive(message.path == "/")
        self.task = asyncio.ensure_future(payload.read())
        await asyncio.sleep(0)
        response = Response(self.writer, 200)
        response.add_header("Content-Length", "0")
        response.send_headers()
        await response.write_eof()


@pytest.mark.parametrize("path", ["/", "/close"])
@pytest.mark.parametrize("coding", [b"", b"Content-Encoding: gzip\r\n"])
def test_who_still_reads_a_body_learns_that_the_request_is_over(path: str, coding: bytes) -> None:
    async def main() -> None:
        data = POST.replace(b"/ ", path.encode() + b" ").replace(b"Host", coding + b"Host")
        if coding:
            data = data.replace(b"abc", b"\x1f\x8b\x08")  # as gzip begins
        result = await converse(Stray(), [data], close=False)
        assert result.protocol.task.done()
        with pytest.raises(ClientDisconnectedError, match="the request is over"):
            await result.protocol.task
        if path == "/":
            result.protocol.data_received(b"defghij" + GET)
            await turns()
            assert result.statuses == [200, 200]
            assert result.replies[1].body == b"GET / 0"
        result.protocol.connection_lost(None)

    run(main)


def test_a_body_that_has_come_whole_can_be_read_behind_its_request() -> None:
    async def main() -> None:
        result = await converse(Stray(), [POST + b"defghij", GET])
        assert await result.protocol.task == b"abcdefghij"
        assert result.statuses == [200, 200]

    run(main)


# Another protocol.


@pytest.mark.parametrize("status", [None, 200, 426])
def test_a_connection_is_taken_over_only_after_101(status: int | None) -> None:
    errors = []

    class Early(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            if status is not None:
                response = Response(self.writer, status)
                response.add_header("Content-Length", "0")
                response.send_headers()
                await response.write_eof()
            try:
                self.take_over(Receiver())
            except ResponseError as exc:
                errors.append(str(exc))
            if status is None:
                raise HttpProcessingError(400)

    async def main() -> None:
        result = await converse(Early(), [HANDSHAKE])
        assert result.statuses == [status or 400]

    run(main)
    assert errors == ["a connection is taken over after its 101 response was sent"]


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize(
    "exc", [ValueError("session"), ClientDisconnectedError("gone"), asyncio.CancelledError()], ids=repr
)
def test_a_session_that_raises_ends_its_connection(
    exc: BaseException, wait: bool, caplog: pytest.LogCaptureFixture
) -> None:
    lines = []

    class Crashing(Switching):
        async def handle_request(self, message: Any, payload: Any) -> None:
            await super().handle_request(message, payload)
            if wait:
                await asyncio.sleep(0)
            raise exc

        def log_access(self, message: Any, environ: Any, response: Any, time: Any) -> None:
            lines.append((message.path, response.status))

    async def main() -> None:
        result = await converse(Crashing(), [HANDSHAKE], close=False)
        assert result.transport.aborted
        assert result.protocol.state is ConnectionState.CLOSED
        assert result.protocol.receiver.calls == ["lost"]
        connections = connections_of(asyncio.get_running_loop())
        assert (len(connections), connections.active, connections.responses[1]) == (0, 0, 1)

    run(main)
    assert lines == [("/ws", 101)]
    assert ("ValueError: session" in caplog.text) == isinstance(exc, ValueError)
    assert bool(caplog.text) == isinstance(exc, ValueError)
