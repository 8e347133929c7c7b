"""Threads for WSGI calls, and the hand-over between them and the event loop in batches.

Waking the other side is what costs: a system call, a switch of contexts, and a fight for the interpreter's lock. So the
loop puts the calls of all requests that it has read in one turn into a deque and wakes threads when the turn is over; a
thread works through the deque until it is empty, puts what is done into another deque, and wakes the loop only when the
loop does not know yet that there is something in it. Under load a wake-up then serves dozens of requests.

Waiting calls are bounded: a connection has one at most, and the number of connections is limited.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections import deque
from contextlib import suppress
from contextvars import Context
from time import monotonic
from types import FrameType
from typing import Protocol

from preforkd.workers import offspring
from preforkd.workers.http.connections import connections_of

LOOK_AGAIN = 0.001
"""Seconds after which further threads are woken for calls of one turn that still wait, and what is done is taken.

One thread has done short calls by then, and several would only fight for the interpreter's lock (measured with four
threads: 8 % less per call).
"""


GATHER = 32
"""Calls up to which it is looked, in another turn of the loop, whether more requests have come in the meantime.

Waking a thread for a few calls, and again for the next few, costs each of them more than that turn (measured: 1.3 us a
request). A call that has no company does not wait for any.
"""


class Signal:
    """Something to wait for: `set()` by one thread lets `wait()` of another return, once.

    A bare lock, because `threading.Event` takes 5 us for the pair where this takes 0.3.
    """

    __slots__ = ("_lock", "wait")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.wait = self._lock.acquire

    def set(self) -> None:
        """Let the waiting thread go on, or the next that waits."""
        with suppress(RuntimeError):  # it was set already
            self._lock.release()


class Job(Protocol):
    """What a pool runs.

    Attributes:
        posted: see `ThreadPool.post()`.
        due: when it has waited too long to be begun, seconds of the monotonic clock; 0: never.
    """

    posted: bool
    queue_seconds: float
    """How long it has waited for a thread, 0: that is not wanted; until one has it: minus the time it was submitted."""
    due: float

    def refuse(self) -> None:
        """It has waited too long and is not run any more; called in the loop, must not raise."""

    def run(self) -> None:
        """Do the work; called in one of the threads, must not raise."""

    def advance(self) -> None:
        """Take what the thread has posted; called in the loop, must not raise."""


class ThreadPool:
    """A fixed number of threads that run jobs for one event loop.

    Args:
        threads: how many.
        loop: whose requests they serve.
        queue_time: seconds that a job may wait for its beginning; 0: for ever.

    Attributes:
        threads, loop: as given.
        unfinished: jobs that were submitted and have not ended; counted in the loop.
    """

    def __init__(self, threads: int, loop: asyncio.AbstractEventLoop, queue_time: float = 0.0) -> None:
        self.threads = threads
        self._queue_time = queue_time
        self._expiry_is_due = False
        self.unfinished = 0
        self.loop = loop
        self._waiting: deque[Job] = deque()
        self._posted: deque[Job] = deque()
        self._idle: list[Signal] = []
        self._hand_over_is_due = False
        self._seen = 0
        self._look_is_due = False
        self._wake_is_due = False
        self._ended = False
        self._counters = connections_of(loop).counters
        self._finished: asyncio.Future[None] | None = None
        # Given to the loop's callbacks: else they would run with the context variables of whichever call posts first.
        self._context = Context()
        for number in range(threads):
            # Daemon threads: a call that never returns must not keep the process from its exit.
            threading.Thread(target=self._work, name=f"wsgi-{number}", daemon=True).start()

    # The loop's side.

    @property
    def spare(self) -> int:
        """Threads that have nothing to do."""
        return len(self._idle) - len(self._waiting)

    def submit(self, job: Job) -> None:
        """Have a job run; threads are woken when the loop has done with what it is at."""
        self.unfinished += 1
        if self._counters is not None:
            job.queue_seconds = -monotonic()
        if self._queue_time:
            self._expire_later(job)
        self._waiting.append(job)
        if not self._hand_over_is_due:
            self._hand_over_is_due = True
            self.loop.call_soon(self._hand_over, context=self._context)

    def submit_again(self, job: Job) -> None:
        """Have a job run once more, which has not ended."""
        job.due = 0.0
        self._waiting.append(job)
        if not self._hand_over_is_due:
            self._hand_over_is_due = True
            self.loop.call_soon(self._hand_over, context=self._context)

    def _hand_over(self) -> None:
        waiting = len(self._waiting)
        if 1 < waiting <= GATHER and waiting > self._seen:
            self._seen = waiting
            self.loop.call_soon(self._hand_over, context=self._context)
            return
        self._seen = 0
        self._hand_over_is_due = False
        self._wake(1)
        if len(self._waiting) > 1 and not self._look_is_due:
            self._look_is_due = True
            self.loop.call_later(LOOK_AGAIN, self._look, context=self._context)

    def _look(self) -> None:
        self._look_is_due = False
        self._take_posted()
        self._wake(len(self._waiting))

    def _expire_later(self, job: Job) -> None:
        job.due = monotonic() + self._queue_time
        if not self._expiry_is_due:  # one timer for all: they wait in the order in which they have come
            self._expiry_is_due = True
            self.loop.call_later(self._queue_time, self._expire, context=self._context)

    def _expire(self) -> None:
        """Refuse what has waited too long, also while no thread gets to it."""
        now = monotonic()
        waiting, others = self._waiting, list[Job]()
        with suppress(IndexError):  # threads take from it as well
            while (job := waiting.popleft()).due <= now:
                if job.due:
                    job.refuse()
                else:
                    others.append(job)
            others.append(job)
        waiting.extendleft(reversed(others))
        self._expiry_is_due = any(job.due for job in others)
        if self._expiry_is_due:
            self.loop.call_later(others[-1].due - now, self._expire, context=self._context)
        if others:
            self._wake(len(others))

    def _wake(self, count: int) -> None:
        with suppress(IndexError):  # a thread has seen the work by itself and taken its signal back
            for _ in range(min(count, len(self._idle))):
                self._idle.pop().set()

    def _take_posted(self) -> None:
        self._wake_is_due = False
        posted = self._posted
        while posted:
            job = posted.popleft()
            if job.queue_seconds > 0.0 and self._counters is not None:
                self._counters.queued(job.queue_seconds)  # here: what two threads count at a time goes wrong
                job.queue_seconds = 0.0
            job.advance()

    def end_job(self) -> None:
        """A job has ended; called by its `advance()`."""
        self.unfinished -= 1
        if not self.unfinished and self._finished is not None:
            self._finished.set_result(None)
            self._finished = None

    async def wait_finished(self) -> None:
        """Return when no job is left, also none whose client has left."""
        while self.unfinished:
            if self._finished is None:
                self._finished = self.loop.create_future()
            await asyncio.shield(self._finished)

    def end(self) -> None:
        """Let the threads end; one that is in a call does so after it."""
        self._ended = True
        with suppress(IndexError):
            while True:
                self._idle.pop().set()

    def frames_of(self, job: Job) -> list[FrameType]:
        """Return where the thread is that runs a job, the outermost call first; none while it waits for a thread."""
        for innermost in sys._current_frames().values():
            frames = [frame for frame, _ in traceback.walk_stack(innermost)][::-1]
            for number, one in enumerate(frames):
                if one.f_code is ThreadPool._work.__code__ and one.f_locals.get("job") is job:
                    return frames[number:]
        return []

    # The threads' side.

    def post(self, job: Job) -> None:
        """Have the loop call the job's `advance()`; several posts before it does are one."""
        if job.posted:
            return
        job.posted = True
        self._posted.append(job)
        # While further calls of the turn wait, the loop looks by itself in a moment: woken now, it would only fight
        # this thread for the interpreter's lock (measured: 0.5 us a request). The last one wakes it.
        if not self._wake_is_due and not (self._look_is_due and self._waiting):
            self._wake_is_due = True
            with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                self.loop.call_soon_threadsafe(self._take_posted, context=self._context)

    def _work(self) -> None:
        waiting = self._waiting
        idle = self._idle
        signal = Signal()
        while not self._ended:
            try:
                job = waiting.popleft()
            except IndexError:
                idle.append(signal)
                # Looked at again behind the append: what came in between has woken nobody.
                if waiting or self._ended:
                    with suppress(ValueError):
                        idle.remove(signal)
                        continue
                signal.wait()
            else:
                if job.queue_seconds < 0.0:
                    job.queue_seconds += monotonic()
                job.run()
                if offspring.strayed:
                    offspring.end()
                del job  # not kept while this thread waits
