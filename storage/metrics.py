"""What a process counts, for Prometheus: a registry of its own, and a port on which it is read.

Declared where it is counted (`api.metrics`, `workers.metrics`, `storage.service_metrics`). No label has values that a caller
can make up: routes, models and queues are the catalog's and the code's, tenants and ids are none.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from cryptography import x509
from prometheus_client import CollectorRegistry, Histogram, PlatformCollector, ProcessCollector, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from storage.settings import StoreSettings

log = logging.getLogger(__name__)

SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Buckets of what takes milliseconds to seconds."""

LONG_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
"""Buckets of what takes seconds to an hour."""


def registry() -> CollectorRegistry:
    """One that has what every process tells of itself."""
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    return made


class ObserveCall(Protocol):
    """Told of each call of the object store."""

    def __call__(self, operation: str, *, seconds: float, is_ok: bool) -> None:
        """It took so long, and went well or not."""
        ...


def object_store_calls(registered: CollectorRegistry) -> ObserveCall:
    """Counts them."""
    histogram = Histogram(
        "darkroom_object_store_seconds",
        "Calls of the object store.",
        ("operation", "outcome"),
        buckets=SHORT_S,
        registry=registered,
    )

    def observe(operation: str, *, seconds: float, is_ok: bool) -> None:
        histogram.labels(operation, "ok" if is_ok else "failed").observe(seconds)

    return observe


class Certificates(Collector):
    """Until when the certificates hold that a process uses, by what they are for.

    Read when the process starts and each time: one that is renewed is used from the next start on.
    """

    def __init__(self, files: Mapping[str, Path | None]) -> None:
        self._files = {name: (file, _expiry(file)) for name, file in files.items() if file is not None}

    def collect(self) -> Iterable[Metric]:
        """A time for each, in seconds since 1970."""
        expiries = GaugeMetricFamily(
            "darkroom_certificate_expires_timestamp_seconds",
            "When a certificate that this process uses ends; 0: it cannot be read.",
            labels=("certificate",),
        )
        for name, (file, at_start) in self._files.items():
            expiries.add_metric((name,), min(at_start, _expiry(file)))
        yield expiries


def _expiry(file: Path) -> float:
    try:
        chain = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError):
        return 0.0
    return min(one.not_valid_after_utc.timestamp() for one in chain)


@contextlib.contextmanager
def served(registered: CollectorRegistry, settings: StoreSettings) -> Iterator[None]:
    """While the block runs, on the port that is set; nowhere where none is.

    Raises `ValueError` naming the variable for a port that is taken.
    """
    if settings.metrics_port is None:
        yield
        return
    try:
        server, thread = start_http_server(settings.metrics_port, settings.metrics_host, registered)
    except OSError as exc:
        where = f"{settings.metrics_host}:{settings.metrics_port}"
        raise ValueError(f"DARKROOM_METRICS_PORT: {where} cannot be listened on: {exc.strerror}") from exc
    log.info("metrics on http://%s:%d/metrics", settings.metrics_host, server.server_port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
