"""What a worker counts; served on a port of its own, for the collector's `/metrics` or for Prometheus itself."""

import logging

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from pipeline.model import CallEvent, Rejection

log = logging.getLogger(__name__)


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

    def count(self, provider: str, found: list[CallEvent] | Rejection) -> None:
        """One webhook, and what became of it."""
        if isinstance(found, Rejection):
            self._quarantined.labels(provider, found.code).inc()
        elif not found:
            self._other.labels(provider).inc()
        else:
            self._events.labels(provider).inc(len(found))
            unknown = sum(event.is_unknown for event in found)
            if unknown:
                self._unknown.labels(provider).inc(unknown)

    def serve(self, host: str, port: int) -> None:
        """Answers on `http://host:port/metrics` as long as the process lives."""
        try:
            start_http_server(port, host, self._registry)
        except OSError as problem:
            # Calls are worth more than their counts.
            log.warning("no metrics: %s:%d cannot be listened on: %s", host, port, problem.strerror)
