"""A blocking HTTP/1.1 client that sees what happens to its connection: it retries nothing and repairs nothing.

Real client libraries hide a reset, a stale keep-alive connection or a missing final chunk behind a retry or one error
class. The promises of the daemon are about exactly these, so here each has an exception of its own.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

# Fields of a valid opening handshake of a WebSocket: the key is that of RFC 6455 section 1.3.
HANDSHAKE = (
    ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)  # fmt: skip


class AnswerError(Exception):
    """The request did not get a whole, well-formed answer."""


class NoAnswerError(AnswerError):
    """The peer closed the connection in order (FIN) before the first byte of the answer."""


class ResetError(AnswerError):
    """The peer reset the connection (RST): an answer that was on its way may be destroyed.

    Args:
        message: what we were doing.
        began: bytes of the answer had come already.
    """

    def __init__(self, message: str, *, began: bool = False) -> None:
        super().__init__(message)
        self.began = began


class TruncatedError(AnswerError):
    """The peer closed the connection in the middle of the answer."""


class MalformedError(AnswerError):
    """The answer is not HTTP, or there are bytes that belong to no answer."""


class SilentError(AnswerError):
    """The answer did not come, or the connection was not closed, in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One final response."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    interim: tuple[int, ...] = ()

    def header(self, name: str) -> str | None:
        """The values of a header joined with commas, None when it is absent."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def closes(self) -> bool:
        """It says `Connection: close`."""
        return "close" in (self.header("Connection") or "").lower().replace(" ", "").split(",")

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


class Connection:
    """One connection to the daemon.

    Args:
        port: the TCP port on 127.0.0.1.
        timeout: seconds for connecting, for sending and for each answer.
        tls: a context to speak TLS with.
        server_name: the host name to ask for by TLS.

    Raises:
        OSError: the connection was not established (refused, for instance).
    """

    def __init__(
        self, port: int, *, timeout: float = 10.0, tls: ssl.SSLContext | None = None, server_name: str = "localhost"
    ) -> None:
        self.timeout = timeout
        self.answers = 0
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self._shake_hands(tls, server_name)
        self._buffer = bytearray()
        self._end = 0.0
        self._began = False

    def _shake_hands(self, tls: ssl.SSLContext, server_name: str) -> None:
        """Speak TLS; the end of the stream without a close_notify is an error, for it may be somebody else's."""
        plain = self.socket
        try:
            self.socket = tls.wrap_socket(plain, server_hostname=server_name, suppress_ragged_eofs=False)
        except BaseException:
            plain.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close our side."""
        self.socket.close()

    def reset(self) -> None:
        """Close by a reset (RST), as a client that dies: what is on its way is lost."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are.

        Raises:
            ResetError: the peer is gone.
            SilentError: the peer does not read.
        """
        self.socket.settimeout(self.timeout)
        try:
            self.socket.sendall(data)
        except TimeoutError as error:
            raise SilentError(f"could not send within {self.timeout:g} s") from error
        except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError) as error:
            raise ResetError(f"while sending: {error}") from error

    def ask(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
    ) -> None:
        """Send a request and do not wait for its answer."""
        lines = [f"{method} {path} HTTP/1.1", "Host: tests", *(f"{name}: {value}" for name, value in headers)]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + (body or b""))

    def get(self, path: str = "/", **request: object) -> Answer:
        """Send a GET request and read its answer."""
        self.ask(path, **request)  # type: ignore[arg-type] # the same keywords as ask(), passed through
        return self.answer()

    def answer(self, *, to: str = "GET") -> Answer:
        """Read one answer to its end.

        Args:
            to: the method of the request; an answer to HEAD has no body.

        Raises:
            AnswerError: one of its kinds, by what happened.
        """
        self._end = time.monotonic() + self.timeout
        self._began = bool(self._buffer)
        interim: list[int] = []
        while True:
            status, reason, headers = self._head(started=bool(interim))
            if status >= 200:
                break
            interim.append(status)
        answer = Answer(status, reason, headers, self._body(to, status, headers), tuple(interim))
        self.answers += 1
        return answer

    def expect_close(self) -> None:
        """Read the end of the connection: an orderly close, and not one byte more.

        Raises:
            AnswerError: it was reset, bytes came, or it is still open after the timeout.
        """
        self._end = time.monotonic() + self.timeout
        self._began = True
        if self._buffer or self._receive():
            raise MalformedError(f"bytes after the last answer: {bytes(self._buffer)[:80]!r}")

    def is_closed(self) -> bool:
        """Whether the peer has closed the idle connection, without waiting.

        Raises:
            MalformedError: bytes came that nobody asked for.
        """
        self.socket.settimeout(0)
        try:
            data = self.socket.recv(1, 0 if isinstance(self.socket, ssl.SSLSocket) else socket.MSG_PEEK)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except ConnectionResetError:
            return True
        if data:
            raise MalformedError("bytes on an idle connection")
        return True

    def read_some(self) -> bytes:
        """What there is of the answer so far; waits for the first byte when there is none yet."""
        self._end = time.monotonic() + self.timeout
        if not self._buffer and not self._receive():
            raise NoAnswerError("closed before the first byte")
        return bytes(self._buffer)

    def _receive(self) -> bool:
        """Read more into the buffer; False at the end of the stream."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise SilentError(f"nothing within {self.timeout:g} s")
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(65536)
        except TimeoutError as error:
            raise SilentError(f"nothing within {self.timeout:g} s") from error
        except (ConnectionResetError, ssl.SSLEOFError) as error:
            raise ResetError(f"while reading: {error}", began=self._began) from error
        self._buffer += data
        self._began = self._began or bool(data)
        return bool(data)

    def _need(self, what: str) -> None:
        if not self._receive():
            raise TruncatedError(f"closed in the {what}")

    def _line(self, what: str) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._need(what)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _exactly(self, size: int, what: str) -> bytes:
        while len(self._buffer) < size:
            self._need(what)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _head(self, *, started: bool) -> tuple[int, str, tuple[tuple[str, str], ...]]:
        if not started and not self._buffer and not self._receive():
            raise NoAnswerError("closed before the first byte of the answer")
        parts = self._line("status line").decode("latin-1").split(" ", 2)
        if len(parts) != 3 or parts[0] != "HTTP/1.1" or not (parts[1].isdigit() and len(parts[1]) == 3):
            raise MalformedError(f"not a status line: {parts}")
        headers: list[tuple[str, str]] = []
        while line := self._line("headers").decode("latin-1"):
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise MalformedError(f"not a header: {line!r}")
            headers.append((name, value.strip(" \t")))
        return int(parts[1]), parts[2], tuple(headers)

    def _body(self, method: str, status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
        """RFC 9112 6.3: how long the body of an answer is."""
        if method == "HEAD" or status in (204, 304):
            return b""
        lengths = [value for name, value in headers if name.lower() == "content-length"]
        chunked = [value.lower() for name, value in headers if name.lower() == "transfer-encoding"]
        if len(lengths) + len(chunked) > 1:
            raise MalformedError(f"more than one framing: {lengths + chunked}")
        if chunked:
            return self._chunks()
        if lengths:
            return self._exactly(int(lengths[0]), "body")
        while self._receive():
            pass
        return self._exactly(len(self._buffer), "body")

    def _chunks(self) -> bytes:
        body = bytearray()
        while size := self._chunk_size():
            body += self._exactly(size, "chunk")
            if self._exactly(2, "end of a chunk") != b"\r\n":
                raise MalformedError("a chunk without its end")
        while self._line("trailers"):
            pass
        return bytes(body)

    def _chunk_size(self) -> int:
        line = self._line("chunk size").partition(b";")[0]
        try:
            return int(line, 16)
        except ValueError as error:
            raise MalformedError(f"not a chunk size: {line!r}") from error


def get(
    port: int,
    path: str = "/",
    *,
    timeout: float = 10.0,
    tls: ssl.SSLContext | None = None,
    server_name: str = "localhost",
) -> Answer:
    """One GET on a connection of its own."""
    with Connection(port, timeout=timeout, tls=tls, server_name=server_name) as connection:
        return connection.get(path, headers=[("Connection", "close")])
