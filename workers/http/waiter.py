"""What a connection's task waits on between two requests, and how it takes over one that has to wait for something."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from preforkd.workers.http import compiled
from preforkd.workers.http.done import DONE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextvars import Context
    from types import FrameType

    from preforkd.workers.http.exchange import Exchange

    Resumable = Generator[Any, Any, None]
    """What an awaitable's `__await__()` gives: each step ends with what is to be waited for."""


BEGIN = object()
"""Instead of what a step waits for: there was none yet."""


class Stepping(Protocol):
    """Makes the steps of a handler, see `Runner`."""

    def steps_of(
        self,
        exchange: Exchange,
        steps: Resumable,
        run: Callable[..., Any],
        waiting: object = BEGIN,
        error: BaseException | None = None,
        then: Callable[[BaseException | None], Resumable | None] | None = None,
    ) -> Resumable:
        """Make the steps of a handler; arguments as in `Continuation`."""


@compiled.in_both_forms
class Wakeup:
    """An awaitable that is used again and again, and that resumes its task at once.

    A future costs an object for each request, and its task waits for the loop's next turn. This one implements the
    part of the future protocol that `asyncio.Task` uses of foreign futures (`asyncio.isfuture`), and when the loop is
    between two tasks, as in `data_received`, it calls the task's wake-up right there: 1 us less per request.

    Attributes:
        callback: the wake-up of the task that waits; None when none does.
        held: something is being done in the name of the task that waits, so it cannot be resumed right now: it will be
            in the loop's next turn.
    """

    __slots__ = ("_asyncio_future_blocking", "_cancelled", "_context", "_has_begun", "_loop", "callback", "held")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asyncio_future_blocking = False
        self.callback: Callable[[Any], object] | None = None
        self._context: Context | None = None
        self._cancelled: str | None = None
        self._has_begun = False
        self.held = False

    def __await__(self) -> Generator[Wakeup, None, None]:
        """Return the iterator, which is this object: a generator would be kept by each idle connection."""
        self._has_begun = False
        return self  # type: ignore[return-value]  # an iterator is all that `await` needs

    def __iter__(self) -> Iterator[Wakeup]:
        return self

    def __next__(self) -> Wakeup:
        if self._has_begun:
            raise StopIteration
        self._has_begun = self._asyncio_future_blocking = True
        return self

    def wake(self) -> None:
        """Resume the task that waits, if one does."""
        callback = self.callback
        if callback is None:
            return
        self.callback = None
        context = self._context
        awaited = self._awaited()
        if self.held:
            self._loop.call_soon(callback, awaited, context=context)
            return
        try:
            context.run(callback, awaited)  # type: ignore[union-attr]  # set together with the callback
        except RuntimeError:
            # Tasks do not nest, nor do contexts: called from within one, this one has to wait for its turn. Nothing
            # else comes out of the call: what the task's own code raises is kept in the task.
            self._loop.call_soon(callback, awaited, context=context)

    def _awaited(self) -> object:
        """Return what the task is told to have waited for.

        Of another object than a future of its own kind the task asks for "result", a string that it makes anew each
        time. The interpreter's cache of methods keeps 4,096 of them: memory of so many connections was not given back.
        """
        if self._cancelled is not None:
            return self
        done = self._loop.create_future()
        done.set_result(None)
        return done

    # What asyncio.Task asks of a future.

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the task."""
        return self._loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context) -> None:
        """Keep the wake-up of the task that has begun to wait."""
        self.callback = callback
        self._context = context

    def cancel(self, msg: str | None = None) -> bool:
        """Cancel the waiting: the task gets `CancelledError` in the loop's next turn."""
        callback = self.callback
        if callback is None:
            return False
        if self.held:
            self._cancelled = msg or ""
            self._loop.call_soon(self.wake)  # if it still waits then
            return True
        self.callback = None
        self._loop.call_soon(self._resume_cancelled, callback, msg or "", context=self._context)
        return True

    def _resume_cancelled(self, callback: Callable[[Any], object], msg: str) -> None:
        """Let the task that has been cancelled know: it, and not another that has begun to wait meanwhile."""
        self._cancelled = msg
        callback(self)

    def result(self) -> None:
        """Raise `CancelledError` when the waiting was cancelled."""
        if self._cancelled is not None:
            self._cancelled = None
            raise asyncio.CancelledError


