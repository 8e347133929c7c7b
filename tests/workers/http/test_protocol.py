"""The seed's contract, row by row: `ServerHttpProtocol` on fake transports, then on real sockets."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

import pytest

import preforkd.workers
from preforkd.workers import (
    ConnectionState,
    HttpProcessingError,
    HttpVersion11,
    Response,
    ResponseError,
    ServerHttpProtocol,
)
from tests.workers.http.wire import GET, FakeTransport, converse, run, talk


class Hello(ServerHttpProtocol):
    """The seed's handler, to the letter."""

    async def handle_request(self, message: Any, payload: Any) -> None:
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Type", "text/html")
        response.add_header("Content-Length", "18")
        response.send_headers()
        response.write(b"<h1>It Works!</h1>")
        await response.write_eof()


class HelloKeptBefore(Hello):
    async def handle_request(self, message: Any, payload: Any) -> None:
        self.keep_alive(True)
        await super().handle_request(message, payload)


class HelloKeptAfter(Hello):
    async def handle_request(self, message: Any, payload: Any) -> None:
        await super().handle_request(message, payload)
        self.keep_alive(True)


# Public names.


def test_the_public_names_are_there_and_typed_classes() -> None:
    for name in preforkd.workers.__all__:
        assert getattr(preforkd.workers, name) is not None
    assert set(preforkd.workers.__all__) <= set(dir(preforkd.workers))
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = preforkd.workers.Nothing


def test_the_constructor_is_keyword_only_with_the_seeds_defaults() -> None:
    parameters = dict(inspect.signature(ServerHttpProtocol).parameters)
    kwargs = parameters.pop("kwargs")
    assert kwargs.kind is inspect.Parameter.VAR_KEYWORD
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters.values())
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert isinstance(defaults.pop("logger"), logging.Logger)
    assert defaults == {
        "loop": None, "keep_alive": 75, "keep_alive_on": True, "timeout": 0, "allowed_methods": (), "access_log": None,
        "access_log_format": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"', "host": "", "port": 0,
        "debug": False, "log": None,
    }  # fmt: skip


def test_unknown_keywords_are_type_errors_and_limits_are_not() -> None:
    with pytest.raises(TypeError, match="'keepalive'"):
        ServerHttpProtocol(keepalive=1)
    with pytest.raises(TypeError):
        ServerHttpProtocol(75)  # type: ignore[call-arg, arg-type]  # that is the test
    limits: dict[str, Any] = {"limit_request_line": 1, "limit_headers": 2, "limit_header_size": 3, "limit_body": 4}
    times: dict[str, Any] = {"body_timeout": 5.0, "write_timeout": 6, "request_timeout": 7, "keep_alive_requests": 8}
    protocol = ServerHttpProtocol(**limits, **times)
    assert {name: getattr(protocol.limits, name) for name in (*limits, *times)} == {**limits, **times}


def test_attributes_that_handlers_use_are_there() -> None:
    logger = logging.getLogger("x")

    async def main() -> None:
        protocol = ServerHttpProtocol(log=logger, host="h", port=1, debug=True, access_log=logger)
        transport = FakeTransport(protocol)
        protocol.connection_made(transport)
        assert protocol.logger is protocol.access_log is logger
        assert (protocol.host, protocol.port, protocol.debug) == ("h", 1, True)
        assert protocol.transport is transport
        assert protocol.writer is not None
        assert protocol.reader is not None
        protocol.connection_lost(None)
        assert protocol.transport is None

    run(main)


# handle_request and keep_alive.


def test_the_default_handler_answers_404() -> None:
    result = talk(GET, handler=ServerHttpProtocol)
    assert result.statuses == [404]
    assert result.ended


def test_the_connection_closes_after_the_response_unless_keep_alive_was_called() -> None:
    result = talk(GET, GET, handler=Hello)
    assert result.statuses == [200]
    assert result.replies[0].headers["Connection"] == "close"
    assert result.ended


