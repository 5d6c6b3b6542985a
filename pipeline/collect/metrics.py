"""What the collector counts; one registry per collector, so that two in one process do not meet."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class CollectorMetrics:
    """The Prometheus metrics of one collector."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.received = Counter(
            "callfold_webhooks_received_total",
            "Webhook requests, by provider and HTTP answer",
            ["provider", "answer"],
            registry=self._registry,
        )
        self.stored_bytes = Counter(
            "callfold_webhooks_stored_bytes_total",
            "Bytes of the webhooks that were stored",
            ["provider"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "callfold_webhook_seconds",
            "Time from request to answer",
            ["provider"],
            registry=self._registry,
        )
        self.is_ready = Gauge(
            "callfold_collector_ready", "1 if the next webhook can be stored", registry=self._registry
        )

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)