@compiled.in_both_forms
class Deferred(Wakeup):
    """What a handler returns instead of a coroutine when callbacks will write its response.

    The request takes no step of the connection's task then, and no coroutine: `protocol.end_deferred()` ends it. Only
    when it is to be cancelled the task waits for it: then `wake()` ends it, and `result()` raises its error.
    """

    __slots__ = ()

    def __await__(self) -> Generator[Wakeup, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def abandon(self) -> None:
        """Nobody waits for this any more: the client is gone, or the request took too long."""

    def _awaited(self) -> object:
        return self

    def frames(self) -> list[FrameType]:
        """Return where the handler is, the outermost call first; none when it is nowhere in Python."""
        return []

    def cancel(self, msg: str | None = None) -> bool:
        """The task that waits is cancelled."""
        self.abandon()
        return super().cancel(msg)


class Continuation:
    """The rest of a request whose first steps were made already; to be awaited, once.

    A task cannot change its context, so each step is run in the one that the first was run in. Tasks that are started
    in it inherit it, as ever.

    Attributes:
        runner: makes the steps.
        exchange: the request.
        steps: the iterator that an awaitable's `__await__()` gives.
        waiting: what its last step waits for.
        context: to run its steps in.
        then: called when the steps have come to their end, with what they have raised; gives the steps that follow.
        error: to be raised in the steps instead of waiting.
    """

    __slots__ = ("context", "error", "exchange", "runner", "steps", "then", "waiting")

    def __init__(
        self,
        runner: Stepping,
        exchange: Exchange,
        steps: Resumable,
        waiting: object,
        context: Context,
        then: Callable[[BaseException | None], Resumable | None] | None = None,
    ) -> None:
        self.runner = runner
        self.exchange = exchange
        self.steps = steps
        self.waiting = waiting
        self.context = context
        self.then = then
        self.error: BaseException | None = None

    def close(self) -> None:
        """End the steps where they wait: nobody will await them."""
        self.context.run(self.steps.close)
        if self.then is not None:
            with suppress(GeneratorExit):
                self.context.run(self.then, GeneratorExit())

    def __await__(self) -> Resumable:
        error, then = self.error, self.then
        self.error = self.then = None
        try:
            return self.runner.steps_of(self.exchange, self.steps, self.context.run, self.waiting, error, then)
        finally:
            error = None  # a frame and an exception that hold each other wait for the collector


class Epilogue(Continuation):
    """What ends a request whose response has been written: its first step is made, cancelled or not."""

    __slots__ = ()

    def __await__(self) -> Resumable:
        error, self.error = self.error, None
        steps = self.runner.steps_of(self.exchange, self.steps, self.context.run)
        waiting = next(steps, DONE)
        try:
            if waiting is DONE and error is not None:
                raise error
            while waiting is not DONE:
                if error is None:
                    try:
                        yield waiting
                    except BaseException as exc:  # noqa: BLE001 -- handed on
                        error = exc
                waiting = next(steps, DONE) if error is None else steps.throw(error)
                error = None
        except StopIteration:
            pass  # out of throw(), which has no default
        finally:
            error = None  # a frame and an exception that hold each other wait for the collector


class InSteps:
    """Awaits an iterator of steps, as nothing but an object can.

    Args:
        steps: the iterator.
    """

    __slots__ = ("_steps",)

    def __init__(self, steps: Resumable) -> None:
        self._steps = steps

    def __await__(self) -> Resumable:
        return self._steps


async def raising(exc: BaseException) -> None:
    """Raise an exception where this is awaited."""
    raise exc
