"""Tasks, contexts and time-outs work in ASGI apps as in any asyncio program."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import time
import weakref
from typing import Any

import anyio
import anyio.to_thread
import pytest

from preforkd.workers.gateways.asgi import AsgiGateway
from tests.workers.gateways.asgi.serving import LOOPS, Receive, Scope, Send, body, http, serve, start, text

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_the_current_task_is_there() -> None:
    @text
    async def app(scope: Scope, receive: Receive, send: Send) -> bool:
        before = asyncio.current_task()
        await asyncio.sleep(0)
        return before is not None and asyncio.current_task() is before

    with serve(app) as server, server.connect() as connection:
        assert {connection.get().text for _ in range(3)} == {"True"}


def test_each_request_has_a_context_of_its_own() -> None:
    @text
    async def app(scope: Scope, receive: Receive, send: Send) -> list[str]:
        said = [variable.get()]
        variable.set(scope["path"])
        await asyncio.sleep(0.001)
        said.append(variable.get())
        said.append(await asyncio.create_task(read()))
        return said

    async def read() -> str:
        return variable.get()

    with serve(app) as server, server.connect() as one, server.connect() as other:
        for path in ("/a", "/b"):
            one.ask(path)
            other.ask(path + "2")
            assert one.answer().text == repr(["unset", path, path])
            assert other.answer().text == repr(["unset", path + "2", path + "2"])


def test_a_context_is_left_behind_by_a_request_that_goes_on() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        said = variable.get()
        variable.set(scope["path"])
        await asyncio.sleep(0)
        await send(start())
        await send(body(said.encode()))
        await asyncio.sleep(0.01)

    with serve(app) as server, server.connect() as connection:
        assert [connection.get(f"/{number}").text for number in range(4)] == ["unset"] * 4


def test_timeouts_work_and_leave_the_task_alone() -> None:
    @text
    async def app(scope: Scope, receive: Receive, send: Send) -> str:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(10)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10), 0.01)
        with anyio.move_on_after(0.01) as scope_of_anyio:
            await anyio.sleep(10)
        task = asyncio.current_task()
        return f"{scope_of_anyio.cancelled_caught} {task.cancelling() if task else None}"

    with serve(app) as server, server.connect() as connection:
        for _ in range(3):
            assert connection.get().text == "'True 0'"


def test_a_receive_that_times_out_loses_nothing() -> None:
    @text
    async def app(scope: Scope, receive: Receive, send: Send) -> list[Any]:
        said: list[Any] = []
        for _ in range(3):
            try:
                async with asyncio.timeout(0.02):
                    said.append((await receive())["body"])
            except TimeoutError:
                said.append(None)
        said.append((await receive())["body"])
        return said

    with serve(app) as server, server.connect() as connection:
        connection.ask(method="POST", headers=[("Content-Length", "6")])
        connection.send(b"one")
        time.sleep(0.15)
        connection.send(b"two")
        assert connection.answer().text == repr([b"one", None, None, b"two"])


def test_anyio_groups_threads_and_cancelled_scopes_work() -> None:
    @text
    async def app(scope: Scope, receive: Receive, send: Send) -> list[Any]:
        said: list[Any] = []
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 10)
            said.append(await anyio.to_thread.run_sync(lambda: variable.get()))
            group.cancel_scope.cancel()
        said.append(anyio.get_current_task().id > 0)
        return said

    with serve(app) as server, server.connect() as connection:
        for _ in range(3):
            assert connection.get().text == repr(["unset", True])


def test_an_app_that_cancels_its_own_task_ends_its_request_only() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"ok"))
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    with serve(app) as server:
        assert server.get().text == "ok"
        with server.connect() as connection:
            assert connection.get().text == "ok"
        assert server.get().text == "ok"


@pytest.mark.parametrize("waits", [False, True])
def test_a_pipelined_request_is_answered_behind_one_that_cancels_its_own_task(waits: bool) -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if waits:
            await asyncio.sleep(0)
        await send(start())
        await send(body(scope["path"].encode()))
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    with serve(app) as server:
        for _ in range(2):
            with server.connect() as connection:
                assert connection.get("/first").text == "/first"
                connection.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: t\r\n\r\n" % number for number in range(5)))
                assert [connection.answer().text for _ in range(5)] == [f"/{number}" for number in range(5)]


def test_a_request_that_has_waited_leaves_its_task_to_no_other() -> None:
    seen: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
    tasks: list[Any] = []  # so that none is mistaken for one that is gone

    @text
    async def app(scope: Scope, receive: Receive, send: Send) -> Any:
        await asyncio.sleep(0)
        task = asyncio.current_task()
        tasks.append(task)
        said = seen.get(task), task.cancelling() if task else None
        seen[task] = scope["path"]
        return said

    with serve(app) as server, server.connect() as connection:
        for number in range(3):
            assert connection.get(f"/{number}").text == "(None, 0)"
        connection.send(b"GET /pipelined HTTP/1.1\r\nHost: t\r\n\r\n" * 3)
        assert [connection.answer().text for _ in range(3)] == ["(None, 0)"] * 3
        connection.ask(method="POST", body=b"x" * 100_000)  # the rest of it is read by nobody
        assert connection.answer().text == "(None, 0)"
        assert connection.get().text == "(None, 0)"


@pytest.mark.parametrize("late", [False, True])
def test_a_cancellation_does_not_reach_the_next_request(late: bool) -> None:
    go = asyncio.Event()
    cancelled: list[str] = []
    first: list[asyncio.Task[Any]] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        if scope["path"] == "/first":
            first.append(task)
            if not late:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        else:
            try:
                await go.wait()
            except asyncio.CancelledError:
                cancelled.append(scope["path"])
                raise
        await send(start())
        await send(body(b"%d" % (0 if scope["path"] == "/first" else task.cancelling())))

    with serve(app) as server, server.connect() as connection:
        assert connection.get("/first").text == "0"
        connection.ask("/second")
        server.until(lambda: connections(server).active == 1, "it is at work")
        if late:
            server.call(first[0].cancel)
        server.call(go.set)
        assert connection.answer().text == "0"
        assert not cancelled
        assert server.call(lambda: connections(server).active) == 0


def test_a_cancellation_that_a_request_has_left_behind_in_its_first_step_does_not_reach_the_next() -> None:
    @text
    async def app(scope: Scope, receive: Receive, send: Send) -> Any:
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        if scope["path"] == "/cancels":
            task.cancel()
        else:
            await asyncio.sleep(0)
        return before

    with serve(app) as server, server.connect() as connection:
        for path in ("/", "/cancels", "/", "/cancels", "/cancels", "/"):
            assert connection.get(path).text == "0"
        connection.send(b"GET /cancels HTTP/1.1\r\nHost: t\r\n\r\nGET / HTTP/1.1\r\nHost: t\r\n\r\n" * 3)
        assert [connection.answer().text for _ in range(6)] == ["0"] * 6


ENDS: list[BaseException] = [
    SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), BaseExceptionGroup("", [SystemExit(3)]),
]  # fmt: skip


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("end", ENDS, ids=lambda end: type(end).__name__)
def test_an_app_that_exits_ends_its_request_only(end: BaseException, waits: bool) -> None:
    go = asyncio.Event()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/other":
            await go.wait()
            await send(start())
            await send(body(b"nothing has happened to this one"))
            return
        if waits:
            await asyncio.sleep(0)
        raise end

    with serve(app) as server, server.connect() as other:
        other.ask("/other")
        server.until(lambda: connections(server).active == 1, "it is at work")
        assert server.get().status == 500
        assert [line for line in server.log if f"the app raised {type(end).__name__}" in line] == server.log
        assert server.log
        server.call(go.set)
        assert other.answer().text == "nothing has happened to this one"


def test_an_app_that_exits_behind_its_response_has_answered() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"fine"))
        if scope["path"] == "/later":
            await asyncio.sleep(0.005)
        raise SystemExit(3)

    with serve(app) as server, server.connect() as connection:
        for number, path in enumerate(["/at-once", "/later", "/at-once"]):
            assert connection.get(path).text == "fine"
            server.until(lambda number=number: len(server.log) == number + 1, "it is logged")  # type: ignore[misc]


# Apps that go on


class Background:
    """An app that works on behind its response until it is told to end."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.ended = 0
        self.cancelled = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/slow":
            await asyncio.sleep(0.001)
        await send(start())
        await send(body(scope["path"].encode()))
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.ended += 1


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("path", ["/", "/slow"])
def test_a_background_task_does_not_delay_the_next_request(path: str, loop: str) -> None:
    app = Background()
    with serve(app, loop=loop) as server, server.connect() as connection:
        for _ in range(5):
            assert connection.get(path).text == path
        assert app.ended == 0
        connections = server.connections
        assert server.call(lambda: (connections.active, connections.requests)) == (0, 5)
        server.call(app.go.set)
        server.until(lambda: app.ended == 5, "all have ended")
        assert connection.get(path).text == path
        server.until(lambda: app.ended == 6, "it has ended")
        assert server.call(lambda: connections.active) == 0


