"""The access log: lines collected and written once per turn of the loop.

`logging` costs 10 us a record; a line here costs under 2. Every value that a client can choose is escaped, so that none
can end its field or its line.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import stat
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preforkd.workers.http.clock import clock

if TYPE_CHECKING:
    from preforkd.workers.http.message import RawHeaders, RequestMessage
    from preforkd.workers.http.response import Response

DEFAULT_FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'

Environ = Mapping[str, object] | None
# What a line is made of; an atom looks at one of them, and is `-` where that is None.
Sources = tuple["RequestMessage | None", "Response | None", Environ, float, str]
_REQUEST, _RESPONSE, _ENVIRON, _SECONDS, _REMOTE = range(5)
Atom = tuple[int, Callable[[Any], str]]
LineMaker = Callable[[Sources], str]

_ATOM = re.compile(r"%(?:\(([^()]*)\)s|%)?")
_HEADER_ATOM = re.compile(r"\{([^{}]+)\}([ioe])")


def escape(value: str) -> str:
    """Return `value` so that it cannot leave its quotes or its line."""
    if value.isprintable() and '"' not in value and "\\" not in value:
        return value
    return "".join(map(_escape_character, value))


def _escape_character(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _request_line(message: RequestMessage) -> str:
    # The parser admits printable ASCII only: what is left to escape in a target are these two.
    path = message.path
    if '"' in path or "\\" in path:
        path = escape(path)
    return f"{message.method} {path} HTTP/{message.version[0]}.{message.version[1]}"


# Fields that were looked for in a remembered head (the parser hands out the same tuple again), escaped: found once.
_FOUND: dict[int, tuple[RawHeaders, dict[str, str]]] = {}
_FOUND_MAX = 256


def request_field(message: RequestMessage, name: str) -> str | None:
    """Return a field of the request as text; a dictionary of all fields would cost more than looking for two."""
    wanted = name.lower().encode("latin-1", "replace")
    for key, value in message.raw_headers:
        if len(key) == len(wanted) and key.lower() == wanted:
            return value.strip(b" \t").decode("utf-8", "surrogateescape")
    return None


def _field_atom(name: str) -> Atom:
    def atom(message: RequestMessage) -> str:
        raw = message.raw_headers
        found = _FOUND.get(id(raw))
        if found is None or found[0] is not raw:
            if len(_FOUND) >= _FOUND_MAX:
                _FOUND.clear()
            found = _FOUND[id(raw)] = raw, {}
        text = found[1].get(name)
        if text is None:
            text = found[1][name] = escape(request_field(message, name) or "-")
        return text

    return _REQUEST, atom


_ATOMS: dict[str, Atom] = {
    "h": (_REMOTE, str),  # l and u are always "-": a part of the template
    "t": (_REMOTE, lambda _: clock.log_time),
    "r": (_REQUEST, _request_line),
    "m": (_REQUEST, lambda message: escape(message.method)),
    "U": (_REQUEST, lambda message: escape(message.path.partition("?")[0])),
    "q": (_REQUEST, lambda message: escape(message.path.partition("?")[2])),
    "H": (_REQUEST, lambda message: f"HTTP/{message.version[0]}.{message.version[1]}"),
    "s": (_RESPONSE, lambda response: str(response.status)),
    "b": (_RESPONSE, lambda response: str(response.output_length or "-")),
    "B": (_RESPONSE, lambda response: str(response.output_length)),
    "f": _field_atom("referer"),
    "a": _field_atom("user-agent"),
    "T": (_SECONDS, lambda seconds: str(int(seconds))),
    "M": (_SECONDS, lambda seconds: str(int(seconds * 1000))),
    "D": (_SECONDS, lambda seconds: str(int(seconds * 1_000_000))),
    "L": (_SECONDS, lambda seconds: f"{seconds:.6f}"),
    "p": (_REMOTE, lambda _: f"<{os.getpid()}>"),
}


def _header_atom(name: str, kind: str) -> Atom:
    if kind == "i":
        return _field_atom(name)
    if kind == "o":
        return _RESPONSE, lambda response: escape(response.headers.get(name, "-"))
    return _ENVIRON, lambda environ: escape(str(environ.get(name, "-")))


@lru_cache(maxsize=32)
def compile_format(access_log_format: str) -> LineMaker:
    """Turn a format into a function that makes lines (without the line feed).

    Args:
        access_log_format: text with atoms `%(X)s`: h client, l and u `-`, t time, r request line, m method, U path,
            q query, H protocol, s status, b size or `-`, B size, f referer, a user agent, T seconds, M milliseconds,
            D microseconds, L seconds with six digits, p process; `{name}i`, `{name}o`, `{name}e`: a field of the
            request, of the response, a value of the environ. `%%` is a percent sign.

    Raises:
        ValueError: an atom is unknown.
    """
    template: list[str] = []
    atoms: list[Atom] = []
    position = 0
    for match in _ATOM.finditer(access_log_format):
        template.append(access_log_format[position : match.start()])
        position = match.end()
        if match[0] == "%%":
            template.append("%%")
            continue
        if match[1] in ("l", "u"):
            template.append("-")
            continue
        atom = _find_atom(match[1])
        if atom is None:
            raise ValueError(
                f"unknown atom {match[0]!r} at position {match.start()} of the access log format; known are "
                + " ".join(
                    f"%({name})s" for name in ["h", "l", "u", *list(_ATOMS)[1:], "{name}i", "{name}o", "{name}e"]
                )
            )
        template.append("%s")
        atoms.append(atom)
    template.append(access_log_format[position:])
    text = "".join(template)

    def make(sources: Sources) -> str:
        if sources[_REQUEST] is None or sources[_RESPONSE] is None or needs_environ:
            return text % tuple(["-" if sources[index] is None else atom(sources[index]) for index, atom in atoms])
        return text % tuple([atom(sources[index]) for index, atom in atoms])

    needs_environ = any(index == _ENVIRON for index, _ in atoms)
    return make


def _find_atom(name: str | None) -> Atom | None:
    if name is None:
        return None
    header = _HEADER_ATOM.fullmatch(name)
    return _header_atom(header[1], header[2]) if header is not None else _ATOMS.get(name)


def _json_text(value: str | None) -> str | None:
    """Bytes that are not UTF-8 as `\\xff`: strict parsers refuse lone surrogates (RFC 8259 section 8.2)."""
    if value is None or value.isascii():
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def json_line(sources: Sources) -> str:
    """Make a line of JSON; values that are not there are null."""
    message, response, _, seconds, remote = sources
    record: dict[str, object] = {"time": clock.iso_time, "remote": remote}
    if message is None:
        record.update(dict.fromkeys(("method", "path", "query", "protocol", "referer", "user_agent")))
    else:
        path, _, query = message.path.partition("?")
        record.update(
            method=message.method,
            path=path,
            query=query or None,
            protocol=f"HTTP/{message.version[0]}.{message.version[1]}",
            referer=_json_text(request_field(message, "referer")),
            user_agent=_json_text(request_field(message, "user-agent")),
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

    def log(self, sources: Sources) -> None:
        """Add the line of a request.

        Args:
            sources: the request (None when it was refused before it had one), its response (None when it got none),
                values for `%({name}e)s`, seconds that it took, the client's address.
        """
        if not self._lines:
            (self._loop or asyncio.get_running_loop()).call_soon(self.flush)
        self._lines.append(self._make(sources))

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
