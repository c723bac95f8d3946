"""Which plan a model has room for on the device, beside others or instead of them."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from storage.contracts import catalog, gpus, planning
from storage.contracts.plans import Plan, TextEncoding
from workers import loader
from workers.pipelines import base

ENCODED_HERE_S = 600.0
"""Seconds before a model whose prompts nobody else encoded may be loaded without its text encoder again."""

LADDERS: Mapping[TextEncoding, TextEncoding] = {"here": "here", "elsewhere": "either", "only": "only"}
"""Among which plans a lower one is looked for, by where the present one has its prompts encoded: a plan with a text encoder is
followed by others that have it, since the edit was prepared for that."""


@dataclass
class Resident:
    """A model on the device."""

    pipeline: base.Pipeline
    plan: Plan
    used_at: float
    cold_start: loader.ColdStart
    is_warm: bool = True


@dataclass
class Starting:
    """A model that is being loaded, since when, and which share of it is there, 0 to 1."""

    model: str
    plan: Plan
    since: float
    share: float = 0.0


@dataclass
class Rooms:
    """The memory of one GPU type, and plans that were found to be too much for it: those are remembered.

    `encoding` says where a model's prompts may be encoded just now.
    """

    known: catalog.Catalog
    gpu_type: str
    host_gb: float | None = None
    encoding: Callable[[str], TextEncoding] = lambda model: "here"
    clock: Callable[[], float] = time.monotonic
    _lowered: dict[str, Plan] = field(init=False, default_factory=dict)

    _encoded_here: dict[str, float] = field(init=False, default_factory=dict)

    def encode_here(self, model: str, staying: Sequence[Plan]) -> bool:
        """For a while its plans have its text encoder; False, and nothing changes, where no such plan has room."""
        before = self._encoded_here.get(model)
        self._encoded_here[model] = self.clock() + ENCODED_HERE_S
        if self.plan(model, staying) is not None:
            return True
        self._encoded_here[model] = before or 0.0
        return False

    def _encoding(self, model: str) -> TextEncoding:
        return "here" if self.clock() < self._encoded_here.get(model, 0) else self.encoding(model)

    @property
    def _gpu(self) -> gpus.GpuType:
        return self.known.gpu_types[self.gpu_type]

    def plan(self, model: str, staying: Sequence[Plan]) -> Plan | None:
        """The best plan beside those that stay, or what was found to work here."""
        encoding, lowered = self._encoding(model), self._lowered.get(model)
        if lowered is not None and (lowered.encoding != "elsewhere" or encoding != "here"):
            return lowered
        wanted = self.known.model(model)
        # So that each of them can work, one at a time; else so that it can itself beside what rests.
        for plan in planning.ladder(wanted, self._gpu, encoding=encoding):
            if planning.fits(plan, self._gpu, host_gb=self.host_gb) and self.have([*staying, plan]):
                return plan
        room = self._gpu.memory_gb - sum(plan.phases.resting for plan in staying)
        return planning.planned(wanted, self._gpu, room_gb=room, host_gb=self.host_gb, encoding=encoding)

    def lower(self, model: str, plan: Plan) -> Plan | None:
        """The next plan that needs less, from now on; None when there is none."""
        wanted, encoding = self.known.model(model), LADDERS[plan.encoding]
        lower = planning.below(plan, wanted, self._gpu, host_gb=self.host_gb, encoding=encoding)
        if lower is not None:
            self._lowered[model] = lower
        return lower

    def have(self, together: Sequence[Plan]) -> bool:
        """Whether these fit at the same time, on the GPU and in what host memory is known of."""
        on_gpu = planning.total_gb(together) <= self._gpu.memory_gb
        return on_gpu and (self.host_gb is None or planning.total_host_gb(together) <= self.host_gb)

    def in_the_way(self, plan: Plan, resident: Sequence[tuple[str, Resident]], preloaded: Collection[str]) -> list[str]:
        """Who has to go so that a plan has room: the least recently used first, none that was preloaded."""
        staying = dict(resident)
        evictable = sorted((name for name in staying if name not in preloaded), key=lambda name: staying[name].used_at)
        gone = []
        while evictable and not self.have([plan, *(one.plan for one in staying.values())]):
            gone.append(evictable.pop(0))
            del staying[gone[-1]]
        return gone
