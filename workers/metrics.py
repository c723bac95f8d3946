"""What workers count for Prometheus: a GPU worker its edits and its device, housekeeping its sweeps and the whole service."""

import logging
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping

import redis
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from storage import fleet, metrics
from storage.contracts import errors, results, samples
from storage.ledger import call, presence, recovery

log = logging.getLogger(__name__)

PHASES = ("queue", "load", "execute", "upload")
"""Where an edit's time goes, as receipts have it."""

GB = 10**9


class WorkerMetrics:
    """What a GPU worker counts. `gpu_type` and `region` are its own."""

    def __init__(self, registry: CollectorRegistry, *, gpu_type: str, region: str) -> None:
        self.registry = registry
        self.object_store = metrics.object_store_calls(registry)
        self._place = (gpu_type, region)
        place = ("gpu_type", "region")
        self._ended = Counter(
            "darkroom_edits_total", "Attempts that ended here, by how.", ("model", "outcome", *place), registry=registry
        )
        self._seconds = Histogram(
            "darkroom_edit_phase_seconds",
            "Time of finished edits: waiting in the queue, loading the model, computing, uploading.",
            ("model", "phase", *place),
            buckets=metrics.LONG_S,
            registry=registry,
        )
        self._pixels = Counter("darkroom_edited_pixels_total", "Pixels rendered.", ("model", *place), registry=registry)
        self._loads = Histogram(
            "darkroom_model_load_seconds",
            "Loading a model onto the device.",
            ("model", *place),
            buckets=metrics.LONG_S,
            registry=registry,
        )
        self._exhaustions = Counter(
            "darkroom_out_of_memory_total",
            "Times that the GPU's memory did not suffice, whether or not less of it did.",
            ("model", *place),
            registry=registry,
        )
        self._evictions = Counter(
            "darkroom_model_evictions_total",
            "Models taken off the device.",
            ("model", "reason", *place),
            registry=registry,
        )
        self._memory = Gauge(
            "darkroom_gpu_peak_bytes",
            "Peak memory of the last edit, by its highest phase.",
            ("model", *place),
            registry=registry,
        )
        self._planned = Gauge(
            "darkroom_gpu_planned_bytes",
            "What the execution plan allowed for in that phase.",
            ("model", *place),
            registry=registry,
        )

    def watch(self, *, idle_s: Callable[[], float], models: Callable[[], Mapping[str, str]]) -> None:
        """Ask these whenever the metrics are read: how long the GPU was idle between edits of late, and each model's state."""
        idle = Gauge(
            "darkroom_gpu_idle_between_edits_seconds",
            "Median of the device's last pauses between edits while work was waiting.",
            registry=self.registry,
        )
        idle.set_function(idle_s)
        # From nought on, or the first time would be no increase.
        for model in models():
            self._exhaustions.labels(model, *self._place)
        self.registry.register(_States(models))

    def finished(self, model: str, timings: results.Timings, sample: samples.Sample) -> None:
        """An edit was published."""
        self._ended.labels(model, "succeeded", *self._place).inc()
        self._pixels.labels(model, *self._place).inc(sample.pixels)
        for phase in PHASES:
            milliseconds = getattr(timings, f"{phase}_ms")
            self._seconds.labels(model, phase, *self._place).observe(milliseconds / 1000)
        if sample.phases_gb:
            highest = max(sample.phases_gb, key=lambda phase: sample.phases_gb[phase])
            self._memory.labels(model, *self._place).set(sample.phases_gb[highest] * GB)
            self._planned.labels(model, *self._place).set(sample.planned_gb.get(highest, 0) * GB)

    def failed(self, model: str, code: str) -> None:
        """An attempt ended with an error; its codes are a closed list."""
        self._ended.labels(model, code, *self._place).inc()

    def loaded(self, model: str, seconds: float) -> None:
        """A model is on the device."""
        self._loads.labels(model, *self._place).observe(seconds)

    def evicted(self, model: str, reason: str) -> None:
        """A model is on it no more."""
        self._evictions.labels(model, reason.replace(" ", "_"), *self._place).inc()

    def exhausted(self, model: str) -> None:
        """Memory did not suffice for it."""
        self._exhaustions.labels(model, *self._place).inc()


