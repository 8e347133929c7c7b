"""Looking into a live worker because somebody asks: how that is asked for, and where the answer is left.

There is one such order at a time in a daemon. Its master writes it into the area behind the rows of the scoreboard and
sends `SIGNAL`, which reaches a worker whose event loop is blocked, too. A thread that is begun then
(`preforkd.workers.examination`) leaves JSON, compressed, in the same area, where the admin process reads it. Before
that there is neither a thread nor a page of that memory: what nobody asks for costs nothing.
"""

from __future__ import annotations

import contextlib
import json
import signal
import zlib
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, Final

from preforkd.workers.records import dataclass
from preforkd.workers.scoreboard import AREA_BYTES, Scoreboard

SIGNAL: Final = signal.SIGURG
"""By default a process ignores it, so a worker that has no handler yet survives it."""
KINDS: Final = ("profile", "memory")
BEGIN_WITHIN: Final = 10.0
"""Seconds in which a worker begins, unless it is blocked outside of Python."""
REPORT_WITHIN: Final = 60.0
"""Seconds for the answer, after the time that was asked for; then another order may be given."""
MOST_FOUND: Final = 64 << 20
"""Bytes of an answer, when it is not compressed any more."""
_DATA: Final = 4096
"""Where the answer begins in the area."""


class Cell(IntEnum):
    """The area's first cells."""

    IDENT = 0
    SERIAL = 1
    """Of the worker that is meant, plus 1."""
    KIND = 2
    """An index of `KINDS`."""
    SECONDS = 3
    """Nanoseconds."""
    RATE = 4
    ASKED = 5
    """Nanoseconds of the monotonic clock."""
    STATE = 6
    """A `Stage`; written last."""
    CANCELLED = 7
    """The ident of an order that nobody waits for any more."""
    LENGTH = 8
    """Bytes of the answer."""


class Stage(IntEnum):
    """How far an order has come."""

    NONE = 0
    ASKED = 1
    RUNNING = 2
    DONE = 3
    FAILED = 4
    """The answer is a text that says why."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for.

    Attributes:
        ident: of the order.
        kind: one of `KINDS`.
        seconds: for which it is looked at.
        rate: `profile`: samples a second.
    """

    ident: int
    kind: str
    seconds: float
    rate: int = 0

    def text(self) -> str:
        """Return it as a text for the channel."""
        return json.dumps([self.ident, self.kind, self.seconds, self.rate])

    @classmethod
    def of(cls, text: str) -> Order:
        """Return the order that a text is; raises ValueError when it is none."""
        try:
            ident, kind, seconds, rate = json.loads(text)
            order = cls(int(ident), KINDS[KINDS.index(kind)], float(seconds), int(rate))
        except TypeError as exc:
            raise ValueError(f"no order: {text!r}") from exc
        if not 0 < order.ident < 1 << 63 or not 0 < order.seconds <= 1e6 or not 0 <= order.rate <= 1e6:
            raise ValueError(f"no order: {text!r}")
        return order


class Area:
    """The place in the shared memory.

    Args:
        board: the scoreboard.
    """

    def __init__(self, board: Scoreboard) -> None:
        self._board = board

    def __getitem__(self, cell: Cell) -> int:
        value: int = self._board.area[cell]
        return value

    def __setitem__(self, cell: Cell, value: int) -> None:
        self._board.area[cell] = value

    @property
    def order(self) -> Order:
        """What was asked for last."""
        kind = KINDS[min(self[Cell.KIND], len(KINDS) - 1)]
        return Order(self[Cell.IDENT], kind, self[Cell.SECONDS] / 1e9, self[Cell.RATE])

    def ask(self, serial: int, order: Order, now: float) -> None:
        """Ask for something, instead of what was asked for before: for the master."""
        self[Cell.STATE] = Stage.NONE
        self._board.clear_area()
        self[Cell.IDENT] = order.ident
        self[Cell.SERIAL] = serial + 1
        self[Cell.KIND] = KINDS.index(order.kind)
        self[Cell.SECONDS] = int(order.seconds * 1e9)
        self[Cell.RATE] = order.rate
        self[Cell.ASKED] = int(now * 1e9)
        self[Cell.STATE] = Stage.ASKED

    def serves(self, now: float) -> int | None:
        """Return the serial of the worker that is at work on an order, None when another may be given."""
        since = now - self[Cell.ASKED] / 1e9
        asked = self[Cell.STATE] == Stage.ASKED and since < BEGIN_WITHIN
        running = self[Cell.STATE] == Stage.RUNNING and since < self[Cell.SECONDS] / 1e9 + REPORT_WITHIN
        return self[Cell.SERIAL] - 1 if asked or running else None

    def wanted(self, ident: int) -> bool:
        """Whether that order still counts."""
        return self[Cell.IDENT] == ident != self[Cell.CANCELLED]

    def leave(self, ident: int, stage: Stage, data: bytes) -> None:
        """Leave an answer, unless another order has come since: for the worker."""
        if self[Cell.IDENT] != ident:
            return
        if len(data) > AREA_BYTES - _DATA:
            stage, data = Stage.FAILED, b"what was found is more than there is room for: ask for less"
        self._board.area.cast("B")[_DATA : _DATA + len(data)] = data
        self[Cell.LENGTH] = len(data)
        self[Cell.STATE] = stage

    def found(self) -> bytes:
        """Return the answer that was left."""
        return bytes(self._board.area.cast("B")[_DATA : _DATA + min(self[Cell.LENGTH], AREA_BYTES - _DATA)])


def unpacked(data: bytes) -> dict[str, Any]:
    """Return what was found; raises ValueError when it is nothing of the kind: the app could write anything there."""
    try:
        packer = zlib.decompressobj()
        text = packer.decompress(data, MOST_FOUND)
        if packer.unconsumed_tail:
            raise ValueError(f"more than {MOST_FOUND} bytes")
        found = json.loads(text)
    except zlib.error as exc:
        raise ValueError(str(exc)) from exc
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004 - one error for all
    return found


def progress(area: Area, ident: int, living: Iterable[int], now: float) -> dict[str, Any]:
    """Return how an order is getting on, for who has given it.

    Args:
        area: where.
        ident: of the order.
        living: the serials of all workers.
        now: seconds of the monotonic clock.

    Returns:
        `state` (`asked`, `running`, `done` or `failed`), `text`, and of one that is done `found`.
    """
    since = max(now - area[Cell.ASKED] / 1e9, 0.0)
    stage, serial = area[Cell.STATE], area[Cell.SERIAL] - 1
    if area[Cell.IDENT] != ident or stage == Stage.NONE:
        return _failed("there is no such examination: another has begun since, or the daemon is another")
    if stage == Stage.FAILED:
        return _failed(area.found().decode(errors="replace"))
    if stage == Stage.DONE:
        with contextlib.suppress(ValueError):
            return {"state": "done", "text": "", "found": unpacked(area.found())}
        return _failed("what the worker has left cannot be read")
    if serial not in living:
        return _failed("the worker has ended meanwhile; the log says why")
    if stage == Stage.ASKED and since > BEGIN_WITHIN:
        return _failed(f"the worker has not begun for {BEGIN_WITHIN:g} s: it is stopped, or blocked outside of Python")
    return {"state": "running" if stage == Stage.RUNNING else "asked", "text": "", "seconds": round(since, 3)}


def _failed(text: str) -> dict[str, Any]:
    return {"state": "failed", "text": text}
