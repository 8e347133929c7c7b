"""A call that runs in a thread, and its end in the event loop.

The two share one object. Each field is written by one side only; what the other side has to look at is announced by
`ThreadPool.post()` (to the loop) or a `Signal` (to the thread), always after the field was written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from contextvars import Context
from io import BytesIO
from time import monotonic
from typing import TYPE_CHECKING, BinaryIO, Protocol

from preforkd.workers import offspring
from preforkd.workers.gateways.wsgi.call import Call, WsgiApp, iterate
from preforkd.workers.gateways.wsgi.file import FileWrapper, Range, sendable
from preforkd.workers.gateways.wsgi.input import InputError
from preforkd.workers.gateways.wsgi.threads import Signal
from preforkd.workers.gateways.wsgi.websocket import refuse_websocket
from preforkd.workers.http import compiled
from preforkd.workers.http.errors import ClientDisconnectedError, overloaded

if TYPE_CHECKING:
    from preforkd.workers.gateways.wsgi.environ import Address, EnvironSource
    from preforkd.workers.gateways.wsgi.headers import Fields
    from preforkd.workers.gateways.wsgi.loop_call import Gateway
    from preforkd.workers.gateways.wsgi.threads import ThreadPool
    from preforkd.workers.http.exchange import Exchange

HIGH_WATER = 65536
"""Bytes that a thread may be ahead of the client's connection before it waits."""


class LoopSide(Protocol):
    """Who takes in the loop what the thread of a call hands over, see `Answer`."""

    @property
    def gateway(self) -> Gateway:
        """The app's."""

    @property
    def pool(self) -> ThreadPool:
        """Where its calls run."""

    def take(self, call: ThreadCall) -> None:
        """Write what there is of the response."""


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """The exception and those that it came from."""
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


