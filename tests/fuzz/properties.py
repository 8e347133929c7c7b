"""What holds for every sequence of bytes that a client may send."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from preforkd.workers import RequestMessage, Response, ServerHttpProtocol
from preforkd.workers.http.connection import HttpConnection
from preforkd.workers.http.payload import PayloadStream
from tests.workers.http.wire import FakeTransport, Talk, converse, parse_replies


class Recorder(ServerHttpProtocol):
    """Reads and answers by the path's length: reads all, some, or nothing of the body; notes what it was given."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.seen: list[tuple[str, str, bytes | str]] = []
        self.methods: list[str] = []  # of the responses, as far as the bytes let one know
        self.errors: list[str] = []
        self._handled: RequestMessage | None = None

    async def handle_error(self, status: int = 500, message: RequestMessage | None = None, *args: Any) -> None:
        if message is None or message is not self._handled:
            self.methods.append(message.method if message is not None else "GET")
        await super().handle_error(status, message, *args)

    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:
        self.keep_alive(True)
        self._handled = message
        self.methods.append(message.method)
        entry = len(self.seen)
        self.seen.append((message.method, message.path, "unread"))
        assert message.headers is not None
        try:
            body = await payload.read()
        except Exception as exc:
            self.seen[entry] = (message.method, message.path, type(exc).__name__)
            raise
        self.seen[entry] = (message.method, message.path, body)
        response = Response(self.writer, 200, http_version=message.version)
        text = b"%d" % len(body)
        response.add_header("Content-Length", str(len(text)))
        response.send_headers()
        response.write(text)
        await response.write_eof()

    def log_exception(self, *args: object) -> None:
        self.errors.append(str(args))

    def report_error(self, *args: object, exc: BaseException | None = None) -> None:
        self.errors.append(f"{args} {exc!r}")


class StrictTransport(FakeTransport):
    """Refuses what a real transport would refuse or ignore."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "written after close()"
        super().write(data)


def run(portions: list[bytes], eof: bool) -> Talk:
    """Have a conversation; an exception that nobody handled fails."""
    unhandled: list[dict[str, Any]] = []

    async def main() -> Talk:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        return await converse(Recorder(limit_body=100_000), portions, eof=eof)

    with asyncio.Runner() as runner:
        result = runner.run(main())
    assert not unhandled, unhandled
    assert not result.protocol.errors, result.protocol.errors
    return result


def outcome(result: Talk) -> tuple[object, ...]:
    # Which error it is depends on how much of a head there is when the parser objects: 400, or 501 or 505 with more.
    replies = parse_replies(result.output, result.protocol.methods)
    finals = ["error" if reply.status >= 400 else reply.status for reply in replies if reply.status >= 200]
    return result.seen, finals, result.ended


def check(data: bytes, cuts: list[int], eof: bool) -> None:
    """Check the properties for these bytes, in one portion and divided at `cuts`."""
    if not data:
        return
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    portions = [data[start:end] for start, end in itertools.pairwise(edges)]
    divided = run(portions, eof)
    replies = parse_replies(divided.output, divided.protocol.methods)
    finals = [reply.status for reply in replies if reply.status >= 200]
    # One response to a request at most, and one more for bytes that were none; nothing behind an error.
    assert len(finals) <= len(divided.seen) + 1
    assert all(status == 200 for status in finals[:-1])
    if finals and finals[-1] != 200:
        assert divided.ended
    assert isinstance(divided.protocol, HttpConnection)
    assert all(reply.complete for reply in replies)
    whole = run([data], eof)
    if not any(body in ("BadRequestError", "unread") for _, _, body in (*whole.seen, *divided.seen)):
        assert outcome(whole)[1:] == outcome(divided)[1:]
    # A body that is broken reaches the handler when its head comes first, and does not when both come at once.
    served = [entry for entry in whole.seen if isinstance(entry[2], bytes)]
    assert served == [entry for entry in divided.seen if isinstance(entry[2], bytes)]
