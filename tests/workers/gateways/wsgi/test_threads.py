"""Threads: the loop stays live, clients that leave end their calls, work is handed over in batches."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from preforkd.workers.gateways.wsgi.thread_call import HIGH_WATER, ThreadCall
from preforkd.workers.gateways.wsgi.threads import Signal, ThreadPool
from tests.e2e.client import Connection
from tests.workers.gateways.wsgi.serving import MODES, Environ, StartResponse, answer, serve

every_mode = pytest.mark.parametrize("threads", MODES.values(), ids=MODES)
DEADLINE = 10.0


def reset(connection: Connection) -> None:
    """Close with a RST."""
    connection.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0
    connection.close()


class Stream:
    """An endless body that notes how far it came and that it was closed."""

    def __init__(self, part: bytes, pause: float = 0.0) -> None:
        self.part = part
        self.pause = pause
        self.given = 0
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        time.sleep(self.pause)
        self.given += len(self.part)
        return self.part

    def close(self) -> None:
        self.closed.set()


@every_mode
@pytest.mark.parametrize("part", [b"x", b"x" * 100_000], ids=["small", "large"])
@pytest.mark.parametrize("end", ["closed", "reset"])
def test_a_client_that_is_gone_stops_the_iteration_and_closes_it(threads: int, part: bytes, end: str) -> None:
    stream = Stream(part, 0.001)

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return stream if environ["PATH_INFO"] == "/stream" else [b"ok"]

    with serve(app, threads) as served:
        connection = served.connect()
        connection.ask("/stream")
        connection.read_some()
        reset(connection) if end == "reset" else connection.close()
        assert stream.closed.wait(DEADLINE)
        assert served.get("/").body == b"ok"
        assert not served.log, "nobody is to blame"


@every_mode
def test_a_client_that_does_not_read_stops_the_iteration_for_as_long(threads: int) -> None:
    stream = Stream(b"x" * 50_000)

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return stream

    with serve(app, threads) as served:
        connection = served.connect()
        connection.ask()
        before = -1
        while before != stream.given:  # until it does not grow any more
            before = stream.given
            time.sleep(0.3)
        assert stream.given < 20_000_000
        for _ in range(400):
            connection._buffer.clear()
            connection._end = time.monotonic() + DEADLINE
            assert connection._receive()
        served.until(lambda: stream.given > before, "it goes on when the client reads")
        connection.close()
        assert stream.closed.wait(DEADLINE)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("end", ["write timeout", "closing", "cancelled"])
def test_a_call_that_we_give_up_ends_though_its_client_stays_and_does_not_read(end: str, loop: str) -> None:
    stream = Stream(b"x" * 50_000)

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return stream if environ["PATH_INFO"] == "/stream" else [b"ok"]

    write_timeout = 0.3 if end == "write timeout" else 0
    with serve(app, 1, loop=loop, write_timeout=write_timeout) as served, served.connect() as connection:
        connection.ask("/stream")
        served.until(lambda: stream.given > 0, "the stream has begun")
        protocol = served.protocol
        served.until(lambda: protocol.writer.paused, "the client is behind")
        # From within a task, as the drain of a worker does it: then the connection's own cannot be resumed at once.
        if end == "closing":
            served.call(served.connections.closing, 0)
        elif end == "cancelled":
            served.call(protocol.handler_task.cancel)  # type: ignore[union-attr]  # it has one
        assert stream.closed.wait(DEADLINE)
        connections = served.connections
        served.until(lambda: not len(connections), "the connection is gone")
        served.until(lambda: served.gateway._pool.unfinished == 0, "the thread is free")
        assert connections.active == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_write_raises_when_the_client_is_gone(threads: int) -> None:
    raised: list[BaseException] = []
    done = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Any:
        write = start_response("200 OK", [])
        try:
            while True:
                write(b"x" * 10_000)
        except OSError as exc:
            raised.append(exc)
            raise
        finally:
            done.set()

    with serve(app, threads) as served:
        connection = served.connect()
        connection.ask()
        connection.read_some()
        connection.close()
        assert done.wait(DEADLINE)
        served.until(lambda: not served.gateway._pool.unfinished, "the end of the call")
        assert isinstance(raised[0], ConnectionError)
        assert not served.log, "the app is not to blame"


def test_a_thread_is_at_most_a_part_ahead_of_what_the_connection_takes() -> None:
    posted: list[ThreadCall] = []

    class Pool:
        post = staticmethod(posted.append)

    class Answer:
        pool = Pool()
        gateway = SimpleNamespace(hop_by_hop=None)

    call = ThreadCall(lambda environ, start: [], None, None, None, Answer())  # type: ignore[arg-type] # what send() needs of them

    def send_twice() -> None:
        call.send(b"x" * HIGH_WATER)
        call.send(b"x" * HIGH_WATER)

    thread = threading.Thread(target=send_twice)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    assert call.parts is not None
    assert len(call.parts) == 2
    call.taken = 2 * HIGH_WATER
    call.wake()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_the_loop_stays_live_while_threads_are_busy() -> None:
    go_on = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Any:
        assert go_on.wait(DEADLINE)
        return answer("done")(environ, start_response)

    with serve(app, 1) as served:
        waiting = [served.connect() for _ in range(5)]
        for connection in waiting:
            connection.ask()
        served.until(lambda: served.gateway._pool.unfinished == 5, "five calls")
        began = time.monotonic()
        served.call(lambda: None)
        assert time.monotonic() - began < 1, "the loop turns"
        go_on.set()
        for connection in waiting:
            assert connection.answer().text == "done"
            connection.close()


def test_as_many_calls_at_a_time_as_there_are_threads() -> None:
    lock, together = threading.Lock(), threading.Semaphore(0)
    now, most = 0, 0

    def app(environ: Environ, start_response: StartResponse) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if now == 3:
                for _ in range(12):
                    together.release()
        assert together.acquire(timeout=DEADLINE)
        with lock:
            now -= 1
        return answer("done")(environ, start_response)

    with serve(app, 3) as served:
        connections = [served.connect() for _ in range(12)]
        for connection in connections:
            connection.ask()
        for connection in connections:
            assert connection.answer().text == "done"
            connection.close()
    assert most == 3


def test_a_request_whose_client_leaves_while_it_waits_is_never_called() -> None:
    go_on, called = threading.Event(), []

    def app(environ: Environ, start_response: StartResponse) -> Any:
        called.append(environ["PATH_INFO"])
        assert go_on.wait(DEADLINE)
        return answer("done")(environ, start_response)

    with serve(app, 1) as served:
        first, second = served.connect(), served.connect()
        first.ask("/first")
        served.until(lambda: called == ["/first"], "the first call")
        second.ask("/second")
        served.until(lambda: served.gateway._pool.unfinished == 2, "the second waits")
        reset(second)
        served.until(lambda: sum(1 for _ in served.gateway._pool._waiting if _.abandoned) == 1, "it is abandoned")
        go_on.set()
        assert first.answer().text == "done"
        first.close()
        served.until(lambda: not served.gateway._pool.unfinished, "nothing is left")
    assert called == ["/first"]


def test_an_error_after_the_client_has_left_is_logged() -> None:
    go_on, called = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Any:
        called.set()
        assert go_on.wait(DEADLINE)
        raise RuntimeError("nobody waits for this")

    with serve(app, 1) as served:
        connection = served.connect()
        connection.ask()
        assert called.wait(DEADLINE)
        reset(connection)
        served.until(lambda: not len(served.gateway._pool._posted) and not connections(served), "the end")
        go_on.set()
        served.until(lambda: any("nobody waits for this" in line for line in served.log), "the error in the log")


def connections(served: Any) -> int:
    from preforkd.workers.http.connections import connections_of

    return len(connections_of(served.loop))


def test_a_request_that_takes_too_long_is_answered_503_and_its_thread_goes_on() -> None:
    go_on = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Any:
        if environ["PATH_INFO"] == "/slow":
            assert go_on.wait(DEADLINE)
        return answer("done")(environ, start_response)

    with serve(app, 1, request_timeout=0.2) as served:
        assert served.get("/slow").status == 503
        go_on.set()
        assert served.get("/").text == "done"


def test_finish_waits_for_calls_whose_client_has_left() -> None:
    go_on, called, ended = threading.Event(), threading.Event(), threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Any:
        called.set()
        assert go_on.wait(DEADLINE)
        ended.set()
        return answer("done")(environ, start_response)

    with serve(app, 1) as served:
        connection = served.connect()
        connection.ask()
        assert called.wait(DEADLINE)
        reset(connection)
        gateway = served.gateway
        served.run(gateway.finish(served.call(served.loop.time) + 0.1))
        assert not ended.is_set(), "not longer than it may"
        threading.Timer(0.1, go_on.set).start()
        served.run(gateway.finish(served.call(served.loop.time) + DEADLINE))
        assert ended.is_set()
        served.run(gateway.finish(0.0))


def test_no_call_environ_or_body_is_kept_after_its_response() -> None:
    kept: list[weakref.ref[Any]] = []

    class Body(list[bytes]):
        """A list that can be referred to weakly."""

    def app(environ: Environ, start_response: StartResponse) -> Any:
        body = Body([b"x"])
        kept.extend([weakref.ref(start_response.__self__), weakref.ref(body)])  # type: ignore[attr-defined] # a bound method
        start_response("200 OK", [])
        return body

    for threads in (0, 1):
        with serve(app, threads) as served:
            gc.disable()
            try:
                served.get("/")
                served.until(lambda: not any(ref() for ref in kept[:-2]), "all but the last is gone")
                served.get("/")
                served.until(lambda: not any(ref() for ref in kept), "all gone, without the garbage collector")
            finally:
                gc.enable()


class Count:
    """A job that counts its calls."""

    posted = ended = False
    queue_seconds = 0.0
    due = 0.0

    def __init__(self, pool: ThreadPool, advanced: list[Any]) -> None:
        self.pool = pool
        self.advanced = advanced

    def run(self) -> None:
        self.pool.post(self)
        self.pool.post(self)

    def refuse(self) -> None:
        self.pool.end_job()

    def advance(self) -> None:
        self.posted = False
        if not self.ended:
            self.pool.end_job()
        self.ended = True
        self.advanced.append(self)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("factory", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_the_loop_is_woken_far_less_often_than_there_are_jobs(threads: int, factory: Any) -> None:
    async def main() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        wakes = 0
        wake = loop.call_soon_threadsafe

        class Loop:
            call_soon = staticmethod(loop.call_soon)
            call_later = staticmethod(loop.call_later)
            create_future = staticmethod(loop.create_future)

            @staticmethod
            def call_soon_threadsafe(*args: Any, **keywords: Any) -> Any:
                nonlocal wakes
                wakes += 1
                return wake(*args, **keywords)

        pool = ThreadPool(threads, Loop())  # type: ignore[arg-type] # what a pool uses of a loop
        advanced: list[Any] = []
        for _ in range(100):
            for _ in range(50):
                pool.submit(Count(pool, advanced))
            async with asyncio.timeout(DEADLINE):
                await pool.wait_finished()
        pool.end()
        return wakes, len(advanced)

    with asyncio.Runner(loop_factory=factory) as runner:
        wakes, advanced = runner.run(main())
    assert advanced >= 5000
    assert wakes < 2500


def test_threads_end_when_the_pool_does() -> None:
    async def main() -> None:
        before = set(threading.enumerate())
        pool = ThreadPool(3, asyncio.get_running_loop())
        advanced: list[Any] = []
        for _ in range(10):
            pool.submit(Count(pool, advanced))
        await pool.wait_finished()
        threads = set(threading.enumerate()) - before
        assert len(threads) == 3
        pool.end()
        for thread in threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()

    uvloop.run(main())


def test_a_signal_that_was_set_twice_lets_one_wait_through() -> None:
    signal = Signal()
    signal.set()
    signal.set()
    signal.wait()
    waiter = threading.Thread(target=signal.wait)
    waiter.start()
    waiter.join(0.1)
    assert waiter.is_alive()
    signal.set()
    waiter.join(DEADLINE)
    assert not waiter.is_alive()
