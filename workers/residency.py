"""Which models are on the device: loaded when work asks for them, kept warm for a while, evicted when another needs the room.

Everything but `state`, `resident`, `failed`, `loading_s`, `keep`, `encodes_elsewhere`, `has_room` runs on the pipeline's thread.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from storage.contracts import catalog, errors, planning
from storage.contracts.plans import Plan, TextEncoding
from workers import loader
from workers.failures import Failures
from workers.pipelines import base
from workers.rooms import Resident, Rooms, Starting

log = logging.getLogger(__name__)


@dataclass
class Residency:
    """The models of one worker. `preloaded` ones stay until it stops.

    A model that could not be loaded is not tried again for `load_rest_s` seconds, nor is work for it claimed. Told are `loaded`
    of each model and its seconds, `evicted` of each with the reason, `exhausted` of each for which memory did not suffice.
    """

    known: catalog.Catalog
    weights_dir: Path
    gpu_type: str
    keep_warm_s: float = 900.0
    load_rest_s: float = 10.0
    preloaded: frozenset[str] = frozenset()
    host_gb: float | None = None
    """Memory of the machine, in GB, that weights may be kept in; None does not count it."""
    compile_cache: Path | None = None
    encoding: Callable[[str], TextEncoding] = lambda model: "here"
    """Where a model's prompts may be encoded just now."""
    loaded: Callable[[str, float], None] = lambda model, seconds: None
    evicted: Callable[[str, str], None] = lambda model, reason: None
    exhausted: Callable[[str], None] = lambda model: None
    clock: Callable[[], float] = time.monotonic
    _rooms: Rooms = field(init=False)
    _kept: frozenset[str] = field(init=False, default=frozenset())
    _resident: dict[str, Resident] = field(init=False, default_factory=dict)
    _failures: Failures = field(init=False)
    _loader: loader.Loader = field(init=False)
    _starting: Starting | None = field(init=False, default=None)
    _warming_since: float | None = field(init=False, default=None)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._rooms = Rooms(self.known, self.gpu_type, self.host_gb, self.encoding, self.clock)
        self._failures = Failures(self.load_rest_s, self.clock)
        self._loader = loader.Loader(self.weights_dir, self.gpu_type, self.compile_cache, self.clock)

    def resident(self) -> tuple[str, ...]:
        """Models that are loaded or being loaded: work for them need not wait."""
        with self._lock:
            starting = (self._starting.model,) if self._starting else ()
            return (*starting, *self._resident)

    def failed(self) -> tuple[str, ...]:
        """Models that could not be loaded a moment ago."""
        return self._failures.lately()

    @property
    def loading_s(self) -> float:
        """Seconds a model has been loading, or been compiled after its first edit; 0 while none is."""
        starting, warming_since = self._starting, self._warming_since
        since = starting.since if starting else warming_since
        return 0.0 if since is None else self.clock() - since

    def state(self, model: str) -> dict[str, object]:
        """`cold`, `starting` with a percentage, `warm`, or `failed` with the reason."""
        with self._lock:
            if self._starting and self._starting.model == model:
                return {"state": "starting", "percent": round(100 * self._starting.share)}
            if model in self._resident:
                return {"state": "warm", "placement": self._resident[model].plan.name}
        return self._failures.state(model) or {"state": "cold"}

    def encodes_elsewhere(self, model: str) -> bool:
        """Whether its next edit needs prompts that another worker encoded."""
        starting = next((one for one in (self._starting,) if one and one.model == model), None)
        one = self._resident.get(model) or starting
        plan = one.plan if one else self._rooms.plan(model, self._preloaded_plans())
        return plan is not None and plan.encoding == "elsewhere"

    def has_room(self, model: str) -> bool:
        """Whether it fits beside the models that are kept or preloaded."""
        kept = self.preloaded | self._kept - {model}
        staying = [one.plan for name, one in list(self._resident.items()) if name in kept]
        plan = self._rooms.plan(model, [])
        return plan is not None and self._rooms.have([*staying, plan])

    def would_evict(self, model: str) -> frozenset[str]:
        """Which models loading this one now would take off the device: none when it is there already, or fits beside them."""
        resident = list(self._resident.items())
        plan = self._rooms.plan(model, self._preloaded_plans())
        if model in dict(resident) or plan is None:
            return frozenset()
        return frozenset(self._rooms.in_the_way(plan, resident, self.preloaded))

    def pipeline(
        self,
        model: str,
        on_loaded: base.OnLoaded = lambda share: None,
        *,
        again: bool = False,
        at_once: bool = False,
    ) -> base.Pipeline:
        """The model's pipeline, loaded now if it is not yet; with `again` even if that failed a moment ago.

        With `at_once` somebody waits for its first edit, and compiling comes after that (`finish_warming`). Raises
        `errors.ModelUnavailableError` and `errors.OutOfMemoryError`.
        """
        if model not in self._resident:
            if not again:
                self._failures.check(model)
            try:
                self._load(model, on_loaded, at_once=at_once)
            except errors.DarkroomError as exc:
                log.warning("%s cannot be served: %s", model, exc)
                self._failures.note(model, exc)
                raise
            finally:
                with self._lock:
                    self._starting = None
        resident = self._resident[model]
        resident.used_at = self.clock()
        return resident.pipeline

    def relieve(self, model: str) -> bool:
        """Make what ran out of memory need less: alone on the device, or by the next plan, which is remembered. False: no way."""
        current = self._resident[model].plan
        try:
            if self._lower(model, current) is not current:
                self._evict(model, "out of memory")
        except errors.OutOfMemoryError:
            return False
        return True

    def encode_here(self, model: str) -> None:
        """Have a model loaded with its text encoder, for a while. Raises `errors.ModelUnavailableError` if that has no room."""
        staying = [one.plan for name, one in self._resident.items() if name in self.preloaded - {model}]
        if not self._rooms.encode_here(model, staying):
            message = f"nobody encodes prompts for {model}, and its text encoder has no room here"
            raise errors.ModelUnavailableError(message)
        log.warning("%s is to encode its prompts itself", model)
        if model in self._resident:
            self._evict(model, "its text encoder is needed")

    def finish_warming(self, model: str) -> None:
        """Compile what a first edit did without. What fails is loaded anew by the next. Raises `errors.GpuFaultError`."""
        resident = self._resident.get(model)
        if resident is None or resident.is_warm:
            return
        resident.is_warm, self._warming_since = True, self.clock()
        try:
            failure = self._loader.finish_warming(self.known.model(model), resident.pipeline, resident.plan)
        finally:
            self._warming_since = None
        if failure is not None:
            with self._lock:
                del self._resident[model]
        if isinstance(failure, errors.OutOfMemoryError):
            # Or the next edit would load the same, and end the same.
            with contextlib.suppress(errors.OutOfMemoryError):
                self._lower(model, resident.plan)

    def cool(self) -> None:
        """Let go of what has not been used for long."""
        for model, resident in list(self._resident.items()):
            if model not in self.preloaded | self._kept and self.clock() - resident.used_at >= self.keep_warm_s:
                self._evict(model, "unused")

    def keep(self, models: Iterable[str]) -> None:
        """These are kept warm, however long unused, until this is called without them. They give way when room is needed."""
        self._kept = frozenset(models)

    def let_go(self, model: str) -> None:
        """Take a model off the device, unless it is to stay until the worker stops."""
        if model in self._resident and model not in self.preloaded:
            self._evict(model, "not wanted any more")

    def _load(self, model: str, on_loaded: base.OnLoaded, *, at_once: bool) -> None:
        began, plan = self.clock(), self._rooms.plan(model, self._preloaded_plans())
        if plan is None:
            raise planning.refusal(self.known, model, self.gpu_type, host_gb=self.host_gb)
        self._starting = starting = Starting(model, plan, began)
        on_loaded(0.0)
        while (resident := self._attempt(starting, on_loaded, at_once=at_once)) is None:
            starting.plan = self._lower(model, starting.plan)
        self._failures.forget(model)
        with self._lock:
            self._resident[model] = resident
        on_loaded(1.0)
        self.loaded(model, self.clock() - began)
        told = (self.known.model(model).weights.name, resident.plan.name, resident.cold_start)
        log.info("%s loaded in %.1f s (%s, %s): %s", model, self.clock() - began, *told)

    def _attempt(self, starting: Starting, on_loaded: base.OnLoaded, *, at_once: bool) -> Resident | None:
        """None when there was no memory."""

        def report(share: float) -> None:
            starting.share = share
            on_loaded(share)

        self._make_room(plan := starting.plan)
        try:
            loaded = self._loader.load(self.known.model(starting.model), plan, report, at_once=at_once)
        except errors.OutOfMemoryError:
            return None
        return Resident(loaded.pipeline, plan, self.clock(), loaded.cold_start, loaded.is_warm)

    def _lower(self, model: str, plan: Plan) -> Plan:
        """What to try after a plan for which memory did not suffice: the sum was too hopeful, or the card is shared."""
        self.exhausted(model)
        lower = plan if self._evict_others(model) else self._rooms.lower(model, plan)
        if lower is None:
            raise errors.OutOfMemoryError(f"{model} does not fit on this GPU, not even as {plan.name!r}")
        if lower is not plan:
            log.warning("%s ran out of memory as %r; from now on %r", model, plan.name, lower.name)
        return lower

    def _preloaded_plans(self) -> list[Plan]:
        return [one.plan for name, one in list(self._resident.items()) if name in self.preloaded]

    def _make_room(self, plan: Plan) -> None:
        for model in self._rooms.in_the_way(plan, list(self._resident.items()), self.preloaded):
            self._evict(model, "its room is needed")

    def _evict_others(self, model: str) -> bool:
        others = [name for name in self._resident if name not in self.preloaded | {model}]
        for other in others:
            self._evict(other, "out of memory")
        return bool(others)

    def _evict(self, model: str, reason: str) -> None:
        with self._lock:
            gone = self._resident.pop(model)
        gone.pipeline.close()
        self.evicted(model, reason)
        log.info("%s taken off the device: %s", model, reason)
