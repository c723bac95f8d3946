"""What an API process counts for Prometheus."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from storage import metrics
from storage.contracts import events

UNKNOWN = "unknown"
"""The route of a request that none takes: its path is the caller's, and no label."""


class ApiMetrics:
    """Counts in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.object_store = metrics.object_store_calls(registry)
        self._requests = Counter(
            "darkroom_http_requests_total",
            "Requests answered.",
            ("dialect", "route", "method", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "darkroom_http_request_seconds",
            "Time until an answer was whole, that of an edit included where it is waited for. Not of event streams.",
            ("dialect", "route", "method"),
            buckets=metrics.SHORT_S,
            registry=registry,
        )
        self.streams = Gauge("darkroom_event_streams", "Open event streams.", registry=registry)
        self._delay = Histogram(
            "darkroom_event_delay_seconds",
            "From the ledger's time of an event until this process hands it to its subscribers.",
            buckets=metrics.SHORT_S,
            registry=registry,
        )
        self._webhooks = Counter("darkroom_webhook_calls_total", "Webhooks called.", ("outcome",), registry=registry)

    def answered(self, *, dialect: str, route: str, method: str, status: int, seconds: float | None) -> None:
        """A request was answered; `seconds` None where its time tells nothing of this service."""
        self._requests.labels(dialect, route, method, status).inc()
        if seconds is not None:
            self._seconds.labels(dialect, route, method).observe(seconds)

    def told(self, event: events.Event) -> None:
        """An event reached this process."""
        milliseconds, _ = events.order(event.cursor)
        self._delay.observe(max(0.0, time.time() - milliseconds / 1000))

    def called(self, *, is_answered: bool, is_accepted: bool) -> None:
        """A webhook was called."""
        self._webhooks.labels("accepted" if is_accepted else "refused" if is_answered else "unanswered").inc()
