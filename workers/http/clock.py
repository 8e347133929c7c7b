"""`Date` and the access log's time, formatted once a second instead of once a response."""

from __future__ import annotations

import time
from bisect import bisect_right
from math import floor

# %a and %b follow the locale.
_DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


_WEEK = 7 * 86400
_WEEKS = 10 * 52
"""For which the offsets are looked up ahead: no worker lives longer."""


class Zone:
    """The local time zone as it is now, with its changes in the years to come.

    An app may set another one for its process (Django does: `time.tzset()`), and then `time.localtime()` tells that
    one's time. The C library tells a zone by nothing but its answers, whatever form `TZ` has, so they are asked ahead.

    Args:
        now: seconds since the epoch.
    """

    __slots__ = ("_changes", "_offsets")

    def __init__(self, now: int) -> None:
        self._changes: list[int] = []
        self._offsets = [_local_offset(now)]
        for week in range(now, now + _WEEKS * _WEEK, _WEEK):
            offset = _local_offset(week + _WEEK)
            if offset != self._offsets[-1]:
                self._changes.append(_change_within(week, week + _WEEK))
                self._offsets.append(offset)

    def offset(self, second: int) -> int:
        """Return how many seconds local time is ahead of UTC.

        Args:
            second: since the epoch.
        """
        return self._offsets[bisect_right(self._changes, second)]


def _local_offset(second: int) -> int:
    return time.localtime(second).tm_gmtoff


def _change_within(before: int, after: int) -> int:
    """Return the first second of the offset of `after`, which `before` has not."""
    offset = _local_offset(after)
    while after - before > 1:
        middle = (before + after) // 2
        if _local_offset(middle) == offset:
            after = middle
        else:
            before = middle
    return after


class Clock:
    """The texts of the current second.

    Attributes:
        server: the value of `Server` (RFC 9110 section 10.2.4); empty: no such field.
        keep_alive_fields: the ready end of a head: `Date`, `Server`, `Connection: keep-alive`, the empty line.
        close_fields: the same with `Connection: close`.
        date: the value of `Date` (RFC 9110 section 5.6.7).
        log_time: as the common log format writes it, `[23/Nov/2026:02:19:57 +0000]`, in the zone that was the local one
            when this was made.
        iso_time: UTC in ISO 8601, for JSON logs.
    """

    __slots__ = ("close_fields", "date", "iso_time", "keep_alive_fields", "log_time", "second", "server", "zone")

    def __init__(self) -> None:
        self.server = "preforkd"
        self.second = 0
        self.zone = Zone(floor(time.time()))
        self.update(time.time())

    def name_server(self, server: str) -> None:
        """Have all responses of this process say another `Server`; empty: none."""
        self.server = server
        second, self.second = self.second, 0
        self.update(second)

    @property
    def server_line(self) -> str:
        """`Server` as a line of a head."""
        return f"Server: {self.server}\r\n" if self.server else ""

    def update(self, now: float) -> None:
        """Format the texts anew if the second is another.

        Args:
            now: seconds since the epoch.
        """
        second = floor(now)
        if second == self.second:
            return
        self.second = second
        utc = time.gmtime(second)
        day, month = _DAYS[utc.tm_wday], _MONTHS[utc.tm_mon - 1]
        self.date = time.strftime(f"{day}, %d {month} %Y %H:%M:%S GMT", utc)
        fields = f"Date: {self.date}\r\n{self.server_line}Connection: "
        self.keep_alive_fields = f"{fields}keep-alive\r\n\r\n".encode()
        self.close_fields = f"{fields}close\r\n\r\n".encode()
        offset = self.zone.offset(second)
        local = time.gmtime(second + offset)
        sign, (hours, minutes) = "-" if offset < 0 else "+", divmod(abs(offset) // 60, 60)
        month = _MONTHS[local.tm_mon - 1]
        self.log_time = time.strftime(f"[%d/{month}/%Y:%H:%M:%S {sign}{hours:02d}{minutes:02d}]", local)
        self.iso_time = time.strftime("%Y-%m-%dT%H:%M:%SZ", utc)


clock = Clock()
