"""How the handlers of a connection run: at once, and in a task when they have to wait.

Most requests never wait. They cost no step of a task, which is 0.5 us: `asyncio.current_task()` is the connection's
task all the same (by the way that asyncio documents for its extensions), but it goes on waiting meanwhile.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from operator import call
from typing import TYPE_CHECKING, Any, Protocol

from preforkd.workers import offspring
from preforkd.workers.http import compiled
from preforkd.workers.http.done import DONE
from preforkd.workers.http.intake import DISCARD, FOREIGN
from preforkd.workers.http.waiter import BEGIN, Continuation, Wakeup, raising

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    from preforkd.workers.http.connections import Connections
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

    async def process_alone(self) -> None:
        """Process the request that has come in a task of its own; what the task does."""

    def handler_waits(self) -> None:
        """The handler of the current request waits for something."""

    def task_is_done(self, task: asyncio.Task[None]) -> None:
        """The task has ended: as it should, or by an exception or too early."""

    def task_was_let_go(self) -> None:
        """What the task has in hand goes on without the connection."""


@compiled.in_both_forms
class Runner:
    """Runs the handlers of one connection, one after the other.

    Args:
        loop: the event loop.
        context: what the contexts of requests are copies of.
        intake: whether there are requests.
        writer: what handlers write is flushed there.
        connections: where what is being handled is counted.

    Attributes:
        work: what is run; to be set at once.
        task: in whose name handlers run; None before the first request, and when it was let go.
        rest: what the task is to await: what is left of a request.
        context: as given.
        expects_wait: the last handler has waited, and has taken the task with it, and so will the next, mostly: it
            gets a task from the start, which is cheaper than one from its first wait on.
    """

    __slots__ = (
        "_connections",
        "_intake",
        "_loop",
        "_writer",
        "context",
        "expects_wait",
        "rest",
        "task",
        "wakeup",
        "work",
    )

    work: Work

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        intake: Intake,
        writer: ResponseWriter,
        connections: Connections,
    ) -> None:
        self._loop = loop
        self._intake = intake
        self._connections = connections
        self._writer = writer
        self.context = context
        self.wakeup = Wakeup(loop)
        self.task: asyncio.Task[None] | None = None
        self.rest: Continuation | Coroutine[Any, Any, None] | None = None
        self.expects_wait = False

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
            work = self.work
            if self.expects_wait:
                self.task = self._loop.create_task(work.process_alone(), context=self.context.copy())
            else:
                self.task = self._loop.create_task(work.start(), context=self.context)
            self.task.add_done_callback(work.task_is_done)
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
        connections, intake = self._connections, self._intake
        while True:
            rest = self.rest
            if rest is not None:
                self.rest = None
                connections.active += 1
                try:
                    await rest
                finally:
                    if self.task is task:
                        connections.active -= 1
                if self.task is not task:
                    return  # another one has taken the connection over meanwhile
            elif intake.message is not None or intake.bad is not None:
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

    def steps_of(
        self,
        exchange: Exchange,
        steps: Resumable,
        run: Callable[..., Any] = call,
        waiting: object = BEGIN,
        error: BaseException | None = None,
        then: Callable[[BaseException | None], Resumable | None] | None = None,
    ) -> Resumable:
        """Make the steps of a handler; what it has written is flushed behind each.

        Args:
            exchange: whose handler it is.
            steps: the iterator.
            run: of its context, unless the task has the same.
            waiting: what its last step waits for; BEGIN: there was none.
            error: to be raised in it instead of waiting.
            then: called when the steps have come to their end, with what they have raised; gives the steps that follow.
        """
        writer, intake = self._writer, self._intake
        while True:
            if error is None and waiting is not BEGIN:
                try:
                    yield waiting  # a task sends nothing back
                except BaseException as exc:  # noqa: BLE001 -- handed on: a cancellation for instance
                    error = exc
            is_current = writer.exchange is exchange and intake.phase is not FOREIGN and not writer.is_lost
            if is_current:
                writer.corked = True
            try:
                waiting = run(next, steps, DONE) if error is None else run(_throw, steps, error)
            except BaseException as exc:
                if is_current:
                    writer.corked = False  # flushed when it is clear what comes of it: the head says it, perhaps
                waiting, error = DONE, exc
                if then is None:
                    error = None  # a frame and an exception that hold each other wait for the collector
                    raise
            else:
                error = None
            if is_current and error is None:
                writer.corked = False
                if writer.due:
                    writer.flush(is_last=waiting is DONE)
                if waiting is not DONE:
                    self.work.handler_waits()
            if offspring.strayed:
                offspring.end()
            if waiting is not DONE:
                continue
            if then is None:
                return
            try:
                following, then = run(then, error), None
            finally:
                error = None  # as above
            if following is None:
                return
            steps, waiting = following, BEGIN

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
            self.expects_wait = True
            self.work.task_was_let_go()


def _throw(steps: Resumable, error: BaseException) -> object:
    """Raise an exception in steps; return what they wait for then, DONE at their end."""
    try:
        return steps.throw(error)
    except StopIteration:
        return DONE
    finally:
        del error  # a frame and an exception that hold each other wait for the collector
