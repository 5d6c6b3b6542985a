"""What a worker counts; served on a port of its own, for the collector's `/metrics` or for Prometheus itself."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from pipeline.stream.offsets import GroupOffset

log = logging.getLogger(__name__)

FLUSH_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class WorkerMetrics:
    """The Prometheus metrics of one worker."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._events = Counter(
            "callfold_events_total", "Normalised events", ["provider"], registry=self._registry
        )
        self._unknown = Counter(
            "callfold_unknown_events_total",
            "Events of a status or type that Callfold does not know: kept, but they decide nothing",
            ["provider"],
            registry=self._registry,
        )
        self._other = Counter(
            "callfold_other_webhooks_total",
            "Webhooks that are not about calls",
            ["provider"],
            registry=self._registry,
        )
        self._quarantined = Counter(
            "callfold_quarantined_webhooks_total",
            "Webhooks that could not be processed",
            ["provider", "code"],
            registry=self._registry,
        )
        self.records = Counter(
            "callfold_call_records_total",
            "Call records published, revisions included",
            registry=self._registry,
        )
        self.streams = Gauge(
            "callfold_streams_in_memory", "Calls, and agents' streams, in memory", registry=self._registry
        )
        self._lag = Gauge(
            "callfold_committed_lag_messages",
            "Messages of an assigned partition that are on Kafka and not committed: not in the lake yet, as far as "
            "a restart could tell",
            ["topic", "partition"],
            registry=self._registry,
        )
        self._lagging: set[tuple[str, int]] = set()
        self._assigned = Gauge(
            "callfold_assigned_partitions", "Partitions that this worker reads", registry=self._registry
        )
        self._flushes = Histogram(
            "callfold_flush_duration_seconds",
            "How long a flush took that made something durable",
            ["step"],
            buckets=FLUSH_BUCKETS,
            registry=self._registry,
        )
        self._flushed = Gauge(
            "callfold_last_flush_timestamp_seconds",
            "When a flush last succeeded, with something to write or without",
            ["step"],
            registry=self._registry,
        )
        self.destination_failures = Counter(
            "callfold_destination_failures_total",
            "Times that the lake or Kafka could not take data; it is tried again",
            registry=self._registry,
        )

    def count(self, provider: str, events: int, unknown: int, others: int) -> None:
        """What became of a batch: events, those of them that nobody knows, and webhooks that were not about calls."""
        self._events.labels(provider).inc(events)
        if unknown:
            self._unknown.labels(provider).inc(unknown)
        if others:
            self._other.labels(provider).inc(others)

    def count_rejected(self, provider: str, code: str) -> None:
        """One webhook that could not be processed."""
        self._quarantined.labels(provider, code).inc()

    def show_offsets(self, offsets: Mapping[tuple[str, int], GroupOffset]) -> None:
        """The assigned partitions as Kafka tells of them; those that are not among them are forgotten."""
        self._assigned.set(len(offsets))
        for topic, partition in self._lagging - offsets.keys():
            self._lag.remove(topic, str(partition))
        for (topic, partition), offset in offsets.items():
            self._lag.labels(topic, str(partition)).set(offset.lag)
        self._lagging = set(offsets)

    @contextmanager
    def flushing(self, step: str, *, counts: bool) -> Iterator[None]:
        """Around a flush; one that fails, or has nothing to write, is no measure of how long a flush takes."""
        began = time.perf_counter()
        yield
        if counts:
            self._flushes.labels(step).observe(time.perf_counter() - began)
        self._flushed.labels(step).set_to_current_time()

    def serve(self, host: str, port: int) -> None:
        """Answers on `http://host:port/metrics` as long as the process lives."""
        try:
            start_http_server(port, host, self._registry)
        except OSError as problem:
            # Calls are worth more than their counts.
            log.warning("no metrics: %s:%d cannot be listened on: %s", host, port, problem.strerror)