@pytest.mark.parametrize("handler", [HelloKeptBefore, HelloKeptAfter])
def test_keep_alive_before_or_after_the_response_keeps_the_connection(handler: type[Hello]) -> None:
    result = talk(GET, GET, GET, handler=handler)
    assert [(reply.status, reply.headers["Connection"]) for reply in result.replies] == [(200, "keep-alive")] * 3
    assert not result.ended


def test_keep_alive_holds_for_one_request_only() -> None:
    class Once(HelloKeptBefore):
        async def handle_request(self, message: Any, payload: Any) -> None:
            if message.path == "/keep":
                await HelloKeptBefore.handle_request(self, message, payload)
            else:
                await Hello.handle_request(self, message, payload)

    result = talk(GET.replace(b"/ ", b"/keep "), GET, GET, handler=Once)
    assert [reply.headers["Connection"] for reply in result.replies] == ["keep-alive", "close"]


def test_keep_alive_false_after_true_closes() -> None:
    class Undecided(HelloKeptBefore):
        async def handle_request(self, message: Any, payload: Any) -> None:
            await super().handle_request(message, payload)
            self.keep_alive(False)

    result = talk(GET, GET, handler=Undecided)
    assert result.statuses == [200]
    assert result.ended


@pytest.mark.parametrize("arguments", [{"keep_alive": None}, {"keep_alive": 0}, {"keep_alive_on": False}])
def test_without_keep_alive_every_response_closes(arguments: dict[str, Any]) -> None:
    result = talk(GET, GET, handler=HelloKeptBefore, **arguments)
    assert [reply.headers["Connection"] for reply in result.replies] == ["close"]
    assert result.ended


def test_keep_alive_timeout_is_the_idle_time() -> None:
    assert ServerHttpProtocol().keep_alive_timeout == 75
    assert ServerHttpProtocol(keep_alive=3.5).keep_alive_timeout == 3.5
    assert ServerHttpProtocol(keep_alive=None).keep_alive_timeout == 0


def test_keep_alive_requests_limits_the_requests_of_a_connection() -> None:
    result = talk(GET, GET, GET, GET, handler=HelloKeptBefore, keep_alive_requests=3)
    assert [reply.headers["Connection"] for reply in result.replies] == ["keep-alive", "keep-alive", "close"]


def test_http_1_0_keeps_alive_only_when_asked() -> None:
    old = b"GET / HTTP/1.0\r\n\r\n"
    assert talk(old, old, handler=HelloKeptBefore).statuses == [200]
    asked = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    result = talk(asked, asked, handler=HelloKeptBefore)
    assert [reply.headers["Connection"] for reply in result.replies] == ["keep-alive"] * 2


def test_response_keep_alive_tells_what_will_be() -> None:
    answers = []

    class Asking(Hello):
        async def handle_request(self, message: Any, payload: Any) -> None:  # as aiohttp's old example did
            response = Response(self.writer, 200, http_version=message.version)
            response.add_header("Content-Length", "0")
            if message.path == "/close":
                response.force_close()
            response.send_headers()
            await response.write_eof()
            answers.append(response.keep_alive())
            if response.keep_alive():
                self.keep_alive(True)

    result = talk(GET, GET.replace(b"/ ", b"/close "), handler=Asking)
    assert answers == [True, False]
    assert [reply.headers["Connection"] for reply in result.replies] == ["keep-alive", "close"]


# allowed_methods.


def test_allowed_methods_refuses_others_with_405_and_allow() -> None:
    result = talk(GET.replace(b"GET", b"PUT"), allowed_methods=("GET", "HEAD"))
    assert result.statuses == [405]
    assert result.replies[0].headers["Allow"] == "GET, HEAD"
    assert result.seen == []
    assert talk(GET, allowed_methods=("GET", "HEAD")).statuses == [200]
    assert talk(GET.replace(b"GET", b"PUT"), allowed_methods=()).statuses == [200]


# handle_error.