@pytest.mark.parametrize("streams", [False, True])
def test_a_background_task_behind_a_slow_clients_response_does_not_delay_the_next_request(streams: bool) -> None:
    go = asyncio.Event()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        if streams:
            await send(body(bytes(8_000_000), more_body=True))
        await send(body(bytes(8_000_000)))
        await go.wait()

    with serve(app) as server, server.connect() as connection:
        for _ in range(3):
            connection.ask()
            time.sleep(0.02)
            assert len(connection.answer().body) >= 8_000_000
        server.call(go.set)


def test_a_background_task_does_not_delay_a_close() -> None:
    app = Background()
    with serve(app) as server, server.connect() as connection:
        assert connection.get(headers=[("Connection", "close")]).closes
        connection.expect_close()
        assert app.ended == 0
        server.call(app.go.set)
        server.until(lambda: app.ended == 1, "it has ended, though its client is gone")


def test_pipelined_requests_are_not_delayed_by_background_tasks() -> None:
    app = Background()
    with serve(app) as server, server.connect() as connection:
        connection.send(b"GET /slow HTTP/1.1\r\nHost: t\r\n\r\n" * 5)
        assert [connection.answer().text for _ in range(5)] == ["/slow"] * 5
        assert app.ended == 0
        server.call(app.go.set)