class TextEncoderMetrics:
    """What a worker of text encoders counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.object_store = metrics.object_store_calls(registry)
        self._seconds = Histogram(
            "darkroom_text_encoding_seconds",
            "From taking an edit's prompts to their encodings in the object store, loading included; by how it ended.",
            ("model", "outcome"),
            buckets=metrics.LONG_S,
            registry=registry,
        )

    def encoded(self, model: str, outcome: str, seconds: float) -> None:
        """An edit's prompts were encoded, or why not: an error's code, or `unreadable`."""
        self._seconds.labels(model, outcome).observe(seconds)


class _States(Collector):
    """Which models are cold, starting, warm or failed."""

    def __init__(self, models: Callable[[], Mapping[str, str]]) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        states = GaugeMetricFamily(
            "darkroom_model_state", "1 for the state that a model has on this worker.", labels=("model", "state")
        )
        for model, state in self._models().items():
            states.add_metric((model, state), 1)
        yield states


class HousekeepingMetrics:
    """What housekeeping counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.object_store = metrics.object_store_calls(registry)
        self._swept = Gauge(
            "darkroom_sweep_last_success_timestamp_seconds",
            "When a sweep last went well, or else when housekeeping began.",
            ("sweep",),
            registry=registry,
        )
        self._moved = Counter(
            "darkroom_swept_total",
            "Generations that sweeps moved: what silent workers held (to queued or failed), what rested or waited too long, what "
            "was archived, rerouted or erased.",
            ("sweep", "to"),
            registry=registry,
        )

    def swept(self, sweep: str) -> None:
        """It went well just now."""
        self._swept.labels(sweep).set(time.time())

    def moved(self, sweep: str, states: Iterable[str]) -> None:
        """So many generations came to these."""
        for state, count in Tally(states).items():
            self._moved.labels(sweep, state).inc(count)


class ServiceCollector(Collector):
    """How the service stands as a whole, read from the ledger whenever the metrics are."""

    def __init__(self, ledger: call.Ledger, connection: redis.Redis) -> None:
        self._ledger = ledger
        self._connection = connection

    def collect(self) -> Iterator[Metric]:
        """Nothing but `darkroom_store_up` while the store does not answer."""
        try:
            yield from self._read()
            is_up = 1
        except (errors.TransientError, redis.RedisError) as exc:
            log.warning("the service's metrics cannot be read: %s", exc)
            is_up = 0
        yield _gauge("darkroom_store_up", "Whether the ledger's Redis answers.", {(): is_up})

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked when it is registered."""
        return ()

    def _read(self) -> Iterator[Metric]:
        standing = self._ledger.run(recovery.standing())
        present = self._ledger.run(presence.present())
        workers, encoders = fleet.gpu_workers(present), fleet.text_encoders(present)
        memory = self._connection.info("memory")
        yield _gauge(
            "darkroom_queued_generations",
            "Generations that can be claimed now.",
            {(queue,): count for queue, count in standing.queued.items()},
            "queue",
        )
        yield _gauge(
            "darkroom_queue_age_seconds",
            "How long the longest waiting of the tenants' next ones has waited.",
            {(queue,): age for queue, age in standing.waited_s.items()},
            "queue",
        )
        yield _gauge(
            "darkroom_generations",
            "Generations by what they wait for: their worker, a rest after a failure, an operator (parked), the archive.",
            {(name,): standing.counts[name] for name in ("processing", "resting", "parked", "archivable")},
            "state",
        )
        for name, help_ in (
            ("webhook_tenants", "Tenants with webhooks that are due."),
            ("batches", "Batches that are worked on or about to be."),
            ("paused", "Models, tenants and queues that an operator holds back."),
            ("deletions_overdue", "Prefixes of objects whose time is over."),
            ("record_bytes", "Bytes of records in Redis, roughly."),
            ("record_bytes_of_one_tenant", "The same of the tenant that has most."),
        ):
            yield _gauge(f"darkroom_{name}", help_, {(): standing.counts[name]})
        tally: Tally[tuple[str, ...]] = Tally(
            (one["gpu_type"], one["region"], "yes" if one.get("busy") else "no") for one in workers.values()
        )
        yield _gauge("darkroom_gpu_workers", "GPU workers that are there.", tally, "gpu_type", "region", "busy")
        yield _gauge("darkroom_text_encoders", "Workers of text encoders that are there.", {(): len(encoders)})
        yield _gauge("darkroom_store_used_bytes", "Memory that Redis uses.", {(): memory["used_memory"]})
        yield _gauge(
            "darkroom_store_max_bytes", "Memory that Redis may use; 0 is no bound.", {(): memory.get("maxmemory", 0)}
        )


def _gauge(name: str, help_: str, values: Mapping[tuple[str, ...], float], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_, labels=labels)
    for place, value in values.items():
        family.add_metric(place, value)
    return family
