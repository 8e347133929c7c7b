"""Messages between a worker and its master: length-prefixed JSON over one socket pair per worker.

The worker says `Hello` (after a preload), `Ready`, `Failed`, `GotTerm`, `Retire` and `Stacks`; the master says
`Pause`, `Resume`, `Drain`, `Reopen`, `Renew` and `LogLevel`. The admin process says `Ask`; the master tells it
`Answer` and `Note`. The end of the stream says that the other side is gone. Times are seconds of the monotonic clock,
which all processes of a machine share.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Final

from preforkd.workers.records import dataclass

LENGTH: Final = struct.Struct("!I")
LIMIT: Final = 1 << 20
"""Bytes in one message at most: a longer text is cut by its sender, a longer message is a broken peer."""
TEXT_LIMIT: Final = 64 << 10


INTERNAL: Final = "preforkd"
"""The stage of a boot in which no code of the app runs."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first word of a worker that was forked by a mold: its master does not know its pid."""

    pid: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The app is imported and started, the worker accepts."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker could not boot: at which stage, why in one line, and the app's own traceback if it raised."""

    stage: str
    text: str
    details: str = ""


@dataclass(frozen=True, slots=True)
class GotTerm:
    """The worker has got a TERM that its master has not sent, and serves until it is told what that means.

    The signal may have been for the whole process group: then the master stops the daemon, and its clock counts. Else
    it replaces this worker.
    """


@dataclass(frozen=True, slots=True)
class Retire:
    """The worker asks to be replaced, and serves until it is."""

    reason: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop accepting and drain until `deadline`, but stay: a new generation is being tried."""

    deadline: float


@dataclass(frozen=True, slots=True)
class Resume:
    """Accept again: the new generation was not good."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Accept until `accept_until`, answer with `Connection: close` from now on, be gone at `deadline`.

    `final`: the whole daemon stops, so what is queued on the listeners is this worker's to take.
    """

    accept_until: float
    deadline: float
    final: bool


@dataclass(frozen=True, slots=True)
class Reopen:
    """Open the log files anew."""


@dataclass(frozen=True, slots=True)
class Renew:
    """Speak TLS with what is in the shared memory now."""


@dataclass(frozen=True, slots=True)
class LogLevel:
    """Log from that level on; empty: from the configured one."""

    level: str


@dataclass(frozen=True, slots=True)
class Stacks:
    """Where the worker is: the stacks of its main thread and of its tasks, written because it was asked to."""

    text: str


@dataclass(frozen=True, slots=True)
class Ask:
    """The admin process wants something done, for somebody who may.

    Attributes:
        ident: of the question: the answer has it, too.
        verb: what: see `preforkd.daemon.control`.
        number: of workers, or of a slot, where the verb has one; `log-level`: -1 without a slot.
        wait: the answer is to come when it is done, not when it has begun.
        by: who wants it, for the log.
        text: what else the verb needs: a level, or how a worker is to be examined.
    """

    ident: int
    verb: str
    number: int
    wait: bool
    by: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What has come of an `Ask`.

    Attributes:
        ident: of the question.
        result: `done`, `accepted` (it has begun), `refused` (nothing has begun) or `failed`.
        text: one line more, for people.
        generation: that it is about; 0: none.
        seconds: that it has taken.
    """

    ident: int
    result: str
    text: str
    generation: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Note:
    """Something has happened: a line of the master's log.

    Attributes:
        when: seconds since the epoch.
        level: as in the log.
        text: as in the log.
    """

    when: float
    level: str
    text: str


Message = (
    Hello | Ready | Failed | GotTerm | Retire | Stacks
    | Pause | Resume | Drain | Reopen | Renew | LogLevel
    | Ask | Answer | Note
)  # fmt: skip
_TYPES: Final = {
    kind.__name__: kind
    for kind in (
        Hello, Ready, Failed, GotTerm, Retire, Stacks, Pause, Resume, Drain, Reopen, Renew, LogLevel,
        Ask, Answer, Note,
    )
}  # fmt: skip


_FITTING: Final = {"float": (float, int), "int": (int,), "str": (str,), "bool": (bool,)}


class ChannelError(Exception):
    """The other side has sent something that is not a message."""


def encode(message: Message) -> bytes:
    """Return the bytes of a message; long texts are cut."""
    values = {k: v[:TEXT_LIMIT] if isinstance(v, str) else v for k, v in asdict(message).items()}
    body = json.dumps([type(message).__name__, values]).encode()
    return LENGTH.pack(len(body)) + body


class Decoder:
    """Takes the bytes of a stream as they come and gives the messages in them."""

    def __init__(self, pending: bytes = b"") -> None:
        self._buffer = bytearray(pending)

    @property
    def pending(self) -> bytes:
        """The beginning of a message whose end has not come yet."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield each message that `data` completes.

        Raises:
            ChannelError: the bytes are not those of a message.
        """
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            if length > LIMIT:
                raise ChannelError(f"a message of {length} bytes, more than {LIMIT}")
            end = LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[LENGTH.size : end])
            del self._buffer[:end]
            yield _decode(body)


def _decode(body: bytes) -> Message:
    try:
        name, values = json.loads(body)
        message: Message = _TYPES[name](**values)
    except (ValueError, KeyError, TypeError) as exc:
        raise ChannelError(f"not a message: {body[:80]!r}") from exc
    # The app runs in the worker and could write anything here, and the master reckons with it.
    if not all(_fits(getattr(message, field.name), str(field.type)) for field in fields(message)):
        raise ChannelError(f"not a message: {body[:80]!r}")
    return message


def _fits(value: object, kind: str) -> bool:
    return type(value) in _FITTING[kind] and (not isinstance(value, float) or math.isfinite(value))
