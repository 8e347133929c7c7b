"""Keeps systemd informed of what the daemon is doing: sd_notify(3), for Type=notify and Type=notify-reload."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from preforkd.daemon.slots import SERVING
from preforkd.daemon.systemd import Systemd, message, send
from preforkd.daemon.turn import Phase, State
from preforkd.workers import log

EXTEND_EVERY: Final = 5.0
"""Seconds between two requests for more time, while the daemon is on the way to another state."""
EXTENSION: Final = 15.0
"""Seconds asked for each time: the daemon's own limits decide how long a boot, a reload and a stop may take."""
RETRY: Final = 0.1
"""Seconds before a message that systemd could not take yet is sent again."""
LONGEST_REASON: Final = 200
"""Characters of the reason for a reload's failure, of which the log has all."""
_MOST_WAITING: Final = 64
_ENDING: Final = (Phase.LEAVING, Phase.STOPPING, Phase.HALTING, Phase.GONE)
_STEADY: Final = (Phase.NEW, Phase.SERVING, Phase.GONE)


class Notifier:
    """Follows the master's state and sends what systemd has to know of it; without systemd it does nothing.

    Args:
        systemd: what it has said in the environment.
        ready: it has been told already that the daemon is ready, by the program before this one.
        deliver: sends one datagram to an address; raises OSError.
    """

    def __init__(self, systemd: Systemd, deliver: Callable[[str, bytes], None] = send, *, ready: bool = False) -> None:
        self._address = systemd.notify
        self._beat_every = systemd.watchdog / 2  # as sd_watchdog_enabled(3) advises
        self._deliver = deliver
        self._waiting: deque[bytes] = deque(maxlen=_MOST_WAITING)
        self._phase = Phase.NEW
        self._ready = ready
        self._reloading_from: int | None = None
        """The generation that served when the reload was asked for that systemd waits for the end of."""
        self._stopping = False
        self._complained = False
        self._status = ""
        self._reload_failed = False
        self._extended = -EXTEND_EVERY
        self._beaten = -self._beat_every
        self._retry_at: float | None = None
        self._next: float | None = None

    def reload_asked(self, state: State) -> None:
        """Say that a reload has begun, also one that will be refused: systemd waits for its beginning and its end."""
        if self._address and self._ready and not self._stopping:
            self._reloading_from = _serving_generation(state)
            self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def follow(self, state: State, now: float) -> None:
        """Say what is new; to be called after each turn of the master, and at `next_deadline`.

        Args:
            state: of the master.
            now: seconds of the monotonic clock.
        """
        if not self._address:
            return
        self._flush(now)
        news = [*self._changes(state), *self._status_line(state), *self._extension(state, now), *self._heartbeat(now)]
        if news:
            self._send(*news)
        self._next = self._due(state)

    def next_deadline(self) -> float | None:
        """Return when there is something to say even if nothing happens."""
        return self._next

    def _changes(self, state: State) -> list[str]:
        if state.phase in _ENDING and not self._stopping:
            self._stopping = True
            return ["STOPPING=1"]
        if state.phase is Phase.SERVING and (not self._ready or self._reloading_from is not None):
            self._reload_failed = self._reloading_from == _serving_generation(state)
            self._ready, self._reloading_from = True, None
            return ["READY=1"]
        return []

    def _status_line(self, state: State) -> list[str]:
        status = describe(state) + (f"; the last reload failed: {_short(state.failure)}" if self._reload_failed else "")
        if status == self._status:
            return []
        self._status = status
        return [f"STATUS={status}"]

    def _extension(self, state: State, now: float) -> list[str]:
        entered, self._phase = state.phase is not self._phase, state.phase
        if state.phase in _STEADY or (now < self._extended + EXTEND_EVERY and not entered):
            return []  # each phase has a timeout of its own at systemd's
        self._extended = now
        return [f"EXTEND_TIMEOUT_USEC={int(EXTENSION * 1e6)}"]

    def _heartbeat(self, now: float) -> list[str]:
        if not self._beat_every or now < self._beaten + self._beat_every:
            return []
        self._beaten = now
        return ["WATCHDOG=1"]

    def _due(self, state: State) -> float | None:
        times = [] if state.phase in _STEADY else [self._extended + EXTEND_EVERY]
        if self._beat_every:
            times.append(self._beaten + self._beat_every)
        if self._retry_at is not None:
            times.append(self._retry_at)
        return min(times, default=None)

    def _send(self, *assignments: str) -> None:
        self._waiting.append(message(*assignments))
        self._flush(time.monotonic())

    def _flush(self, now: float) -> None:
        self._retry_at = None
        while self._waiting:
            try:
                self._deliver(self._address, self._waiting[0])
            except (BlockingIOError, InterruptedError):
                self._retry_at = now + RETRY
                return
            except OSError as exc:
                self._waiting.clear()
                if not self._complained:
                    log.LOGGER.warning("systemd cannot be told anything (%s): %s", self._address, exc.strerror or exc)
                self._complained = True
                return
            self._waiting.popleft()
            self._complained = False


def _serving_generation(state: State) -> int:
    return state.target.number if state.committed is None else state.committed.number


def _short(text: str) -> str:
    """Return what fits on one line beside other things."""
    first = text.partition("\n")[0]
    return first if len(first) <= LONGEST_REASON else first[:LONGEST_REASON] + " ..."


def describe(state: State) -> str:
    """Return in one line what the daemon is doing, as `systemctl status` shows it."""
    target = state.target
    ready = sum(w.state in SERVING and w.generation == target.number for w in state.workers.values())
    of_all = f"{ready} of {target.size} worker{'' if target.size == 1 else 's'} ready (generation {target.number})"
    left = f"{len(state.workers)} worker{'' if len(state.workers) == 1 else 's'} left"
    match state.phase:
        case Phase.NEW | Phase.BOOTING:
            return f"booting: {of_all}"
        case Phase.SERVING:
            return f"serving: {of_all}"
        case Phase.RELOADING:
            return f"reloading: {of_all}"
        case Phase.TRYING:
            return f"reloading: {of_all}, on trial beside the old generation"
        case Phase.PROVING:
            return f"reloading: {of_all}, the old generation stands by"
        case Phase.LEAVING:
            return f"stopping: still serving for --drain-delay, {left}"
        case Phase.STOPPING:
            return f"stopping: {left}"
        case Phase.HALTING:
            return f"ending at once: {left}"
        case Phase.GONE:
            return "ended"
