"""The event loop's side of a call that runs in a thread: its response is written here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from preforkd.workers.gateways.wsgi.response import WsgiResponse, send_hints
from preforkd.workers.http import compiled
from preforkd.workers.http.errors import ClientDisconnectedError
from preforkd.workers.http.exchange import Observer
from preforkd.workers.http.sendfile import send_file
from preforkd.workers.http.waiter import Deferred

if TYPE_CHECKING:
    from types import FrameType

    from preforkd.workers.gateways.wsgi.file import Range
    from preforkd.workers.gateways.wsgi.loop_call import Gateway
    from preforkd.workers.gateways.wsgi.thread_call import ThreadCall
    from preforkd.workers.gateways.wsgi.threads import ThreadPool
    from preforkd.workers.http.exchange import Exchange, Wire
    from preforkd.workers.http.payload import PayloadStream

_FLUSH_FIRST = 32768  # bytes of a body above which it is looked at whether the client takes it before the request ends


@compiled.in_both_forms
class Answer(Deferred, Observer):
    """What a connection's task waits for while a thread has its request; one object serves all its requests.

    The task is not resumed for each part of a body: what a thread posts is written by `take()`, as the pool's callback.

    Args:
        gateway: the app's.
        wire: the way out.
        pool: where its calls run.
    """

    __slots__ = (
        "_call",
        "_error",
        "_exchange",
        "_feeding",
        "_payload",
        "_response",
        "_tasks",
        "_wire",
        "_written",
        "gateway",
        "pool",
    )

    def __init__(self, gateway: Gateway, wire: Wire, pool: ThreadPool) -> None:
        super().__init__(pool.loop)
        self.gateway = gateway
        self.pool = pool
        self._wire = wire
        self._call: ThreadCall | None = None
        self._exchange: Exchange | None = None
        self._payload: PayloadStream | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._response: WsgiResponse | None = None
        self._error: BaseException | None = None
        self._written = 0
        self._tasks: set[asyncio.Task[None]] | None = None  # made with the first: most connections need none

    def of(self, call: ThreadCall, payload: PayloadStream | None = None) -> Answer:
        """Begin a call; the returned awaitable ends when its response has been written, and raises what it raised.

        Args:
            call: to run in a thread.
            payload: the body that it may still ask for.
        """
        self._call = call
        self._exchange = call.exchange
        call.exchange.observer = self
        self._payload = payload
        self._response = self._error = None
        self._written = 0
        self.pool.submit(call)
        return self

    def _request_goes_on(self) -> None:
        """The call has ended, or will not: let its request go on."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.deferred is self:
            error, self._error = self._error, None
            exchange.carrier.end_deferred(exchange, error)
        else:
            self.wake()

    # What the waiting task asks of a future.

    def result(self) -> None:
        """Raise what ended the call."""
        super().result()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def abandon(self) -> None:
        """Nobody waits for the call any more."""
        call, self._call = self._call, None
        if call is not None:
            call.abandon()
        self._feeding = self._payload = None
        for task in self._tasks or ():
            task.cancel()

    def frames(self) -> list[FrameType]:
        """Return where its thread is; none while it waits for one."""
        return [] if self._call is None else self.pool.frames_of(self._call)

    # What the thread has posted.

    def take(self, call: ThreadCall) -> None:
        """Write what there is of the response; flat: every request passes here."""
        call.posted = False
        if call.ended:
            self.pool.end_job()
            call.ended = False
        if call is not self._call:
            if call.wants_body and not call.abandoned:  # in close(), or in a thread of the app's own
                call.wants_body = False
                call.feed(ClientDisconnectedError("the response is complete"))
            if call.complete and call.file is not None:  # abandoned before it could be sent
                self._finish_file(call, None)
            return
        wire = self._wire
        wire.corked = True
        try:
            body = call.body
            if body is not None and call.complete and not call.hints:
                response = call.begun
                if not response.send_whole(body):  # type: ignore[union-attr]  # it is there
                    response.send_body(body)  # type: ignore[union-attr]  # as above
                if len(body) > _FLUSH_FIRST:
                    self._response = response
                    call.body = None
                    call.settled = True
                    self._end_when_read()
                else:
                    if self._payload is not None:
                        self._refuse_body(call)
                    self._call = None  # as _end() does, in less
                    self._request_goes_on()
            else:
                self._take_more(call)
        except Exception as exc:  # noqa: BLE001 -- it is the task's to answer
            self._fail(call, exc)
        finally:
            wire.corked = False
            if wire.due:
                wire.flush()

    def _fail(self, call: ThreadCall, exc: Exception) -> None:
        """Writing what the thread has given has failed."""
        if isinstance(exc, ClientDisconnectedError):
            self.abandon()
        else:
            call.abandon()
            self._end(exc)

    def _take_more(self, call: ThreadCall) -> None:
        """What is rarer than a body in one piece."""
        if call.settled:  # a thread of the app's own has called: nothing of that can become part of the response
            if call.wants_body:
                self._refuse_body(call)
            return
        while call.hints:
            send_hints(call.exchange, call.hints.popleft())
        if call.wants_body:
            payload = self._payload
            if payload is not None:
                call.wants_body = False
                arrived = payload.take_arrived()
                if arrived:
                    call.feed(arrived, is_last=payload.at_eof())
                else:
                    self._feeding = self._start(self._feed(call, payload))
        complete = call.complete  # looked at before the parts: all of them are there when it is true
        error = call.error
        if call.parts:
            self._write_parts(call.parts, self._response or self._begin(call, None))
            if not complete and self.end_stream():  # it has begun when the others had been ended already
                return
        file = call.file
        call.settled = complete
        if complete and file is not None:
            call.file = None
            # A callback, and not in the task: one that is cancelled before its first step does nothing.
            self._start(self._send_file(call, file)).add_done_callback(partial(self._file_is_over, call))
        elif complete:
            body = call.body or b""
            response = self._response or self._begin(call, len(body))
            if body:
                response.write(body)
            response.end()
            self._end_when_read()
        elif error is not None:
            self._end(error)

    def _begin(self, call: ThreadCall, size: int | None) -> WsgiResponse:
        response = self._response = call.begun
        if response is None:
            raise AssertionError("a call hands nothing over before it has begun a response")
        response.begin(size)
        return response

    def _write_parts(self, parts: deque[bytes], response: WsgiResponse) -> None:
        while parts:
            part = parts.popleft()
            self._written += len(part)
            response.write(part)
        self._wire.flush()
        self.can_write()

    def can_write(self) -> None:
        """The client has read: the thread may go on."""
        call = self._call
        if call is None or self._wire.paused:
            return
        if call.taken != self._written:
            call.taken = self._written
            call.wake()
        if self._response is not None and self._response.ended:
            self._end(None)

    def end_stream(self) -> bool:
        """End an event stream, for the worker leaves; its thread ends the iteration at its next part.

        Returns:
            Whether one was ended.
        """
        call, response = self._call, self._response
        if call is None or response is None or response.ended or response.length is not None:
            return False
        if not self.gateway.stream_is_over(call.exchange, response):
            return False
        if call.parts:
            self._write_parts(call.parts, response)
        call.abandon()
        call.settled = True
        response.end()
        self._end_when_read()
        return True

    def _end_when_read(self) -> None:
        self._wire.flush()
        if not self._wire.paused:
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        """Resume the task: the response is written, or cannot be."""
        call = self._call
        if call is not None and self._payload is not None:
            self._refuse_body(call)
        self._call = self._response = self._payload = None
        self._error = error
        self._request_goes_on()

    # What takes longer has a task of its own, which the end of the connection cancels.

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.pool.loop.create_task(work)
        if self._tasks is None:
            self._tasks = set()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _feed(self, call: ThreadCall, payload: PayloadStream) -> None:
        """Give the thread the next part of the request's body."""
        received: bytes | BaseException
        try:
            received = await payload.readany()
        except Exception as exc:  # noqa: BLE001 -- it is the thread's
            received = exc
        self._feeding = None
        call.feed(received, is_last=payload.at_eof())

    def _refuse_body(self, call: ThreadCall) -> None:
        """The request is over: its connection throws away what still comes of the body, and nothing may look whole."""
        feeding, self._feeding = self._feeding, None
        self._payload = None
        if feeding is not None:
            feeding.cancel()
        if feeding is not None or call.wants_body:
            call.wants_body = False
            call.feed(ClientDisconnectedError("the response is complete"))

    async def _send_file(self, call: ThreadCall, file: Range) -> None:
        begun = call.begun
        size = file.size if begun is None or begun.length is None else begun.length
        response = self._begin(call, size)
        if response.takes_body():
            await send_file(response, self._wire, file.descriptor, file.offset)
        response.end()

    def _file_is_over(self, call: ThreadCall, task: asyncio.Task[None]) -> None:
        self._finish_file(call, None if task.cancelled() else task.exception())

    def _finish_file(self, call: ThreadCall, error: BaseException | None) -> None:
        """The file is closed where the app has opened it: in a thread."""
        call.file = None
        self.pool.submit_again(call)
        if call is self._call:
            self._end(error)
            if self._wire.due:
                self._wire.flush()
