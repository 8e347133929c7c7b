"""A question to the admin process over HTTP, without a library: the standard one takes longer to import than to answer.

Of `preforkctl health`, so it imports little: see `preforkd.daemon.health`.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

MOST = 64 << 20
"""Bytes of an answer at most."""


class UnreachableError(Exception):
    """Nobody answers, or not in HTTP; the message says where and why, in one line."""


def ask(addresses: Sequence[str], method: str, path: str, timeout: float | None) -> tuple[int, bytes]:
    """Ask at the first of these addresses where somebody listens.

    Args:
        addresses: `unix:PATH` or `HOST:PORT`; one at least.
        method: of the request.
        path: of the request, with its query.
        timeout: seconds for each step; None: for as long as it takes.

    Returns:
        The status and the body.

    Raises:
        UnreachableError: see there.
    """
    failures = []
    for address in addresses:
        try:
            with _connect(address, timeout) as connection:
                # HTTP/1.0: the answer comes in one piece and ends with the connection.
                connection.sendall(f"{method} {path} HTTP/1.0\r\nHost: admin\r\nContent-Length: 0\r\n\r\n".encode())
                return _parsed(address, _all_of(connection))
        except (FileNotFoundError, ConnectionRefusedError) as exc:
            failures.append(f"nobody listens on {address} ({exc.strerror})")
        except TimeoutError:
            raise UnreachableError(f"{address} has not answered within {timeout:g} s") from None
        except OSError as exc:
            failures.append(f"{address} cannot be asked: {exc.strerror or exc}")
    raise UnreachableError("; ".join(failures))


def _connect(address: str, timeout: float | None) -> socket.socket:
    if address.startswith("unix:"):
        path = address[5:].partition("?")[0]
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        try:
            connection.connect("\0" + path[1:] if path.startswith("@") else path)
        except BaseException:
            connection.close()
            raise
        return connection
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise UnreachableError(f'"{address}" is not an address: write "unix:/run/app/admin.sock" or "127.0.0.1:9000"')
    # What listens on every interface is asked on the loopback.
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104 - see above
    return socket.create_connection((host, int(port)), timeout)


def _all_of(connection: socket.socket) -> bytes:
    data = bytearray()
    while len(data) < MOST and (more := connection.recv(65536)):
        data += more
    return bytes(data)


def _parsed(address: str, answer: bytes) -> tuple[int, bytes]:
    head, end, body = answer.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    words = line.split(None, 2)
    if not answer:
        raise UnreachableError(f"{address} has closed the connection without an answer")
    if not end or len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise UnreachableError(f"{address} is no admin address of preforkd: it answers {line[:40]!r}")
    length = [
        value.strip() for name, _, value in (one.partition(b":") for one in fields) if name.lower() == b"content-length"
    ]
    if length and length[0].isdigit() and int(length[0]) != len(body):
        raise UnreachableError(f"the answer of {address} is cut: {len(body)} of {int(length[0])} bytes")
    return int(words[1]), body
