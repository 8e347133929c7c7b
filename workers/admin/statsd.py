"""Metrics pushed by StatsD, with the names that gunicorn has for them; tags in the way of DogStatsD.

What has been counted since the last push is sent once a second, so a busy daemon sends no more than an idle one. The
durations are known to their bucket: each bucket is sent as one timing of its middle with the sample rate that stands
for the number of requests in it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from operator import sub
from typing import Final

from preforkd.workers import log
from preforkd.workers.admin.readiness import ready_workers
from preforkd.workers.admin.settings import AdminSettings
from preforkd.workers.admin.snapshot import Counts, Snapshot
from preforkd.workers.scoreboard import BOUNDS, Field

DATAGRAM: Final = 1432
"""Bytes of one: fits into an Ethernet frame, as StatsD advises."""


def lines(before: Counts, snapshot: Snapshot) -> Iterator[str]:
    """Yield the metrics, without prefix and tags.

    Args:
        before: the counts that have been sent already.
        snapshot: of the scoreboard.
    """
    after = snapshot.total
    buckets = list(map(sub, after.histogram()[:-1], before.histogram()[:-1]))
    requests = sum(buckets)
    if requests > 0:
        yield f"gunicorn.requests:{requests}|c"
    for lower, upper, number in zip((0.0, *BOUNDS), (*BOUNDS, BOUNDS[-1]), buckets, strict=True):
        if number > 0:
            rate = "" if number == 1 else f"|@{1 / number:.9g}"
            yield f"gunicorn.request.duration:{(lower + upper) * 500:g}|ms{rate}"
    sent = before.statuses()
    for status, number in after.statuses().items():
        if number > sent.get(status, 0):
            yield f"gunicorn.request.status.{status}:{number - sent.get(status, 0)}|c"
    yield f"gunicorn.workers:{ready_workers(snapshot)}|g"
    queues = [queue for queue in snapshot.queues if queue is not None]
    if queues:
        yield f"gunicorn.backlog:{sum(queues)}|g"
    for name, field in (("preforkd.accepted", Field.ACCEPTED), ("preforkd.drain_forced", Field.DRAIN_FORCED)):
        if after.cells[field] > before.cells[field]:
            yield f"{name}:{after.cells[field] - before.cells[field]}|c"
    yield f"preforkd.active_requests:{sum(worker.active for worker in snapshot.workers)}|g"
    yield f"preforkd.connections:{sum(worker.connections for worker in snapshot.workers)}|g"


def datagrams(metrics: Iterator[str], prefix: str, tags: str) -> Iterator[bytes]:
    """Yield as few datagrams as hold all metrics.

    Args:
        metrics: one line each.
        prefix: for their names.
        tags: for each, with commas between them; empty: none.
    """
    end = f"|#{tags}" if tags else ""
    packet = b""
    for line in metrics:
        data = f"{prefix}{line}{end}".encode()
        if packet and len(packet) + len(data) + 1 > DATAGRAM:
            yield packet
            packet = b""
        packet += b"\n" + data if packet else data
    if packet:
        yield packet


class Statsd:
    """Where metrics are pushed to.

    Args:
        settings: what the admin process was told.
    """

    def __init__(self, settings: AdminSettings) -> None:
        self._settings = settings
        self._before: Counts | None = None
        self._complained: set[tuple[str, int]] = set()
        self._sockets: dict[tuple[str, int], socket.socket] = {}

    def push(self, snapshot: Snapshot) -> None:
        """Send what is new; nothing is lost but to a receiver that is not there."""
        settings = self._settings
        if not settings.statsd:
            return
        # The first look says where the counting begins: what was before has been sent by the process before this one.
        before = self._before or snapshot.total
        packets = list(datagrams(lines(before, snapshot), settings.statsd_prefix, settings.statsd_tags))
        for target in settings.statsd:
            self._send(target, packets)
        self._before = snapshot.total

    def close(self) -> None:
        """Send nothing any more."""
        for sock in self._sockets.values():
            sock.close()

    def _send(self, target: tuple[str, int], packets: Sequence[bytes]) -> None:
        try:
            sock = self._sockets.get(target) or _connected(*target)
            self._sockets[target] = sock
            for packet in packets:
                with contextlib.suppress(BlockingIOError):  # it does not keep up: better lost than late
                    sock.send(packet)
            self._complained.discard(target)
        except OSError as exc:
            broken = self._sockets.pop(target, None)
            if broken is not None:
                broken.close()
            if target not in self._complained:
                self._complained.add(target)
                log.LOGGER.warning("StatsD at %s cannot be sent to: %s", target[0], exc.strerror or exc)


def _connected(host: str, port: int) -> socket.socket:
    """Return a datagram socket to a host and a port, or, without a port, to a path."""
    if not port:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        path: str | bytes | tuple[str, int] = "\0" + host[1:] if host.startswith("@") else host
    else:
        family, _kind, _protocol, _name, path = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]  # type: ignore[assignment]
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock
