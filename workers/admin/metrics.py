"""The metrics in the formats of Prometheus; `prometheus-client` (the extra `metrics`) knows both of them."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import accumulate
from typing import Any, Final

from preforkd.workers.admin.processes import Usage
from preforkd.workers.admin.readiness import unready
from preforkd.workers.admin.settings import AdminSettings
from preforkd.workers.admin.snapshot import Snapshot
from preforkd.workers.http.built import parser_is_built
from preforkd.workers.scoreboard import BOUNDS, CLASSES, METHODS, WORKER_STATES, Field

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
except ImportError as exc:
    MISSING = str(exc)
else:
    MISSING = ""

INSTALL: Final = "metrics need prometheus-client: pip install 'preforkd[metrics]'"
_CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


class MissingError(Exception):
    """The library for the format is not installed."""


class Metrics:
    """Makes the text.

    Args:
        settings: what the admin process was told.
    """

    def __init__(self, settings: AdminSettings) -> None:
        self._settings = settings
        self._build = (version("preforkd"), platform.python_version(), "compiled" if parser_is_built() else "pure")

    def text(self, snapshot: Snapshot, usage: Mapping[int, Usage], accept: str) -> tuple[str, bytes]:
        """Return the content type and the text.

        Args:
            snapshot: of the scoreboard.
            usage: of CPU and memory, by pid.
            accept: the field of the request: OpenMetrics for those that ask for it.

        Raises:
            MissingError: there is no library for it.
        """
        if MISSING:
            raise MissingError(INSTALL)
        encode, kind = choose_encoder(accept)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(list(self._families(snapshot, usage))))
        return kind, encode(registry)

    def _families(self, snapshot: Snapshot, usage: Mapping[int, Usage]) -> Iterator[Metric]:
        yield from _requests(snapshot)
        yield from _workers(snapshot)
        yield from _slots(snapshot, usage)
        yield from self._daemon(snapshot)

    def _daemon(self, snapshot: Snapshot) -> Iterator[Metric]:
        yield _gauge("preforkd_generation", "Generation of the configuration and code that serves.", snapshot.committed)
        yield _gauge("preforkd_ready", "Whether /readyz says that traffic may come.", int(not unready(snapshot)))
        yield _gauge("preforkd_uptime_seconds", "Since the start; an upgrade is none.", snapshot.uptime)
        yield _labelled(
            CounterMetricFamily,
            "preforkd_reloads",
            "Reloads that are over, by how.",
            "result",
            snapshot.reloads,
        )
        queues = {
            url: length
            for url, length in zip(self._settings.listeners, snapshot.queues, strict=False)
            if length is not None
        }
        yield _labelled(
            GaugeMetricFamily, "preforkd_accept_queue_length", "Connections that wait for a worker.", "listener", queues
        )
        if snapshot.certificate_expires:
            yield _gauge(
                "preforkd_certificate_expiry_timestamp_seconds",
                "When the certificate expires, in seconds since the epoch.",
                snapshot.certificate_expires,
            )
        yield _labelled(
            CounterMetricFamily,
            "preforkd_log_lines_lost",
            "Lines that could not be written: nobody reads them, or the disk is full.",
            "stream",
            snapshot.lost_lines,
        )
        build = GaugeMetricFamily(
            "preforkd_build_info", "What is running.", labels=["version", "python_version", "http_parser"]
        )
        build.add_metric(self._build, 1)
        yield build


if not MISSING:

    class _Families(Collector):
        """What was read at one moment, for a registry."""

        def __init__(self, families: Sequence[Metric]) -> None:
            self._families = families

        def collect(self) -> Sequence[Metric]:
            """Return it."""
            return self._families


def _requests(snapshot: Snapshot) -> Iterator[Metric]:
    total = snapshot.total
    durations = HistogramMetricFamily(
        "http_server_request_duration_seconds",
        "From the head of a request to the end of its response.",
        labels=["http_request_method", "http_response_status_class"],
    )
    for method, name in enumerate(METHODS):
        for status in range(CLASSES):
            cells = total.histogram(method, status)
            if any(cells):
                durations.add_metric([name, _CLASSES[status]], *_buckets(cells))
    yield durations
    yield _labelled(
        CounterMetricFamily,
        "http_server_responses",
        "Responses by their exact status.",
        "http_response_status_code",
        total.statuses(),
    )
    active = sum(worker.active for worker in snapshot.workers)
    yield _gauge("http_server_active_requests", "Requests that are being handled and wait for something.", active)
    held = sum(worker.connections for worker in snapshot.workers)
    states = {"active": active, "idle": max(held - active, 0)}
    yield _labelled(
        GaugeMetricFamily, "preforkd_connections", "Connections by whether a request is handled.", "state", states
    )
    yield _counter("preforkd_accepted_connections", "Connections since the start.", total.cells[Field.ACCEPTED])
    yield _counter("preforkd_sent_bytes", "Bytes of responses since the start.", total.cells[Field.BYTES_SENT])
    yield _labelled(
        CounterMetricFamily,
        "preforkd_rejected_requests",
        "Requests that were refused before they reached the app.",
        "reason",
        total.rejected(),
    )
    yield _counter(
        "preforkd_drain_forced_requests", "Requests cut at the end of a drain.", total.cells[Field.DRAIN_FORCED]
    )
    waited = HistogramMetricFamily("preforkd_thread_queue_seconds", "WSGI: time that requests wait for a thread.")
    waited.add_metric([], *_buckets(total.thread_queue()))
    yield waited


def _workers(snapshot: Snapshot) -> Iterator[Metric]:
    states = dict.fromkeys(WORKER_STATES[1:], 0)
    for worker in snapshot.workers:
        states[worker.state] = states.get(worker.state, 0) + 1
    yield _labelled(GaugeMetricFamily, "preforkd_workers", "Workers by state.", "state", states)
    yield _gauge("preforkd_workers_wanted", "Workers that there should be.", snapshot.wanted)
    yield _labelled(
        CounterMetricFamily,
        "preforkd_worker_exits",
        "Workers that have ended, by why.",
        "reason",
        snapshot.exits,
    )
    yield _counter("preforkd_admin_exits", "Admin processes that have died.", snapshot.admin_lost)


def _slots(snapshot: Snapshot, usage: Mapping[int, Usage]) -> Iterator[Metric]:
    lags: dict[int, float] = {}
    memory: dict[int, int] = {}
    for worker in snapshot.workers:  # a slot has two in a reload
        lags[worker.slot] = max(lags.get(worker.slot, 0.0), worker.loop_lag)
        used = usage.get(worker.pid, Usage()).memory
        if used is not None:
            memory[worker.slot] = memory.get(worker.slot, 0) + used
    yield _labelled(
        GaugeMetricFamily, "preforkd_loop_lag_seconds", "By which the last heartbeat was late.", "slot", lags
    )
    yield _labelled(
        GaugeMetricFamily, "preforkd_worker_memory_bytes", "Of the workers that are in memory.", "slot", memory
    )
    yield _labelled(
        CounterMetricFamily,
        "preforkd_worker_cpu_seconds",
        "CPU time of all workers that a slot has had.",
        "slot",
        snapshot.cpu,
    )


def _buckets(cells: Sequence[int]) -> tuple[list[tuple[str, float]], float]:
    """From cells of the scoreboard to cumulated buckets with their upper bounds, and the sum in seconds."""
    names = [*map(str, BOUNDS), "+Inf"]
    return list(zip(names, accumulate(cells[:-1]), strict=True)), cells[-1] / 1e9


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _labelled(family: Any, name: str, text: str, label: str, values: Mapping[Any, float]) -> Metric:
    metric: Metric = family(name, text, labels=[label])
    for key, value in values.items():
        metric.add_metric([str(key)], value)  # type: ignore[attr-defined]  # both families have it
    return metric
