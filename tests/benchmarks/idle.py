"""What an idle keep-alive connection costs a server: 4,000 of them, after one request each."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping

from tests.benchmarks import wrk
from tests.benchmarks.rows import ROWS
from tests.benchmarks.servers import Kind, Server, ServerError
from tests.benchmarks.table import Costs

CONNECTIONS = 4000
ENDED = 15.0  # seconds for a server to notice that its clients have gone
_FIELDS = "".join(f"{name}: {value}\r\n" for name, value in wrk.HEADERS.items())

# What lets a server hold that many for that long, where it would not by itself.
_ARGUMENTS = {
    "uvicorn-asgi": ("--timeout-keep-alive", "75"),
    "gunicorn-asgi": ("--worker-connections", "5000"),
    "gunicorn-wsgi": ("--worker-connections", "5000"),
    "granian-asgi": ("--backpressure", "5000"),
    "granian-wsgi": ("--backpressure", "5000"),
}


def memory(server: Server) -> float:
    """Return the memory that is its own (USS), of the process tree, in kB."""
    return sum(process.memory_full_info().uss for process in server.processes()) / 1000


def sockets(server: Server) -> int:
    """Return the number of descriptors of the process tree."""
    return sum(process.num_fds() for process in server.processes())


def connect(port: int, number: int) -> socket.socket:
    """Return a connection that has had one response.

    Raises:
        OSError: it was refused or broken.
    """
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    head = f"GET /items?sort=name&page={number} HTTP/1.1\r\n{_FIELDS}X-Request-Id: {number:032x}\r\n\r\n"
    client.sendall(head.encode())
    if not client.recv(65536):
        raise ConnectionError("the connection was closed without a response")
    return client


def wait_until_left(server: Server, before: int) -> None:
    """Wait until the server has closed its side of all connections.

    Raises:
        LoadError: it has not after 15 s.
    """
    deadline = time.monotonic() + ENDED
    while sockets(server) > before:
        if time.monotonic() > deadline:
            raise wrk.LoadError(
                f"holds {sockets(server) - before} connections {ENDED:g} s after their clients have gone"
            )
        time.sleep(0.1)


def measure_one(kind: Kind, name: str) -> tuple[float, float]:
    """Return kB for each idle connection, and what is left of the memory afterwards in % of that before."""
    row = ROWS["get"]
    server = Server(kind, row.app_of(kind), (*_ARGUMENTS.get(name, ()), *kind.quiet))
    clients: list[socket.socket] = []
    try:
        connect(server.port, 0).close()
        wrk.load(server.port, 1, row.lua)
        time.sleep(1)  # the last of these connections are closed
        descriptors, before = sockets(server), memory(server)
        clients.extend(connect(server.port, number) for number in range(CONNECTIONS))
        held = memory(server)
        while clients:
            clients.pop().close()
        wait_until_left(server, descriptors)
        time.sleep(1)  # a server may give back later what it gives back
        return (held - before) / CONNECTIONS, 100 * memory(server) / before
    finally:
        for client in clients:
            client.close()
        server.stop()


def measure(kinds: Mapping[str, Kind]) -> dict[str, dict[str, Costs]]:
    """Measure the servers one after the other; return rows of a table."""
    each: dict[str, Costs] = {}
    left: dict[str, Costs] = {}
    for name, kind in kinds.items():
        try:
            kilobytes, percent = measure_one(kind, name)
            each[name], left[name] = [kilobytes], [percent]
        except (ServerError, wrk.LoadError, OSError) as error:
            each[name] = left[name] = str(error)
    return {"kB for an idle keep-alive connection": each, "memory when 4,000 have closed, % of that before": left}
