"""The id by which a request is known: of the trusted proxy that has given it one, else ours, a UUID of version 7.

The app finds it in the field of the request, whatever was sent in it; the client in that of the response; both logs
have it. So a line of the access log, one of the app's and what a user has been shown can be put together.
"""

from __future__ import annotations

import os
import re
from time import time_ns
from typing import Final, Protocol

from preforkd.workers.http import compiled
from preforkd.workers.http.message import RequestMessage
from preforkd.workers.http.names import HAS_ID, ODDLY, PLACE_OF_ID, REQUEST_IDS, SEVERAL_IDS

try:
    from preforkd.workers._ids import Ids
except ImportError:  # there was no compiler
    Ids = None  # type: ignore[assignment, misc]  # of the class, where there is one

SIZE_MAX: Final = 128
"""Characters of an id that is taken from a proxy."""
_POOL: Final = 256
"""Ids whose random digits are asked from the system at once: a call for each would cost more than all the rest."""
_DIGITS: Final = 19
_WELL_FORMED = re.compile(rb"[!-~]{1,%d}" % SIZE_MAX).fullmatch
_VARIANTS: Final = dict(zip("0123456789abcdef", 4 * "89ab", strict=True))  # RFC 9562 section 4.1: 10, two bits
_UNUSUAL: Final = ODDLY | SEVERAL_IDS
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?").fullmatch


class UsualIds(Protocol):
    """The ids of requests that have none, or one good one; in two forms: `PureIds`, and `Ids` of `_ids.c`."""

    def new(self) -> str:
        """Return a new id, a UUID of version 7."""

    def give(self, message: RequestMessage, /) -> None:
        """Give an id to a request that has none."""

    def take(self, message: RequestMessage, believes: bool, /) -> bool:
        """Take the id of a request, if it is to be believed, or give it one; false: it is an unusual one."""


class PureIds:
    """`UsualIds` without a compiler.

    Args:
        name: of the field, in lower case.
        start: of its line, up to the value.
        is_noted: requests that have the field are noted.
    """

    __slots__ = ("_at", "_is_noted", "_millisecond", "_name", "_random", "_start", "_time")

    def __init__(self, name: bytes, start: bytes, is_noted: bool) -> None:
        self._name = name
        self._start = start
        self._is_noted = is_noted
        self._random, self._at = "", 0
        self._millisecond, self._time = 0, ""

    def new(self) -> str:
        """Return a UUID of version 7 (RFC 9562 section 5.7): milliseconds since the epoch, then 74 random bits."""
        # Flat: most requests pass here.
        now = time_ns() // 1_000_000
        if now != self._millisecond:
            self._millisecond = now
            digits = f"{now:012x}"
            self._time = f"{digits[:8]}-{digits[8:]}-7"
        at = self._at
        if at == len(self._random):
            self._random, at = os.urandom(_POOL * _DIGITS).hex(), 0
        self._at = end = at + _DIGITS
        random = self._random[at:end]
        return f"{self._time}{random[:3]}-{_VARIANTS[random[3]]}{random[4:7]}-{random[7:]}"

    def give(self, message: RequestMessage) -> None:
        """Give an id to a request that has none."""
        text = message.request_id = self.new()
        value = text.encode()
        message.fields.append((self._name, value))
        message.id_line = self._start + value + b"\r\n"

    def take(self, message: RequestMessage, believes: bool) -> bool:
        """Take the id of a request, if it is to be believed, or give it one; false: it is an unusual one."""
        noted = message.noted
        if not noted & HAS_ID:
            if self._is_noted:
                self.give(message)
            return self._is_noted
        if noted & _UNUSUAL or not believes:
            return False
        place = noted >> PLACE_OF_ID
        fields = message.fields
        if place >= len(fields) or fields[place][0] != self._name:  # it stands elsewhere by now
            return False
        value = fields[place][1]
        if not _WELL_FORMED(value):
            return False
        message.request_id = value.decode()
        message.id_line = self._start + value + b"\r\n"
        return True


class RequestIds:
    """Gives each request its id.

    Args:
        header: the name of the field, as it is sent.

    Attributes:
        new: returns a new id.
        take_usual: `UsualIds.take()`; what it leaves is for `take_unusual()`.
    """

    __slots__ = ("_give", "_is_noted", "_name", "_start", "new", "take_usual")

    def __init__(self, header: str) -> None:
        name = self._name = header.lower().encode("ascii")
        start = self._start = header.encode("ascii") + b": "
        is_noted = self._is_noted = name in REQUEST_IDS
        usual: UsualIds = PureIds(name, start, is_noted)
        if Ids is not None and compiled.form() == "compiled":
            usual = Ids(RequestMessage, name, start, is_noted)
        self.new, self._give, self.take_usual = usual.new, usual.give, usual.take

    def take(self, message: RequestMessage, believes: bool) -> None:
        """Take the id that a request has, or give it one.

        Args:
            message: the request.
            believes: it comes from a trusted proxy.
        """
        if not self.take_usual(message, believes):
            self.take_unusual(message, believes)

    def take_unusual(self, message: RequestMessage, believes: bool) -> None:
        """Take what `take_usual()` has left; arguments as for `take()`."""
        name = self._name
        given = [value for one, value in message.fields if one == name]
        if message.noted & ODDLY or not self._is_noted:
            message.take_out(lambda one: b"_" in one and one.replace(b"_", b"-") == name)
        if believes and len(given) == 1 and _WELL_FORMED(given[0]):
            message.request_id = given[0].decode("ascii")
            message.id_line = self._start + given[0] + b"\r\n"
            return
        if given:
            message.take_out(lambda one: one == name)
        self._give(message)


def trace_of(traceparent: bytes | None) -> tuple[str, str] | None:
    """Return the ids of the trace and of the caller's span (W3C Trace Context section 3.2); None: there are none."""
    match = _TRACEPARENT(traceparent) if traceparent else None
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[4] is not None):
        return None
    trace, span = match[2].decode(), match[3].decode()
    return (trace, span) if trace.strip("0") and span.strip("0") else None
