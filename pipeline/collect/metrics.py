"""What the collector counts; one registry per collector, so that two in one process do not meet."""

import time
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pipeline.collect.spool_file import Stock

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class CollectorMetrics:
    """The Prometheus metrics of one collector. What was received is what was stored (202) and what was refused."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._received = Counter(
            "callfold_webhooks_received_total",
            "Requests but for the collector's own pages, by provider and HTTP answer",
            ["provider", "answer"],
            registry=registry,
        )
        self._stored = Counter(
            "callfold_webhooks_stored_total",
            "Webhooks that were stored, by provider and where: on kafka, or in the spool",
            ["provider", "where"],
            registry=registry,
        )
        self._stored_bytes = Counter(
            "callfold_webhooks_stored_bytes_total",
            "Bytes of the bodies of the webhooks that were stored",
            ["provider"],
            registry=registry,
        )
        self._seconds = Histogram(
            "callfold_webhook_duration_seconds",
            "Time from a request's head to its answer",
            ["provider"],
            registry=registry,
            buckets=BUCKETS,
        )
        self._closed = Counter(
            "callfold_connections_closed_total",
            "Connections that the collector closed: slow, idlest of too many, or full",
            ["reason"],
            registry=registry,
        )
        for reason in ("slow", "idlest", "full"):
            self._closed.labels(reason)
        self.is_ready = self._gauge("callfold_collector_ready", "1 if the next webhook can be stored")
        self.connections = self._gauge("callfold_connections", "Connections that are open")
        self.body_bytes = self._gauge("callfold_bodies_in_memory_bytes", "Bytes of webhooks not yet answered")
        self._spool_webhooks = self._gauge("callfold_spool_webhooks", "Webhooks in the spool")
        self._spool_bytes = self._gauge("callfold_spool_bytes", "Bytes in the spool")
        self._spool_age = self._gauge(
            "callfold_spool_oldest_age_seconds", "Age of its oldest webhook; 0 if empty"
        )
        self._spool_aside = self._gauge(
            "callfold_spool_set_aside_webhooks", "Webhooks that Kafka never takes"
        )
        # Finding the series of some labels costs more than counting.
        self._received_of = cache(self._received.labels)
        self._stored_of = cache(self._stored.labels)
        self._bytes_of = cache(self._stored_bytes.labels)
        self._seconds_of = cache(self._seconds.labels)

    def count_answer(self, provider: str, answer: str, seconds: float) -> None:
        """A webhook request has got its answer."""
        self._received_of(provider, answer).inc()
        self._seconds_of(provider).observe(seconds)

    def count_other(self, answer: str) -> None:
        """A request was no HTTP, or there is no page or method for it."""
        self._received_of("unknown", answer).inc()

    def count_stored(self, provider: str, where: str, body_bytes: int) -> None:
        """A webhook was stored."""
        self._stored_of(provider, where).inc()
        self._bytes_of(provider).inc(body_bytes)

    def count_closed(self, reason: str) -> None:
        """A connection was closed on its sender."""
        self._closed.labels(reason).inc()

    def show_spool(self, stock: Stock) -> None:
        """What is in the spool."""
        self._spool_webhooks.set(stock.webhooks)
        self._spool_bytes.set(stock.size_bytes)
        self._spool_age.set(0 if stock.oldest_us is None else max(0.0, time.time() - stock.oldest_us / 1e6))
        self._spool_aside.set(stock.set_aside)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(name, meaning, registry=self._registry)
