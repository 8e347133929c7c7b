"""How the handlers of a connection run: at once, and in a task when they have to wait.

Most requests never wait. They cost no step of a task, which is 0.5 us: `asyncio.current_task()` is the connection's
task all the same (by the way that asyncio documents for its extensions), but it goes on waiting meanwhile.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from typing import TYPE_CHECKING, Any, Protocol

from preforkd.workers import offspring
from preforkd.workers.http.done import DONE
from preforkd.workers.http.intake import DISCARD, FOREIGN
from preforkd.workers.http.waiter import Continuation, Wakeup, raising

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    from preforkd.workers.http.exchange import Exchange
    from preforkd.workers.http.intake import Intake
    from preforkd.workers.http.waiter import Resumable
    from preforkd.workers.http.writer import ResponseWriter


class Work(Protocol):
    """What a runner runs: the requests of a connection, see `Handling`."""

    def start(self) -> Coroutine[Any, Any, None]:
        """Process requests; what the task does: `Runner.run()`, unless somebody knows better."""

    def process_request(self, context: Context) -> Continuation | None:
        """Process the request that has come, in a context of its own; return what has to wait."""

    def handler_waits(self) -> None:
        """The handler of the current request waits for something."""

    def count_active(self, change: int) -> None:
        """So many more requests are being handled; less, if it is negative."""

    def task_is_done(self, task: asyncio.Task[None]) -> None:
        """The task has ended: as it should, or by an exception or too early."""

    def task_was_let_go(self) -> None:
        """What the task has in hand goes on without the connection."""


class Runner:
    """Runs the handlers of one connection, one after the other.

    Args:
        loop: the event loop.
        context: what the contexts of requests are copies of.
        intake: whether there are requests.
        writer: what handlers write is flushed there.

    Attributes:
        work: what is run; to be set at once.
        task: in whose name handlers run; None before the first request, and when it was let go.
        rest: what the task is to await: what is left of a request.
        context: as given.
    """

    __slots__ = ("_intake", "_loop", "_writer", "context", "rest", "task", "wakeup", "work")

    work: Work

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: Context, intake: Intake, writer: ResponseWriter
    ) -> None:
        self._loop = loop
        self._intake = intake
        self._writer = writer
        self.context = context
        self.wakeup = Wakeup(loop)
        self.task: asyncio.Task[None] | None = None
        self.rest: Continuation | Coroutine[Any, Any, None] | None = None

    def proceed(self) -> None:
        """A request is there: process it now, in the name of the task, until it has to wait for something."""
        task = self.task
        wakeup = self.wakeup
        if task is not None and wakeup.callback is not None and not wakeup.held:
            loop = self._loop
            try:
                _enter_task(loop, task)
            except RuntimeError:  # called from within another task
                pass
            else:
                wakeup.held = True
                try:
                    self.go_on()
                except BaseException as exc:  # noqa: BLE001 -- raised again where the task's own exceptions are
                    self.rest = raising(exc)
                finally:
                    wakeup.held = False
                    _leave_task(loop, task)
                if self.rest is not None or self._intake.phase >= DISCARD:
                    wakeup.wake()
                return
        if task is None:
            # Made with the first request: a connection that stays silent costs no task.
            self.task = self._loop.create_task(self.work.start(), context=self.context)
            self.task.add_done_callback(self.work.task_is_done)
        elif wakeup.callback is not None:
            self._loop.call_soon(wakeup.wake)

    def go_on(self) -> None:
        """Process a request until it has to wait for something; then the rest is for the task to await."""
        writer = self._writer
        writer.corked = True
        context = self.context.copy()
        try:
            rest = context.run(self.work.process_request, context)
        finally:
            writer.corked = False
            if writer.due:
                writer.flush()
        if rest is not None:
            if offspring.strayed:
                offspring.end()
            self.rest = rest
            self.work.handler_waits()

    async def run(self) -> None:
        """Process requests until there will be none; what the task does."""
        # What comes while this waits is processed at once, in its name (`proceed()`); the rest of what has to wait, and
        # what could not be processed at once, is for this loop.
        task = self.task = asyncio.current_task()
        work, intake = self.work, self._intake
        while True:
            rest = self.rest
            if rest is not None:
                self.rest = None
                work.count_active(1)
                try:
                    await rest
                finally:
                    if self.task is task:
                        work.count_active(-1)
                if self.task is not task:
                    return  # another one has taken the connection over meanwhile
            elif intake.has_request:
                self.go_on()
                if intake.message is not None:
                    await asyncio.sleep(0)  # a pipeline must not keep the loop from the other connections
            elif intake.phase >= DISCARD:
                return
            else:  # not in a coroutine of its own, whose frame each idle connection would keep
                try:
                    await self.wakeup
                except asyncio.CancelledError as exc:
                    if not isinstance(self.rest, Continuation):
                        raise
                    self.rest.error = exc  # a request has begun meanwhile: it is the one that is cancelled

    def step(
        self, exchange: Exchange, run: Callable[..., object], steps: Resumable, error: BaseException | None
    ) -> object:
        """Make a step of a handler that has waited; what it has written is flushed behind it.

        Args:
            exchange: whose handler it is.
            run: of its context.
            steps: the iterator.
            error: to be raised in it.

        Returns:
            What it waits for; DONE at its end.
        """
        writer = self._writer
        is_current = writer.exchange is exchange and self._intake.phase is not FOREIGN and not writer.is_lost
        if is_current:
            writer.corked = True
        try:
            waiting = run(next, steps, DONE) if error is None else run(steps.throw, error)
        except StopIteration:  # out of throw(), which has no default
            waiting = DONE
        except BaseException:
            if is_current:
                writer.corked = False  # flushed when it is clear what comes of it: the head says it, perhaps
            raise
        finally:
            error = None  # a frame and an exception that hold each other wait for the collector
        if is_current:
            writer.corked = False
            if writer.due:
                writer.flush()
            if waiting is not DONE:
                self.work.handler_waits()
        if offspring.strayed:
            offspring.end()
        return waiting

    @property
    def is_busy(self) -> bool:
        """Whether the task is in a request, its own waiting aside."""
        return self.task is not None and (self.wakeup.callback is None or self.wakeup.held)

    def cancel(self) -> None:
        """Cancel the task, if it is in a request."""
        if self.task is not None and self.is_busy:
            self.task.cancel()

    def await_now(self, rest: Continuation | Coroutine[Any, Any, None]) -> None:
        """Have the task, which waits, await the rest of a request."""
        self.rest = rest
        self.wakeup.wake()

    def let_task_go(self) -> None:
        """Go on without the task, which is in the rest of a request; the next one gets another."""
        if self.task is not None:
            self.task.remove_done_callback(self.work.task_is_done)
            self.task = None
            self.work.task_was_let_go()
