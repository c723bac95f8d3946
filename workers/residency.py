"""Which models are on the device: loaded when work asks for them, kept warm for a while, evicted when another needs the room.

Everything but `state`, `resident`, `failed`, `loading_s`, `keep` and `has_room` runs on the pipeline's thread.
"""

import importlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from storage.contracts import catalog, errors
from storage.contracts.placement import Placement, planned, refusal, total_gb
from workers.pipelines import base

log = logging.getLogger(__name__)


@dataclass
class Resident:
    """A model on the device."""

    pipeline: base.Pipeline
    placement: Placement
    used_at: float


@dataclass
class Residency:
    """The models of one worker. `preloaded` ones stay until it stops.

    A model that could not be loaded is not tried again for `load_rest_s` seconds, nor is work for it claimed.
    """

    known: catalog.Catalog
    weights_dir: Path
    gpu_type: str
    keep_warm_s: float = 900.0
    load_rest_s: float = 10.0
    preloaded: frozenset[str] = frozenset()
    clock: Callable[[], float] = time.monotonic
    _kept: frozenset[str] = field(init=False, default=frozenset())
    _resident: dict[str, Resident] = field(init=False, default_factory=dict)
    _failed: dict[str, tuple[float, type[errors.DarkroomError], str]] = field(init=False, default_factory=dict)
    _failures: Counter[str] = field(init=False, default_factory=Counter)
    _starting: tuple[str, float] | None = field(init=False, default=None)
    _starting_since: float | None = field(init=False, default=None)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def resident(self) -> tuple[str, ...]:
        """Models that are loaded or being loaded: work for them need not wait."""
        with self._lock:
            starting = (self._starting[0],) if self._starting else ()
            return (*starting, *self._resident)

    def failed(self) -> tuple[str, ...]:
        """Models that could not be loaded a moment ago."""
        with self._lock:
            return tuple(model for model, (at, *_) in self._failed.items() if self.clock() - at < self.load_rest_s)

    @property
    def loading_s(self) -> float:
        """Seconds a model has been loading; 0 while none is."""
        since = self._starting_since
        return 0.0 if since is None else self.clock() - since

    def state(self, model: str) -> dict[str, object]:
        """`cold`, `starting` with a percentage, `warm`, or `failed` with the reason."""
        with self._lock:
            if self._starting and self._starting[0] == model:
                return {"state": "starting", "percent": round(100 * self._starting[1])}
            if model in self._resident:
                return {"state": "warm", "placement": self._resident[model].placement.name}
            if model in self._failed:
                return {"state": "failed", "reason": self._failed[model][2], "failures": self._failures[model]}
            return {"state": "cold"}

    def has_room(self, model: str) -> bool:
        """Whether it fits beside the models that are kept or preloaded."""
        staying = [
            one.placement for name, one in list(self._resident.items()) if name in self.preloaded | self._kept - {model}
        ]
        gpu = self.known.gpu_types[self.gpu_type]
        found = planned(self.known.model(model), gpu)
        return found is not None and total_gb([*staying, found]) <= gpu.memory_gb

    def pipeline(
        self, model: str, on_loaded: base.OnLoaded = lambda share: None, *, again: bool = False
    ) -> base.Pipeline:
        """The model's pipeline, loaded now if it is not yet; with `again` even if that failed a moment ago.

        Raises `errors.ModelUnavailableError` and `errors.OutOfMemoryError`.
        """
        if model not in self._resident:
            if not again:
                self._check_failed(model)
            try:
                self._load(model, on_loaded)
            except errors.DarkroomError as exc:
                log.warning("%s cannot be served: %s", model, exc)
                with self._lock:
                    # Not the exception itself: its traceback holds what was loaded so far.
                    self._failed[model] = (self.clock(), type(exc), exc.message)
                    self._failures[model] += 1
                raise
            finally:
                with self._lock:
                    self._starting, self._starting_since = None, None
        found = self._resident[model]
        found.used_at = self.clock()
        return found.pipeline

    def cool(self) -> None:
        """Let go of what has not been used for long."""
        for model, found in list(self._resident.items()):
            if model not in self.preloaded | self._kept and self.clock() - found.used_at >= self.keep_warm_s:
                self._evict(model, "unused")

    def keep(self, models: Iterable[str]) -> None:
        """These are kept warm, however long unused, until this is called without them. They give way when room is needed."""
        self._kept = frozenset(models)

    def let_go(self, model: str) -> None:
        """Take a model off the device, unless it is to stay until the worker stops."""
        if model in self._resident and model not in self.preloaded:
            self._evict(model, "not wanted any more")

    def _check_failed(self, model: str) -> None:
        if model in self.failed():
            _, kind, message = self._failed[model]
            raise kind(message)

    def _load(self, model: str, on_loaded: base.OnLoaded) -> None:
        began = self._starting_since = self.clock()
        found = self.known.model(model)
        gpu = self.known.gpu_types[self.gpu_type]
        staying = [one.placement for name, one in self._resident.items() if name in self.preloaded]
        room = gpu.memory_gb - (total_gb(staying) - total_gb([])) if staying else gpu.memory_gb
        placement = planned(found, gpu.model_copy(update={"memory_gb": room}))
        if placement is None:
            raise refusal(self.known, model, self.gpu_type)
        self._report(model, 0.0, on_loaded)
        self._make_room(placement, gpu)
        pipeline = self._first_try(found, placement, lambda share: self._report(model, share, on_loaded))
        if pipeline is None:
            # The sum was too hopeful, or the card is shared: once more with nothing else on it.
            for other in [name for name in self._resident if name not in self.preloaded]:
                self._evict(other, "out of memory")
            pipeline = self._read(found, placement, lambda share: self._report(model, share, on_loaded))
        with self._lock:
            self._failed.pop(model, None)
            self._resident[model] = Resident(pipeline, placement, self.clock())
        log.info("%s loaded in %.1f s (%s, %s)", model, self.clock() - began, found.weights.name, placement.name)

    def _first_try(self, found: catalog.Model, placement: Placement, on_loaded: base.OnLoaded) -> base.Pipeline | None:
        """None when there was no memory; what was half placed is gone with the exception when this returns."""
        try:
            return self._read(found, placement, on_loaded)
        except errors.OutOfMemoryError:
            return None

    def _read(self, found: catalog.Model, placement: Placement, on_loaded: base.OnLoaded) -> base.Pipeline:
        weights = found.weights
        folder = self.weights_dir / weights.source
        if weights.lora is not None and (self.weights_dir / weights.lora).is_dir():
            weights = weights.model_copy(update={"lora": str(self.weights_dir / weights.lora)})
        # Each model family is a module with a `load`; a worker imports those it serves, for some bring gigabytes along.
        family = importlib.import_module(f"workers.pipelines.{found.pipeline}")
        loaded: base.Pipeline = family.load(
            weights, folder if folder.is_dir() else None, self.gpu_type, placement, on_loaded
        )
        return loaded

    def _report(self, model: str, share: float, on_loaded: base.OnLoaded) -> None:
        with self._lock:
            self._starting = (model, share)
        on_loaded(share)

    def _make_room(self, placement: Placement, gpu: catalog.GpuType) -> None:
        while True:
            together = [placement, *(one.placement for one in self._resident.values())]
            evictable = [model for model in self._resident if model not in self.preloaded]
            if total_gb(together) <= gpu.memory_gb or not evictable:
                return
            self._evict(min(evictable, key=lambda model: self._resident[model].used_at), "its room is needed")

    def _evict(self, model: str, reason: str) -> None:
        with self._lock:
            gone = self._resident.pop(model)
        gone.pipeline.close()
        log.info("%s taken off the device: %s", model, reason)
