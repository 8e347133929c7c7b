"""What is asked of the daemon through its admin process: which event that is, and when and how it has ended. Pure.

The verbs:

* `reload`, `upgrade`, `reopen`, `stop`, `halt`: as HUP, USR2, USR1, TERM, QUIT.
* `scale`: to so many workers.
* `drain`, `restart`: the worker of a slot is replaced; with `restart` its successor is ready first.
* `stack`: the worker of a slot shows its threads and tasks, as by USR2 to it.
* `log-level`: of all processes, or of the worker of a slot.
* `profile`, `memory`: the worker of a slot looks where its time goes, or what grows (`preforkd.workers.examination`).

A question is `accepted` when it has begun. Who waits for `reload`, `scale` or `restart` is answered when it is over,
and for what is over at once (`reopen`, `stack`) at once.
"""

from __future__ import annotations

import signal
from typing import Final

from preforkd.daemon.events import (
    Event,
    ExaminationAsked,
    HaltAsked,
    LogLevelAsked,
    ReopenAsked,
    RestartAsked,
    ScaleAsked,
    StacksAsked,
    StopAsked,
)
from preforkd.daemon.slots import SERVING
from preforkd.daemon.turn import RUNNING, Phase, State
from preforkd.workers.channel import Answer, Ask
from preforkd.workers.examining import KINDS, Order
from preforkd.workers.log import LEVELS
from preforkd.workers.records import dataclass

BY_SHELL: Final = ("reload", "upgrade")
"""Verbs for which the configuration is read or a program is tried before there is an event."""
LOGGING: Final = RUNNING | {Phase.LEAVING, Phase.STOPPING}
"""When the level of the log may be changed."""
OF_SLOT: Final = ("drain", "restart", "stack", *KINDS)
VERBS: Final = (*BY_SHELL, "reopen", "stop", "halt", "scale", "log-level", *OF_SLOT)


class RefusedError(Exception):
    """What is asked cannot be done; the text says why."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A question whose answer somebody waits for.

    Attributes:
        ask: the question.
        since: when it came, seconds of the monotonic clock.
        generation: `reload`: the one that it has begun.
        newest: the serial below which all workers were there when it came.
    """

    ask: Ask
    since: float
    generation: int
    newest: int


def event_of(ask: Ask, state: State, now: float) -> Event:
    """Return the event that a question is, for the verbs that are not `BY_SHELL`.

    Raises:
        RefusedError: it cannot be done now, or never.
    """
    match ask.verb:
        case "stop":
            return StopAsked(now, signal.SIGTERM, delay=True)
        case "halt":
            return HaltAsked(now, signal.SIGQUIT)
        case "reopen":
            return ReopenAsked(now)
        case "log-level" if state.phase in LOGGING:
            return _log_level(ask, state, now)
    if state.phase not in RUNNING:
        raise RefusedError(f"the daemon is {state.phase.value}")
    if ask.verb in OF_SLOT and not any(w.slot == ask.number and w.state in SERVING for w in state.workers.values()):
        raise RefusedError(f"slot {ask.number} has no worker that serves")
    match ask.verb:
        case "scale":
            return ScaleAsked(now, ask.number - state.target.size)
        case "drain" | "restart":
            return RestartAsked(now, ask.number, first=ask.verb == "restart")
        case "stack":
            return StacksAsked(now, ask.number)
        case "profile" | "memory":
            return ExaminationAsked(now, ask.number, _order(ask.text))
    raise RefusedError(f'"{ask.verb}" is not one of {", ".join(VERBS)}')


def _log_level(ask: Ask, state: State, now: float) -> Event:
    slot = None if ask.number < 0 else ask.number
    if slot is not None and not any(worker.slot == slot for worker in state.workers.values()):
        raise RefusedError(f"slot {slot} has no worker")
    if ask.text not in ("", *LEVELS):
        raise RefusedError(f'"{ask.text}" is not one of {", ".join(LEVELS)}')
    return LogLevelAsked(now, ask.text, slot)


def _order(text: str) -> Order:
    try:
        return Order.of(text)
    except ValueError as exc:
        raise RefusedError(str(exc)) from exc


def begun(pending: Pending, state: State) -> Answer:
    """Return the answer for somebody who does not wait, in the state after the event."""
    ask = pending.ask
    text = {
        "reload": f"generation {pending.generation} boots",
        "upgrade": "the new program is tried first; the log says what comes of it",
        "reopen": "the logs are opened anew",
        "stop": "the daemon stops",
        "halt": "the daemon ends at once",
        "scale": f"from now on there are {ask.number} workers",
        "drain": f"the worker of slot {ask.number} drains",
        "restart": f"the worker of slot {ask.number} is replaced",
        "stack": f"the worker of slot {ask.number} shows where it is: in the log, and among the events of /status",
        "log-level": f"log level of {_whose(ask.number)}: {ask.text or 'as configured'}",
        "profile": f"the worker of slot {ask.number} is profiled",
        "memory": f"the worker of slot {ask.number} looks at its memory",
    }[ask.verb]
    if ask.verb == "scale" and state.target.size != ask.number:
        return Answer(ask.ident, "refused", f"there cannot be {ask.number} workers", state.target.number, 0.0)
    return Answer(ask.ident, "accepted", text, pending.generation, 0.0)


def _whose(slot: int) -> str:
    return "all processes" if slot < 0 else f"the worker of slot {slot}"


def outcome(pending: Pending, state: State, now: float) -> Answer | None:
    """Return how what somebody waits for has ended, None while it goes on."""
    result = _outcome(pending, state)
    return result and Answer(pending.ask.ident, *result, pending.generation, round(now - pending.since, 3))


def _outcome(pending: Pending, state: State) -> tuple[str, str] | None:
    match pending.ask.verb:
        case "reload":
            result = _reloaded(pending.generation, state)
        case "scale":
            result = _scaled(pending.ask.number, state)
        case "drain" | "restart":
            result = _restarted(pending, state)
        case "reopen" | "stack" | "log-level" | "profile" | "memory":
            result = "done", begun(pending, state).text
        case _:
            result = None  # `stop` and `upgrade` end with this program
    if result is None and pending.ask.verb != "stop" and state.phase not in RUNNING:
        return "failed", f"the daemon is {state.phase.value}"
    return result


def _reloaded(generation: int, state: State) -> tuple[str, str] | None:
    if state.committed is not None and state.committed.number == generation:
        return "done", f"generation {generation} has replaced the old one{state.findings}"
    if state.target.number < generation:
        return "failed", f"generation {generation} is given up, {state.target.number} goes on: {state.failure}"
    if state.target.number > generation:
        return "failed", f"generation {generation} is superseded by {state.target.number}"
    return None


def _scaled(size: int, state: State) -> tuple[str, str] | None:
    if state.target.size != size:
        return "failed", f"another size has been asked for meanwhile: {state.target.size}"
    ready = {worker.slot for worker in state.workers.values() if worker.state in SERVING}
    more = any(worker.slot >= size for worker in state.workers.values())
    done = ready.issuperset(range(size)) and not more
    return ("done", f"there are {size} workers") if done and state.phase is Phase.SERVING else None


def _restarted(pending: Pending, state: State) -> tuple[str, str] | None:
    slot = pending.ask.number
    here = [worker for worker in state.workers.values() if worker.slot == slot]
    if any(worker.serial < pending.newest for worker in here):
        return None
    if any(worker.state in SERVING for worker in here):
        return "done", f"slot {slot} has another worker"
    return ("failed", f"slot {slot} is not wanted any more") if slot >= state.target.size else None
