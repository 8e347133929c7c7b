"""What a subclass overrides may extend the class, and may fail: its connection ends, and nothing else."""

from __future__ import annotations

import asyncio
import gc
import threading
import traceback
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from preforkd.workers import ConnectionState, Response, ServerHttpProtocol
from preforkd.workers.http import compiled
from preforkd.workers.http.connections import connections_of
from tests.workers.http.test_protocol import Hello, HelloKeptBefore
from tests.workers.http.wire import GET, Talk, converse, run, talk, turns

# The end of start().


class Kept(HelloKeptBefore):
    """What the handlers of this file have in common."""


class StartRaises(Kept):
    async def start(self) -> None:
        raise ValueError("start")


class StartIsCancelled(Kept):
    async def start(self) -> None:
        raise asyncio.CancelledError


class StartReturns(Kept):
    async def start(self) -> None:
        return


class StartReturnsLater(Kept):
    async def start(self) -> None:
        self._runner.go_on()


class StartRaisesWithTheRest(Kept):
    """Leaves a request that waits to nobody."""

    async def start(self) -> None:
        self._runner.go_on()
        raise ValueError("start")

    async def handle_request(self, message: Any, payload: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.was_closed = True


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (StartRaises, "ValueError: start"),
        (StartIsCancelled, "CancelledError"),
        (StartReturns, "start() has returned while its connection was open"),
        (StartReturnsLater, "start() has returned while its connection was open"),
        (StartRaisesWithTheRest, "ValueError: start"),
    ],
)
def test_a_connection_whose_start_ends_is_logged_aborted_and_freed(
    handler: type[Kept], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    references = []
    gc.collect()
    gc.disable()
    try:

        async def main() -> None:
            connections = connections_of(asyncio.get_running_loop())
            result = await converse(handler(), [GET, GET], close=False)
            assert result.transport.aborted
            assert result.protocol.state is ConnectionState.CLOSED
            assert (len(connections), connections.active) == (0, 0)
            if handler is StartRaisesWithTheRest:
                assert result.protocol.was_closed
                assert connections.responses[4] == 1
            references.append(weakref.ref(result.protocol))
            result.transport.protocol = None  # type: ignore[assignment]  # the fake's own reference
            assert said in caplog.text
            for record in caplog.records:
                record.exc_info = None  # its frames hold the connection
            caplog.clear()

        run(main)
        alive = sum(reference() is not None for reference in references)
    finally:
        gc.enable()
    assert alive == 0


def test_a_connection_whose_task_is_cancelled_from_outside_ends_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        result = await converse(Kept(), [GET], close=False)
        result.protocol.handler_task.cancel()
        await turns()
        assert result.transport.aborted
        assert result.protocol.state is ConnectionState.CLOSED

    run(main)
    assert caplog.text == ""


def test_a_call_in_a_thread_ends_with_the_task_of_its_connection() -> None:
    from preforkd.workers.gateways.wsgi import WsgiGateway

    go_on = threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        go_on.wait(10)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    async def main() -> None:
        gateway = WsgiGateway(app, threads=1)
        await gateway.startup()
        result = await converse(gateway.handler(), [GET], close=False)
        connections = connections_of(asyncio.get_running_loop())
        assert connections.active == 1
        result.protocol.handler_task.cancel()
        await turns()
        assert result.transport.aborted
        assert (len(connections), connections.active, connections.responses[4]) == (0, 0, 1)
        go_on.set()
        async with asyncio.timeout(10):
            await gateway.finish(asyncio.get_running_loop().time() + 10)
        await turns()
        assert result.output == b""
        assert result.protocol.handler_task is None
        await gateway.shutdown(1)

    run(main)


def test_a_start_that_wraps_the_original_serves_and_sees_the_end() -> None:
    calls = []

    class Wrapping(Kept):
        async def start(self) -> None:
            calls.append("before")
            await asyncio.sleep(0)
            await super().start()
            calls.append("after")

    async def main() -> None:
        result = await converse(Wrapping(), [GET, GET + GET, GET])
        assert result.statuses == [200] * 4
        await turns()

    run(main)
    assert calls == ["before", "after"]


# Overridden logs and handle_error() that fail.

FAILURES = [OSError("broken"), asyncio.CancelledError()]


def broken(name: str, exc: BaseException, base: type[ServerHttpProtocol]) -> type[ServerHttpProtocol]:
    """A class whose method `name`, and the log of its failure, raise."""

    def method(self: Any, *args: Any) -> None:
        raise exc

    async def coroutine(self: Any, *args: Any) -> None:
        raise exc

    return type("Broken", (base,), {name: coroutine if name == "handle_error" else method, "log_exception": method})


@pytest.mark.parametrize("exc", FAILURES, ids=repr)
def test_a_log_access_that_fails_changes_nothing_for_the_client(exc: BaseException) -> None:
    async def main() -> None:
        result = await converse(broken("log_access", exc, Kept)(), [GET, GET], close=False)
        assert result.statuses == [200, 200]
        assert not result.ended
        result.protocol.connection_lost(None)

    run(main)


@pytest.mark.parametrize("exc", FAILURES, ids=repr)
def test_a_log_that_fails_in_a_broken_access_log_changes_nothing(exc: BaseException) -> None:
    class Log:
        def info(self, *args: object) -> None:
            raise OSError("disk full")

    async def main() -> None:
        log: Any = Log()
        result = await converse(broken("log_exception", exc, Kept)(access_log=log), [GET, GET], close=False)
        assert result.statuses == [200, 200]
        assert not result.ended
        result.protocol.connection_lost(None)

    run(main)


@pytest.mark.parametrize("exc", FAILURES, ids=repr)
def test_a_handle_error_that_fails_ends_the_connection_in_order(exc: BaseException) -> None:
    class Raising(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            raise ValueError("handler")

    async def main() -> None:
        result = await converse(broken("handle_error", exc, Raising)(), [GET, GET], close=False)
        assert result.transport.half_closed
        assert not result.transport.aborted
        assert result.protocol.state is ConnectionState.CLOSING
        result.protocol.connection_lost(None)
        await turns()
        assert not result.protocol.transport

    run(main)


@pytest.mark.parametrize("exc", FAILURES, ids=repr)
def test_a_log_debug_that_fails_ends_the_connection_in_order(exc: BaseException) -> None:
    class Reading(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            await payload.read()

    async def main() -> Talk:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nx"
        return await converse(broken("log_debug", exc, Reading)(), [head], eof=True, close=False)

    result = asyncio.run(main())
    assert not result.transport.aborted
    assert result.ended


def test_what_is_overridden_may_call_the_original(caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    class Extended(Hello):
        @property
        def keep_alive_timeout(self) -> float:
            calls.append("keep_alive_timeout")
            return super().keep_alive_timeout

        async def handle_request(self, message: Any, payload: Any) -> None:
            if message.path == "/":
                raise ValueError("/")
            await payload.read()

        async def handle_error(self, *args: Any, **kwargs: Any) -> None:
            calls.append("handle_error")
            await super().handle_error(*args, **kwargs)

        def closing(self, timeout: float = 15.0) -> None:
            calls.append("closing")
            super().closing(timeout)

        def cancel_slow_request(self) -> None:
            calls.append("cancel_slow_request")
            super().cancel_slow_request()

        def log_debug(self, *args: object) -> None:
            calls.append("log_debug")
            super().log_debug(*args)

        def log_exception(self, *args: object) -> None:
            calls.append("log_exception")
            super().log_exception(*args)

        def log_access(self, *args: Any) -> None:
            super().log_access(*args)
            raise OSError("a broken log")

        def eof_received(self) -> bool:
            calls.append("eof_received")
            return super().eof_received()

    async def main() -> None:
        first = await converse(Extended(), [GET], close=False)
        assert first.statuses == [500]
        first.protocol.connection_lost(None)
        upload = GET.replace(b"/ ", b"/body ").replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n")
        cut = await converse(Extended(), [upload], eof=True, close=False)
        assert cut.ended
        cut.protocol.connection_lost(None)
        slow = await converse(Extended(), [upload], close=False)
        connections_of(asyncio.get_running_loop()).closing(0)
        assert slow.transport.aborted
        assert slow.protocol.keep_alive_timeout == 75
        await turns()

    run(main)
    assert calls == [
        "handle_error", "log_exception", "eof_received", "log_debug", "log_exception", "closing",
        "cancel_slow_request", "keep_alive_timeout", "log_exception",
    ]  # fmt: skip
    assert "a broken log" in caplog.text


class SeesItsError(Hello):
    """Looks at the exception that is being handled, as `traceback.format_exc()` does."""

    async def handle_request(self, message: Any, payload: Any) -> None:
        raise ValueError("app")

    async def handle_error(self, *args: Any, **kwargs: Any) -> None:
        self.handled = traceback.format_exc()
        await super().handle_error(*args, **kwargs)


def test_an_override_of_handle_error_sees_what_is_being_handled_with_no_frames_but_of_the_way_to_the_handler() -> None:
    result = talk(GET, handler=SeesItsError)
    assert result.statuses == [500]
    lines = [line for line in result.protocol.handled.splitlines() if line.startswith("  File")]
    ours = ["process_request"] if compiled.form() == "pure" else []  # C has none
    assert [line.rpartition(" in ")[2] for line in lines] == [*ours, "handle_request"]
    assert result.protocol.handled.endswith("ValueError: app\n")


@types.coroutine
def _generator_that_waits() -> Any:
    yield


class Awaitable:
    def __await__(self) -> Any:
        return _future().__await__()


def _future() -> asyncio.Future[None]:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    return future


@pytest.mark.parametrize("awaitable", [_generator_that_waits, Awaitable, _future, lambda: asyncio.sleep(0)])
def test_handle_request_may_return_any_awaitable(awaitable: Callable[[], Any]) -> None:
    class Handler(Hello):
        def handle_request(self, message: Any, payload: Any) -> Any:
            self.keep_alive(True)
            self.hello()
            return awaitable()

        def hello(self) -> None:
            response = Response(self.writer, 200)
            response.add_header("Content-Length", "2")
            response.send_headers()
            response.write(b"ok")
            response.write_eof()

    assert talk(GET, GET, handler=Handler).statuses == [200, 200]


def test_a_handler_that_returns_nothing_to_await_is_answered_500(caplog: pytest.LogCaptureFixture) -> None:
    class Handler(Hello):
        def handle_request(self, message: Any, payload: Any) -> Any:
            return 7

    assert talk(GET, handler=Handler).statuses == [500]
    assert "TypeError" in caplog.text
    assert "await" in caplog.text
