"""The lifespan of an ASGI app (lifespan protocol 2.0): startup before the worker is ready, shutdown after its drain."""

from __future__ import annotations

import asyncio
import enum
import logging
import traceback
from typing import TYPE_CHECKING, Any

from preforkd.workers import offspring
from preforkd.workers.blame import cause
from preforkd.workers.gateways.gateway import StartupError

if TYPE_CHECKING:
    from preforkd.workers.gateways.asgi.scope import AsgiApp, Message

CALM_PART = 0.8  # of the time for a shutdown; the rest is for an app that has to be cancelled


class _State(enum.Enum):
    """What the app was asked last, and whether it has answered; the value says it in an error."""

    STARTING = "while it starts"
    STARTED = "before it was told to shut down"
    STOPPING = "while it shuts down"
    STOPPED = "after it has shut down"
    FAILED = "after it has failed"


_ANSWERS = {
    "lifespan.startup.complete": (_State.STARTING, _State.STARTED),
    "lifespan.startup.failed": (_State.STARTING, _State.FAILED),
    "lifespan.shutdown.complete": (_State.STOPPING, _State.STOPPED),
    "lifespan.shutdown.failed": (_State.STOPPING, _State.FAILED),
}
"""What an app may send: in which state, and the state that follows. It may not have received the question."""


class _ForeignMessageError(RuntimeError):
    """The app has answered the lifespan as if it were a request: it knows none."""


class _ExitError(RuntimeError):
    """The app has raised what would end the worker's loop; that is the cause."""


class Lifespan:
    """The lifespan task of one worker.

    An app has none when it raises, or returns, before it has received anything, or answers with a message of another
    protocol. One that has received `lifespan.startup` and raises has failed to start, as has one that calls
    `sys.exit()`: it must not be served.

    Args:
        app: the application.
        logger: where trouble is reported.

    Attributes:
        state: what the app has left in `scope["state"]` while it started.
        is_supported: the app takes part; known after `startup()`.
    """

    def __init__(self, app: AsgiApp, logger: logging.Logger) -> None:
        self.state: dict[str, Any] = {}
        self.is_supported = False
        self._app = app
        self._logger = logger
        self._task: asyncio.Task[None] | None = None
        self._state = _State.STARTING
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._has_received = False
        self._waits_for_more = asyncio.Event()

    async def startup(self) -> None:
        """Have the app start.

        Raises:
            StartupError: it has said `lifespan.startup.failed`, or raised.
        """
        task = self._task = asyncio.get_running_loop().create_task(self._run())
        task.add_done_callback(self._report)
        self._events.put_nowait({"type": "lifespan.startup"})
        answer = await self._answer()
        if answer is None:
            self._judge_end(task)
        elif self._state is _State.FAILED:
            text = str(answer.get("message", "")).strip()
            # Starlette gives a whole traceback; its last line says what happened.
            raise StartupError(f"the app's startup failed: {_last_line(text)}", text if "\n" in text else "")

    def _judge_end(self, task: asyncio.Task[None]) -> None:
        """The lifespan has ended before the app said that it has started."""
        exc = task.exception() if not task.cancelled() else asyncio.CancelledError()
        exits = isinstance(exc, _ExitError)
        if exc is None or isinstance(exc, _ForeignMessageError) or not (self._has_received or exits):
            self._logger.debug("the app has no lifespan: %r", exc)
            return
        if exits:
            exc = exc.__cause__ or exc
        details = "".join(traceback.format_exception(exc))
        raise StartupError(f"the app's startup failed: {cause(exc)}", details) from exc

    def _report(self, task: asyncio.Task[None]) -> None:
        """The lifespan has ended: log why, at once, unless it was right or somebody waits for it."""
        exc = None if task.cancelled() else task.exception()
        if exc is not None and self.is_supported and self._state is not _State.FAILED:
            self._logger.error("the app's lifespan has failed", exc_info=exc)

    async def shutdown(self, seconds: float) -> None:
        """Have the app shut down, and end its lifespan whatever it does.

        Args:
            seconds: that it gets.
        """
        task = self._task
        if task is None:
            return
        if self.is_supported and not task.done():
            self._state = _State.STOPPING
            self._events.put_nowait({"type": "lifespan.shutdown"})
            try:
                async with asyncio.timeout(CALM_PART * seconds):
                    await self._await_shutdown(task)
            except TimeoutError:
                self._logger.warning("the app has not shut down within %g s: cancelled", CALM_PART * seconds)
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=max((1 - CALM_PART) * seconds, 0.05))

    async def _await_shutdown(self, task: asyncio.Task[None]) -> None:
        answer = await self._answer()
        if answer is None:
            return
        if self._state is _State.FAILED:
            self._logger.error("the app's shutdown failed: %s", answer.get("message", ""))
        # What it does behind its answer, `finally` blocks for instance, is part of it; to receive once more is not.
        more = asyncio.ensure_future(self._waits_for_more.wait())
        try:
            await asyncio.wait([task, more], return_when=asyncio.FIRST_COMPLETED)
        finally:
            more.cancel()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except BaseException as exc:
            offspring.end_if_strayed(exc)
            if isinstance(exc, SystemExit | KeyboardInterrupt):
                raise _ExitError(f"the app raised {type(exc).__name__}") from exc
            raise
        offspring.end_if_strayed()

    async def _receive(self) -> Message:
        self._has_received = True
        if self._state is _State.STOPPED or self._state is _State.FAILED:
            self._waits_for_more.set()  # for nothing: it is cancelled
        return await self._events.get()

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind not in _ANSWERS:
            raise _ForeignMessageError(f"the app has sent {kind!r} in its lifespan")
        asked, following = _ANSWERS[kind]
        if self._state is not asked:
            raise RuntimeError(f"the app has sent {kind!r} {self._state.value}")
        self._state = following
        self.is_supported = self.is_supported or following is _State.STARTED
        self._answers.put_nowait(message)

    async def _answer(self) -> Message | None:
        """The next message of the app; None: it has ended without one."""
        if self._task is None:
            return None
        waiting = asyncio.ensure_future(self._answers.get())
        try:
            await asyncio.wait([waiting, self._task], return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done() and not self._answers.empty():
                await waiting
            return waiting.result() if waiting.done() else None
        finally:
            waiting.cancel()


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it gave no reason"
