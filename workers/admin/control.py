"""Control through a unix socket: who may, and from an HTTP request to the master's answer."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from preforkd.workers.channel import Answer, Ask
from preforkd.workers.examining import KINDS, Order
from preforkd.workers.log import LEVELS

PEER: Final = struct.Struct("3i")
"""`struct ucred`: pid, uid, gid (unix(7))."""
STATUS: Final = {"done": 200, "accepted": 202, "refused": 409, "failed": 409}
_NUMBERED: Final = {
    "scale": "workers",
    "drain": "slot",
    "restart": "slot",
    "stack": "slot",
    "profile": "slot",
    "memory": "slot",
}
VERBS: Final = ("reload", "upgrade", "reopen", "stop", "halt", "log-level", *_NUMBERED)
EXAMINATION: Final = "examination"
"""What `profile` or `memory` has found, or how far it has come."""
CANCEL: Final = "cancel"
"""End one now, with what it has."""
CONFIGURED: Final = "configured"
"""In place of a level: the one that the daemon was configured with."""
SECONDS: Final = {"profile": "10", "memory": "30"}
"""For which a worker is examined, unless something else is asked for."""
MOST_SECONDS: Final = 3600.0
RATE: Final = 100
MOST_RATE: Final = 1000


class ForbiddenError(Exception):
    """Whoever asks may not; the text says why."""


class WrongError(Exception):
    """What is asked makes no sense; the text says why."""


def peer_of(sock: Any, owner: int) -> str:
    """Return who is at the other end of a unix socket, for the log.

    Args:
        sock: the connection.
        owner: the user that may control the daemon, beside root.

    Raises:
        ForbiddenError: it is nobody who may.
    """
    if sock is None or sock.family != socket.AF_UNIX:
        raise ForbiddenError("control is for unix sockets: give --admin unix:PATH")
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        raise ForbiddenError("this system does not say who is at the other end of a socket")
    pid, uid, _gid = PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, option, PEER.size))
    if uid not in (0, owner):
        raise ForbiddenError(f"control is for user {owner} and root, not for user {uid}")
    return f"process {pid} of user {uid}"


def question(ident: int, path: str, by: str) -> Ask:
    """Return what a request asks.

    Args:
        ident: of the question.
        path: of the request: `/control/scale?workers=4&wait=1`.
        by: who asks.

    Raises:
        WrongError: there is no such thing.
    """
    target, _, query = path.partition("?")
    verb, values = target.removeprefix("/control/"), dict(parse_qsl(query))
    if verb not in VERBS:
        raise WrongError(f"there is no /control/{verb}: there are {', '.join((*VERBS, EXAMINATION, CANCEL))}")
    wait = values.get("wait", "0") not in ("", "0")
    if verb == "log-level":
        slot = values.get("slot", "")
        number = -1 if not slot else _number(slot, f"/control/{verb} takes the number of a slot: slot=2")
        return Ask(ident, verb, number, wait, by, _level(values.get("level", "")))
    name = _NUMBERED.get(verb)
    number = _number(values.get(name, ""), f"/control/{verb} needs a number: /control/{verb}?{name}=2") if name else 0
    text = _order(verb, values) if verb in KINDS else ""
    return Ask(ident, verb, number, wait, by, text)


def _number(text: str, wrong: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise WrongError(wrong)
    return int(text)


def _level(name: str) -> str:
    if name not in (*LEVELS, CONFIGURED):
        raise WrongError(
            f"/control/log-level needs a level of {', '.join(LEVELS)}, or {CONFIGURED}: /control/log-level?level=debug"
        )
    return "" if name == CONFIGURED else name


def _order(verb: str, values: Mapping[str, str]) -> str:
    """Return the text of what a worker is asked to do; who gives no number for it finds it by that of the last one."""
    text = values.get("seconds", SECONDS[verb])
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= MOST_SECONDS:
        raise WrongError(f"/control/{verb} takes 0.1 to {MOST_SECONDS:g} seconds: seconds=10")
    wrong = f"/control/{verb} takes 1 to {MOST_RATE} samples a second: rate=100"
    rate = _number(values.get("rate", str(RATE)), wrong)
    if not 1 <= rate <= MOST_RATE:
        raise WrongError(wrong)
    return Order(secrets.randbits(62) + 1, verb, seconds, rate if verb == "profile" else 0).text()


class Questions:
    """The questions that the master has not answered.

    Args:
        send: tells the master something.
    """

    def __init__(self, send: Callable[[Ask], None]) -> None:
        self._send = send
        self._idents = itertools.count(1)
        self._waiting: dict[int, tuple[Ask, asyncio.Future[Answer]]] = {}

    async def ask(self, path: str, by: str) -> Answer:
        """Ask the master, and return its answer.

        Raises:
            WrongError: the path asks nothing.
        """
        ident = next(self._idents)
        asked = question(ident, path, by)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[ident] = asked, future
        try:
            self._send(asked)
            return await future
        finally:
            del self._waiting[ident]

    def answered(self, answer: Answer) -> None:
        """Take an answer of the master."""
        if answer.ident in self._waiting:
            future = self._waiting[answer.ident][1]
            if not future.done():
                future.set_result(answer)

    def end(self) -> None:
        """The master will answer nothing more: its program has been replaced, or has ended."""
        for ident, (asked, future) in self._waiting.items():
            stopped = asked.verb in ("stop", "halt")
            text = "the daemon has ended" if stopped else "the master has ended, or the new program goes on: ask again"
            if not future.done():
                future.set_result(Answer(ident, "done" if stopped else "accepted", text, 0, 0.0))