@compiled.in_both_forms
class ThreadCall(Call):
    """One call of the app in a thread.

    The environ is made in the thread too: its 30 strings, counted up by one core and down by another, would cost each
    request 3 us.

    Args:
        app: what is called.
        environs: makes the environ.
        client: who has opened the connection.
        exchange: what it answers.
        answer: the loop's side.

    Attributes:
        input: `wsgi.input` when there is a body.
        posted: the loop will look at this call.
        queue_seconds: see `Job`.
        due: when it has waited too long for a thread, seconds of the monotonic clock; 0: never.
        body: the whole body, when the app has returned it at once.
        parts: of the body that the loop has not taken yet.
        file: what the kernel is to send.
        hints: fields of interim responses that are to be sent.
        complete: all of the body has been handed over.
        ended: the thread is done with this call.
        error: what the app has raised.
        wants_body: the thread waits for more of the request's body.
        taken: bytes of parts that the connection has room for; written by the loop.
        abandoned: nobody waits for the response any more; written by the loop.
        settled: the loop has taken all of the response, and may still be sending it; written by the loop.
    """

    # What every call has has a slot. The rest are attributes of the class until a call needs another value.
    __slots__ = (
        "_answer", "_client", "_context", "_environs", "_open", "_post", "abandoned", "app", "begun", "body",
        "committed", "complete", "due", "ended", "exchange", "hints", "hop_by_hop", "input", "posted", "queue_seconds",
    )  # fmt: skip

    parts: deque[bytes] | None = None
    file: Range | None = None
    error: BaseException | None = None
    wants_body = False
    taken = 0
    settled = False
    _given = 0
    _received: bytes | BaseException | None = None
    _has_all = False
    _signal: Signal | None = None
    _body_signal: Signal | None = None
    _ours: BaseException | None = None

    def __init__(
        self, app: WsgiApp, environs: EnvironSource, client: Address | None, exchange: Exchange, answer: LoopSide
    ) -> None:
        self.app = app
        self._environs = environs
        self._client = client
        self.exchange = exchange
        self._answer = answer
        self.hop_by_hop = answer.gateway.hop_by_hop
        self._post = answer.pool.post
        self.begun = None
        self.body: bytes | None = None
        self.hints: deque[Fields] | None = None
        self.input: BinaryIO | None = None
        self.committed = self.posted = self.complete = self.ended = self.abandoned = False
        self.queue_seconds = self.due = 0.0
        self._context: Context | None = None
        self._open: FileWrapper | None = None

    # The thread's side.

    def run(self) -> None:
        """Call the app, or close what it has returned; called in a thread of the pool."""
        try:
            if self._context is not None:
                self._context.run(self._close_file)
            elif self.due and monotonic() > self.due:
                self.error = overloaded()
            elif not self.abandoned:
                context = Context()
                context.run(self._call)
                if self._open is not None:
                    self._context = context
                    self.complete = True
                    self._post(self)
                    return
        except BaseException as exc:  # noqa: BLE001 -- whatever it is, the thread goes on and the client gets its answer
            self._fail(exc)
        self.ended = True
        self._post(self)

    def _fail(self, exc: BaseException) -> None:
        offspring.end_if_strayed(exc)
        is_ours = self._ours is not None and self._ours in _chain(exc)
        if not isinstance(exc, Exception):
            # SystemExit would end the worker, from any request that makes an app raise it.
            wrapped = RuntimeError(f"the app raised {type(exc).__name__}")
            wrapped.__cause__ = exc
            exc = wrapped
        if self.complete or (self.abandoned and not is_ours):
            self._log_error(exc)
        if isinstance(exc, InputError) and exc.__cause__ is not None and is_ours:
            exc = exc.__cause__  # not caught by the app: answered as what it is, 408 for instance
        self.error = exc

    def _log_error(self, error: BaseException) -> None:
        """Log what can no longer be answered."""
        with suppress(Exception):  # a broken log must not end the thread
            exchange = self.exchange
            exchange.carrier.logger.error(
                "Error in the app behind its response to %s", exchange.request, exc_info=error
            )

    def _call(self) -> None:
        # Flat: every request passes here.
        exchange = self.exchange
        environ = self._environs.environ(exchange.request, self._client)
        if "HTTP_UPGRADE" in environ:
            refuse_websocket(environ, exchange.carrier.logger)
        environ["wsgi.input"] = self.input or BytesIO()
        environ["wsgi.early_hints"] = self.early_hints
        result = self.app(environ, self.start_response)
        del environ  # a stream may last, and need it no more
        self._take(result)

    def _take(self, result: object) -> None:
        """Take what the app has returned."""
        kind = type(result)
        if kind is list and len(result) == 1 and type(result[0]) is bytes and not self.committed and self.begun:  # type: ignore[arg-type, index]  # just looked at
            self.body = result[0]  # type: ignore[index]  # as above
            self.complete = True
            return
        if kind is FileWrapper and not self.committed and self.begun is not None:
            self.file = sendable(result)  # type: ignore[arg-type]  # just looked at
            if self.file is not None:
                self._open = result  # type: ignore[assignment]  # as above
                return
        if (kind is list or kind is tuple) and not self.committed:
            self.body = self.join(result)  # type: ignore[arg-type]  # as above
            self.complete = True
            return
        try:
            for part in iterate(result):
                self.check_part(part)
                if part:
                    self.send(part)
                if self.abandoned:
                    return
            if self.begun is None:
                self.check_part(b"")
            self.complete = True
            self._post(self)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def _close_file(self) -> None:
        wrapper, self._open = self._open, None
        if wrapper is not None and hasattr(wrapper, "close"):
            wrapper.close()

    def send(self, data: bytes) -> None:
        """Hand a part of the body to the loop; waits while the client is too far behind.

        Raises:
            ClientDisconnectedError: nobody waits for the response any more.
        """
        if self.parts is None:
            self.parts = deque()
        self.committed = True
        self.parts.append(data if type(data) is bytes else bytes(data))
        self._given += len(data)
        self._post(self)
        while self._given - self.taken > HIGH_WATER and not self.abandoned:
            self._wait()

    def write(self, data: bytes) -> None:
        """Send a part of the body from within the app.

        Raises:
            ClientDisconnectedError: nobody waits for the response any more.
        """
        super().write(data)
        if self.abandoned:
            self._ours = ClientDisconnectedError("the client is gone")
            raise self._ours

    def _wait(self) -> None:
        """Wait until the loop has changed something; the caller looks again at what it waits for."""
        offspring.end_if_strayed()
        if self._signal is None:
            self._signal = Signal()
        else:
            self._signal.wait()

    def send_hints(self, headers: Fields) -> None:
        """Hand an interim response to the loop."""
        if self.hints is None:
            self.hints = deque()
        self.hints.append(headers)
        self._post(self)

    def receive_body(self) -> bytes:
        """Wait for more of the request's body; b"" at its end.

        Raises:
            InputError: it will not be complete.
        """
        if self._has_all:
            return b""
        self._received = None
        # Not the signal of send(): a thread of the app's own may read while that of the pool waits to send.
        signal = self._body_signal = Signal()
        self.wants_body = True
        self._post(self)
        while self._received is None and not self.abandoned:
            signal.wait()
        received = self._received
        if isinstance(received, bytes):
            return received
        cause = received or ClientDisconnectedError("the client is gone")
        self._ours = error = InputError(f"the rest of the request's body does not come: {cause}")
        raise error from cause

    # The loop's side.

    def advance(self) -> None:
        """Take what the thread has posted."""
        self._answer.take(self)

    def refuse(self) -> None:
        """It has waited too long for a thread: answer 503 instead of calling the app."""
        self.error = overloaded()
        self.ended = True
        self._answer.take(self)

    def feed(self, received: bytes | BaseException, *, is_last: bool = False) -> None:
        """Give the waiting thread more of the body, b"" at its end, or why there is none.

        Args:
            received: to be given.
            is_last: nothing comes behind it, so that the thread need not ask.
        """
        if is_last:
            self._has_all = True
        self._received = received
        self._wake_reader()

    def abandon(self) -> None:
        """Nobody waits for the response any more."""
        self.abandoned = True
        self.wake()
        self._wake_reader()

    def _wake_reader(self) -> None:
        signal = self._body_signal
        if signal is not None:
            signal.set()

    def wake(self) -> None:
        """Let the thread look again, if it waits."""
        signal = self._signal
        if signal is not None:
            signal.set()
