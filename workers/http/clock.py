"""`Date` and the access log's time, formatted once a second instead of once a response."""

from __future__ import annotations

import time
from email.utils import formatdate
from math import floor

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]  # %b follows the locale


class Clock:
    """The texts of the current second.

    Attributes:
        server: the value of `Server` (RFC 9110 section 10.2.4); empty: no such field.
        keep_alive_fields: the ready end of a head: `Date`, `Server`, `Connection: keep-alive`, the empty line.
        close_fields: the same with `Connection: close`.
        date: the value of `Date` (RFC 9110 section 5.6.7).
        log_time: local time as the common log format writes it, `[23/Nov/2026:02:19:57 +0000]`.
        iso_time: UTC in ISO 8601, for JSON logs.
    """

    __slots__ = ("close_fields", "date", "iso_time", "keep_alive_fields", "log_time", "second", "server")

    def __init__(self) -> None:
        self.server = "preforkd"
        self.second = 0
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
        self.date = formatdate(second, usegmt=True)
        fields = f"Date: {self.date}\r\n{self.server_line}Connection: "
        self.keep_alive_fields = f"{fields}keep-alive\r\n\r\n".encode()
        self.close_fields = f"{fields}close\r\n\r\n".encode()
        local = time.localtime(second)
        self.log_time = time.strftime(f"[%d/{_MONTHS[local.tm_mon - 1]}/%Y:%H:%M:%S %z]", local)
        self.iso_time = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


clock = Clock()
