"""The access log: lines collected and written once per turn of the loop; `logging` costs 10 us a record."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from preforkd.workers.http import compiled
from preforkd.workers.http.access_log_format import (
    DEFAULT_FORMAT,
    NOT_SENT,
    Environ,
    LineMaker,
    WantedFields,
    compile_format,
    needs_seconds,
    protocol_of,
    text_of,
    user_of,
)
from preforkd.workers.http.clock import clock
from preforkd.workers.log_lines import coloured
from preforkd.workers.output import FINISH, Losses, Output, packed
from preforkd.workers.request_id import trace_of
from preforkd.workers.ways import Way, way_to, way_to_file

if TYPE_CHECKING:
    from preforkd.workers.http.message import RequestMessage
    from preforkd.workers.http.response import Response


LOGGER = logging.getLogger("preforkd.access")
RETRY: Final = 0.01
"""Seconds after which what could not be written is tried again; the double of it when nothing has gone out then."""
LONGEST_RETRY: Final = 0.25

_JSON_FIELDS = WantedFields(b"authorization", b"referer", b"user-agent", b"traceparent")

_OF_REQUEST = (
    "user", "method", "path", "query", "protocol", "referer", "user_agent", "request_id", "trace_id", "span_id"
)  # fmt: skip


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
        record.update(dict.fromkeys(_OF_REQUEST))
    else:
        path, _, query = message.path.partition("?")
        field = _JSON_FIELDS.of(message).get
        trace = trace_of(field(b"traceparent"))
        record.update(
            user=_json_text(user_of(field(b"authorization"))),
            method=message.method,
            path=path,
            query=query or None,
            protocol=protocol_of(message),
            referer=_json_field(field(b"referer")),
            user_agent=_json_field(field(b"user-agent")),
            request_id=message.request_id or None,
            trace_id=trace[0] if trace is not None else None,
            span_id=trace[1] if trace is not None else None,
        )
    record.update(
        status=response.status if response is not None else NOT_SENT,
        bytes=response.output_length if response is not None else 0,
        cut=response.cut if response is not None else True,
        seconds=round(seconds, 6),
        pid=os.getpid(),
    )
    return json.dumps(record, separators=(",", ":"))


def _in_colours(make: LineMaker) -> LineMaker:
    def line(
        message: RequestMessage | None, response: Response | None, environ: Environ, seconds: float, remote: str
    ) -> str:
        status = response.status if response is not None else NOT_SENT
        return coloured(make(message, response, environ, seconds, remote), status)

    return line


def _log_unless(
    skip: frozenset[str],
    log: Callable[..., None],
    message: RequestMessage | None,
    response: Response | None,
    environ: Environ,
    seconds: float,
    remote: str,
) -> None:
    if message is None or message.path.partition("?")[0] not in skip:
        log(message, response, environ, seconds, remote)


class AccessLog:
    """Where the access log of a worker goes.

    Args:
        target: an open file descriptor, a way to one, or the path of a file to append to.
        access_log_format: see `compile_format()`.
        as_json: lines of JSON instead; the format is not used.
        loop: the loop whose turns the lines are collected in; None: the running one.
        logger: is told of lines that are lost.
        skip: paths, without the query, whose requests have no line.
        colours: lines of text are in the colour of their status.

    Attributes:
        needs_seconds: the lines say how long a request took.

    Raises:
        ValueError: an atom of the format is unknown.
        OSError: the file cannot be opened.
    """

    def __init__(
        self,
        target: int | str | Path | Way,
        access_log_format: str = DEFAULT_FORMAT,
        as_json: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
        logger: logging.Logger = LOGGER,
        skip: Collection[str] = (),
        colours: bool = False,
    ) -> None:
        self._make = json_line if as_json else compile_format(access_log_format, compiled.log_parts())
        if colours and not as_json:
            self._make = _in_colours(self._make)
        if skip:  # an attribute of its own: it costs nothing where it is not wanted
            self.log = partial(_log_unless, frozenset(skip), self.log)  # type: ignore[method-assign]
        self.needs_seconds = as_json or needs_seconds(access_log_format)
        self._loop = loop
        self._logger = logger
        self._lines: list[str] = []
        self._path = Path(target) if isinstance(target, str | Path) else None
        if isinstance(target, int):
            target = way_to(target)
        self._output = Output(
            way_to_file(self._path) if self._path is not None else target,  # type: ignore[arg-type]  # a way, then
            Losses("the access log", str(self._path or "standard output")),
        )
        self._again: asyncio.TimerHandle | None = None
        self._pause = RETRY

    @property
    def lost(self) -> int:
        """Lines that could not be written since the start, and for which there was no room to keep them."""
        return self._output.lost

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
        """Write what has been collected, or keep it; never waits."""
        lines = self._lines
        if not lines:
            return
        self._lines = []
        output = self._output
        data = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
        if len(data) <= output.whole:
            output.write(data, len(lines))
        else:
            for piece, number in packed(data.splitlines(keepends=True), output.whole):
                output.write(piece, number)
        if output.error is not None and self._again is None:
            self._try_again_later()

    def _try_again_later(self) -> None:
        """It is a timer that looks whether it can be written again: a loop cannot wait for room on a disk."""
        self._say()
        self._again = (self._loop or asyncio.get_running_loop()).call_later(self._pause, self._try_again)
        self._pause = min(2 * self._pause, LONGEST_RETRY)

    def _try_again(self) -> None:
        self._again = None
        waiting = self._output.size
        if self._output.flush():
            self._pause = RETRY
            self._say()
            return
        if self._output.size < waiting:
            self._pause = RETRY
        self._try_again_later()

    def _say(self) -> None:
        news = self._output.news()
        if news is not None:
            self._logger.warning("%s", news)

    def reopen(self) -> None:
        """Open the file by its path again, after a rotation; a descriptor stays.

        Raises:
            OSError: the file cannot be opened; the old one stays in use.
        """
        self.flush()
        if self._path is not None:
            self._output.redirect(way_to_file(self._path))

    def close(self) -> None:
        """Write the rest, for which this waits a second at most, and close what was opened here."""
        self.flush()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._output.waits:
            self._output.finish(FINISH)
            self._output.error = None
            self._say()
        if self._path is not None:
            self._output.close()