def raising(exc: Exception, before: str = "") -> type[ServerHttpProtocol]:
    class Raising(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            if before:
                response = Response(self.writer, 200)
                response.send_headers()
                response.write(before.encode())
                await response.drain()
            raise exc

    return Raising


def test_http_processing_error_is_answered_with_its_status_and_headers() -> None:
    for headers in ({"X-A": "b"}, [("X-A", "b")]):
        result = talk(GET, GET, handler=raising(HttpProcessingError(418, "short & stout", headers)))
        assert result.statuses == [418]
        assert result.replies[0].headers["X-A"] == "b"
        assert result.replies[0].headers["Content-Type"] == "text/html; charset=utf-8"
        assert b"short &amp; stout" in result.replies[0].body
        assert result.ended


@pytest.mark.parametrize("code", [0, 100, 103, 199, 1000, "404"])
def test_an_error_with_a_code_that_cannot_be_answered_is_a_500(code: Any) -> None:
    class Wrong(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            raise HttpProcessingError(code)

    assert talk(GET, handler=Wrong).statuses == [500]


def test_an_exception_is_answered_500_and_logged_with_traceback(caplog: pytest.LogCaptureFixture) -> None:
    result = talk(GET, GET, handler=raising(ValueError("<secret>")))
    assert result.statuses == [500]
    assert b"secret" not in result.output
    assert result.ended
    assert "ValueError: <secret>" in caplog.text


def test_debug_shows_the_traceback_escaped() -> None:
    result = talk(GET, handler=raising(ValueError("<script>")), debug=True)
    assert b"ValueError: &lt;script&gt;" in result.replies[0].body
    assert b"<script>" not in result.replies[0].body


def test_a_handler_cannot_smuggle_headers_through_an_error(caplog: pytest.LogCaptureFixture) -> None:
    result = talk(GET, handler=raising(HttpProcessingError(400, "x", {"X": "a\r\nSet-Cookie: b"})))
    assert b"Set-Cookie" not in result.output
    assert result.ended
    assert "ValueError" in caplog.text


def test_handle_error_after_the_headers_closes_only(caplog: pytest.LogCaptureFixture) -> None:
    result = talk(GET, GET, handler=raising(ValueError("late"), before="begun"))
    assert [(reply.status, reply.body, reply.complete) for reply in result.replies] == [(200, b"begun", False)]
    assert result.ended
    assert "late" in caplog.text


def test_handle_error_has_the_seeds_signature() -> None:
    parameters = inspect.signature(ServerHttpProtocol.handle_error).parameters
    assert [(name, parameter.default) for name, parameter in parameters.items()][1:] == [
        ("status", 500), ("message", None), ("payload", None), ("exc", None), ("headers", None), ("reason", None),
    ]  # fmt: skip


def test_a_handle_error_that_fails_still_closes(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(raising(ValueError("first"))):  # type: ignore[misc]  # a base made by a function
        async def handle_error(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("second")

    result = talk(GET, GET, handler=Broken)
    assert result.ended
    assert "second" in caplog.text


def test_a_handler_that_answers_nothing_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    class Silent(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)

    result = talk(GET, GET, handler=Silent)
    assert result.statuses == [500]
    assert "has not answered" in caplog.text


def test_a_handler_that_does_not_finish_shows_the_cut(caplog: pytest.LogCaptureFixture) -> None:
    class Unfinished(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            response = Response(self.writer, 200)
            response.send_headers()
            response.write(b"begun")

    result = talk(GET, GET, handler=Unfinished)
    assert [(reply.body, reply.complete) for reply in result.replies] == [(b"begun", False)]
    assert result.ended
    assert "has not finished" in caplog.text


def test_a_cancelled_error_of_the_handlers_own_is_a_500() -> None:
    result = talk(GET, GET, handler=raising(asyncio.CancelledError()))  # type: ignore[arg-type]  # a BaseException
    assert result.statuses == [500]
    assert result.ended


# Subclasses extend the transport's side with super().


def test_every_public_method_can_be_extended() -> None:
    calls = []

    class Extended(HelloKeptBefore):
        def connection_made(self, transport: Any) -> None:
            calls.append("connection_made")
            super().connection_made(transport)

        def data_received(self, data: Any) -> None:
            calls.append("data_received")
            super().data_received(data)

        def connection_lost(self, exc: Any) -> None:
            calls.append("connection_lost")
            super().connection_lost(exc)

        def keep_alive(self, val: Any) -> None:
            calls.append("keep_alive")
            super().keep_alive(val)

        async def start(self) -> None:
            calls.append("start")
            await super().start()

        async def handle_request(self, message: Any, payload: Any) -> None:
            calls.append("handle_request")
            await super().handle_request(message, payload)

        def log_access(self, message: Any, environ: Any, response: Any, time: Any) -> None:
            calls.append(f"log_access {response.status} {time >= 0}")
            super().log_access(message, environ, response, time)

    talk(GET, handler=Extended)
    assert calls == [
        "connection_made", "data_received", "start", "handle_request", "keep_alive", "log_access 200 True",
        "connection_lost",
    ]  # fmt: skip


# Upgrade: a gateway's way out of HTTP.

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Receiver(asyncio.Protocol):
    def __init__(self) -> None:
        self.calls: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.calls.append(data)

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")


class Switching(ServerHttpProtocol):
    receiver: Receiver
    early: bytes

    async def handle_request(self, message: Any, payload: Any) -> None:
        response = Response(self.writer, 101)
        response.add_header("Upgrade", "websocket")
        response.add_header("Connection", "Upgrade")
        response.send_headers()
        await response.write_eof()
        self.receiver = Receiver()
        self.early = self.take_over(self.receiver)


def test_take_over_hands_the_connection_to_another_protocol() -> None:
    async def main() -> None:
        result = await converse(Switching(), [HANDSHAKE + b"early"], close=False)
        protocol = result.protocol
        assert protocol.early == b"early"
        assert protocol.state.name == "UPGRADED"
        assert result.output.startswith(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade"
        )
        assert b"close" not in result.output
        protocol.data_received(b"\x81\x00GET / HTTP/1.1\r\n\r\n")
        assert protocol.eof_received() is True
        protocol.check_deadlines(1e9)
        assert not result.transport.closed
        protocol.connection_lost(None)
        assert protocol.receiver.calls == [b"\x81\x00GET / HTTP/1.1\r\n\r\n", "eof", "lost"]
        assert protocol.state is ConnectionState.CLOSED

    run(main)


def test_take_over_needs_a_complete_request() -> None:
    class Early(Switching):
        async def handle_request(self, message: Any, payload: Any) -> None:
            with pytest.raises(ResponseError):
                self.take_over(Receiver())
            raise HttpProcessingError(400)

    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
    assert talk(head, handler=Early).statuses == [400]


def test_the_version_compares_as_a_tuple() -> None:
    message = talk(GET).protocol.messages[0]
    assert message.version == (1, 1) == HttpVersion11
    assert message.version > (1, 0)
    assert (message.method, message.path) == ("GET", "/")
    assert message.should_close is False
    assert message.compression is None
    assert message.upgrade is False


# Logs.


@pytest.mark.parametrize("debug", [False, True])
def test_log_debug_is_silent_without_debug_and_swallows_errors_of_the_logger(debug: bool) -> None:
    calls = []

    class Broken(logging.Logger):
        def debug(self, *args: Any, **kwargs: Any) -> None:
            calls.append(args)
            raise OSError("disk full")

    ServerHttpProtocol(logger=Broken("broken"), debug=debug).log_debug("%s and %s", 1, 2)
    assert calls == ([("%s and %s", 1, 2)] if debug else [])


def test_log_exception_swallows_errors_of_the_logger() -> None:
    calls = []

    class Broken(logging.Logger):
        def exception(self, *args: Any, **kwargs: Any) -> None:
            calls.append(args)
            raise OSError("disk full")

    ServerHttpProtocol(logger=Broken("broken")).log_exception("%s", 1)
    assert calls == [("%s", 1)]
