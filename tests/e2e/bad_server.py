"""Little servers that do one thing wrong each: a load client that does not see it would prove nothing."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

KEEP = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"

Behaviour = Callable[[socket.socket], object]


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[int]:
    """Serve each connection with `behaviour` in a thread of its own; the port."""
    threads: list[threading.Thread] = []
    sockets: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            behaviour(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                sockets.append(connection)
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for connection in sockets:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def read_request(connection: socket.socket) -> bytes:
    """One request head; empty at the end of the stream."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    return data


def reset(connection: socket.socket) -> None:
    """Close with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def answering(data: bytes, then: Behaviour = lambda connection: None) -> Behaviour:
    """Answer the first request with these bytes, do something else, close."""

    def behaviour(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(data)
        then(connection)

    return behaviour


def good(connection: socket.socket) -> None:
    """A server that does everything right."""
    while request := read_request(connection):
        if b"Connection: close" in request:
            connection.sendall(CLOSE)
            return
        connection.sendall(KEEP)


def one_more_then(end: Behaviour) -> Behaviour:
    """Answer the first request on a connection, read the second one, and do something else instead of answering."""

    def behaviour(connection: socket.socket) -> None:
        if b"Connection: close" in read_request(connection):
            connection.sendall(CLOSE)
            return
        connection.sendall(KEEP)
        if read_request(connection):
            end(connection)

    return behaviour
