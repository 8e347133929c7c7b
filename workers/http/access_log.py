"""The access log: lines collected and written once per turn of the loop; `logging` costs 10 us a record."""

from __future__ import annotations

import asyncio
import json
import os
import select
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from preforkd.workers.http.access_log_format import (
    DEFAULT_FORMAT,
    Environ,
    WantedFields,
    compile_format,
    needs_seconds,
    protocol_of,
    text_of,
    user_of,
)
from preforkd.workers.http.clock import clock

if TYPE_CHECKING:
    from preforkd.workers.http.message import RequestMessage
    from preforkd.workers.http.response import Response


_JSON_FIELDS = WantedFields(b"authorization", b"referer", b"user-agent")


def _json_text(value: str | None) -> str | None:
    """Bytes that are not UTF-8 as `\\xff`: strict parsers refuse lone surrogates (RFC 8259 section 8.2)."""
    if value is None or value.isascii():
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _json_field(value: bytes | None) -> str | None:
    return None if value is None else _json_text(text_of(value))


def json_line(
    message: RequestMessage | None,
    response: Response | None,
    environ: Environ,  # noqa: ARG001 -- the signature of line makers
    seconds: float,
    remote: str,
) -> str:
    """Make a line of JSON; values that are not there are null."""
    record: dict[str, object] = {"time": clock.iso_time, "remote": remote}
    if message is None:
        record.update(dict.fromkeys(("user", "method", "path", "query", "protocol", "referer", "user_agent")))
    else:
        path, _, query = message.path.partition("?")
        field = _JSON_FIELDS.of(message).get
        record.update(
            user=_json_text(user_of(field(b"authorization"))),
            method=message.method,
            path=path,
            query=query or None,
            protocol=protocol_of(message),
            referer=_json_field(field(b"referer")),
            user_agent=_json_field(field(b"user-agent")),
        )
    record.update(
        status=response.status if response is not None else None,
        bytes=response.output_length if response is not None else 0,
        seconds=round(seconds, 6),
        pid=os.getpid(),
    )
    return json.dumps(record, separators=(",", ":"))


class AccessLog:
    """Where the access log of a worker goes.

    Args:
        target: an open file descriptor, or the path of a file to append to.
        access_log_format: see `compile_format()`.
        as_json: lines of JSON instead; the format is not used.
        loop: the loop whose turns the lines are collected in; None: the running one.

    Attributes:
        dropped: lines that could not be written (disk full, the reader of the pipe has gone).
        needs_seconds: the lines say how long a request took.

    Raises:
        ValueError: an atom of the format is unknown.
        OSError: the file cannot be opened.
    """

    def __init__(
        self,
        target: int | str | Path,
        access_log_format: str = DEFAULT_FORMAT,
        as_json: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._make = json_line if as_json else compile_format(access_log_format)
        self.needs_seconds = as_json or needs_seconds(access_log_format)
        self._loop = loop
        self._lines: list[str] = []
        self._path = None if isinstance(target, int) else Path(target)
        self._fd = target if isinstance(target, int) else self._open()
        self._examine()
        self.dropped = 0

    def _open(self) -> int:
        return os.open(str(self._path), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _examine(self) -> None:
        # Several processes write to one pipe: only up to PIPE_BUF bytes are sure not to be torn apart (pipe(7)).
        self._atomic = 0 if stat.S_ISREG(os.fstat(self._fd).st_mode) else select.PIPE_BUF

    def log(
        self,
        message: RequestMessage | None,
        response: Response | None,
        environ: Environ,
        seconds: float,
        remote: str,
    ) -> None:
        """Add the line of a request.

        Args:
            message: the request, None when it was refused before it had one.
            response: None when it got none.
            environ: values for `%({name}e)s`.
            seconds: that it took.
            remote: the client's address.
        """
        if not self._lines:
            (self._loop or asyncio.get_running_loop()).call_soon(self.flush)
        self._lines.append(self._make(message, response, environ, seconds, remote))

    def flush(self) -> None:
        """Write what has been collected."""
        lines = self._lines
        if not lines:
            return
        self._lines = []
        data = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
        if self._atomic and len(data) > self._atomic:
            for line in data.splitlines(keepends=True):
                self._write(line, 1)
        else:
            self._write(data, len(lines))

    def _write(self, data: bytes, lines: int) -> None:
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:  # a full disk or a pipe whose reader has gone must not stop the service
            self.dropped += lines

    def reopen(self) -> None:
        """Open the file by its path again, after a rotation; a descriptor stays.

        Raises:
            OSError: the file cannot be opened; the old one stays in use.
        """
        self.flush()
        if self._path is not None:
            fd = self._open()
            os.close(self._fd)
            self._fd = fd
            self._examine()

    def close(self) -> None:
        """Write the rest and close a file that was opened here."""
        self.flush()
        if self._path is not None and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