def test_a_background_task_outlives_its_connection_and_the_garbage_collector() -> None:
    app = Background()
    with serve(app) as server:
        with server.connect() as connection:
            connection.get()
        server.until(lambda: not len(connections(server)), "the connection is gone")
        server.call(gc.collect)
        server.call(app.go.set)
        server.until(lambda: app.ended == 1, "it has ended")


def test_a_worker_waits_for_background_tasks_and_cancels_them_at_its_deadline() -> None:
    app = Background()
    with serve(app) as server:
        server.get()
        before = time.monotonic()
        server.run(server.gateway.finish(server.loop.time() + 0.2))
        assert 0.1 < time.monotonic() - before < 3
        assert app.cancelled == 1
        assert "still at work" in server.log[-1]


def connections(server: Any) -> Any:
    from preforkd.workers.http.connections import connections_of

    return connections_of(server.loop)


def test_an_app_whose_client_is_gone_is_not_cancelled() -> None:
    app = Background()
    done: list[str] = []

    @http
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await app.go.wait()
        done.append("worked to the end")

    with serve(slow) as server:
        with server.connect() as connection:
            connection.ask()
            server.until(lambda: connections(server).active == 1, "it is at work")
            connection.reset()
        server.until(lambda: not len(connections(server)), "the connection is gone")
        server.call(app.go.set)
        server.until(lambda: bool(done), "it has ended")
        server.until(lambda: connections(server).active == 0, "nothing is counted any more")


def test_a_request_that_takes_too_long_is_cancelled_and_answered_503() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(30)

    with serve(app, request_timeout=0.2) as server, server.connect() as connection:
        assert connection.get().status == 503


def test_nothing_is_left_of_ten_thousand_requests() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/on":
            await send(start())
            await send(body(b"ok"))
            await asyncio.sleep(0)
            return
        await receive()
        await send(start())
        await send(body(b"ok", more_body=True))
        await send(body(b"ok"))

    with serve(app) as server:
        with server.connect() as connection:
            for number in range(20):
                connection.send(b"GET /%s HTTP/1.1\r\nHost: t\r\n\r\n" % (b"on" if number % 2 else b"") * 50)
                for _ in range(50):
                    connection.answer()
            kept = weakref.ref(next(iter(server.connections)))
        server.until(lambda: not len(connections(server)), "the connection is gone")

        def left() -> int:
            gc.collect()
            return len(asyncio.all_tasks(server.loop))

        server.until(lambda: left() <= 2, "no task is left but the server's own")
        assert kept() is None or not server.call(gc.collect)
        assert not server.gateway._tasks


def test_the_gateway_works_without_the_daemon() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"ok"))

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(AsgiGateway(app).handler, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        server.close()
        return answer

    for factory in LOOPS.values():
        with asyncio.Runner(loop_factory=factory) as runner:
            assert runner.run(main()).endswith(b"\r\n\r\nok")
