"""What is measured, in the order of what it tells."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from bench.gpu import building, measuring
from bench.gpu.measuring import Row
from storage.contracts import planning, plans
from storage.contracts.catalog import Catalog
from storage.contracts.gpus import GpuType
from storage.contracts.plans import Plan, Workload
from storage.contracts.weights import Profile
from workers.pipelines.denoising import Denoising

FEW_STEPS = 6
"""Denoising steps where only a step's time is asked for."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where this runs, and as what: full-size models on a GPU, or shrunk ones on a CPU."""

    known: Catalog
    gpu_type: str
    device: str
    dtype: torch.dtype
    side: int
    steps_scale: float
    runs: int
    roof: float

    @property
    def gpu(self) -> GpuType:
        """The catalog's entry."""
        return self.known.gpu_types[self.gpu_type]

    def plan(
        self,
        model: str,
        profile: str,
        references: int,
        gpu: GpuType | None = None,
        *,
        text_encoder_streamed: bool = False,
    ) -> Plan:
        """The plan that a worker would take here (of those with a streamed text encoder), with its sums for this very edit."""
        wanted = self.known.models[self.known.profiled(model, profile)]
        gpu = gpu or self.gpu
        work = Workload(pixels=self.side**2, references=references)
        # What fits the heaviest edit is chosen; what this one takes is compared with.
        for chosen, plan in zip(planning.ladder(wanted, gpu), planning.ladder(wanted, gpu, work), strict=True):
            if planning.fits(chosen, gpu) and plan.text_encoder.streamed >= text_encoder_streamed:
                return plan
        raise ValueError(f"{model} does not fit on {gpu.display_name}")

    def steps(self, steps: int) -> int:
        """Of an edit here."""
        return max(2, math.ceil(steps * self.steps_scale))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A few rows that share a model on the device."""

    name: str
    rows: Callable[[Machine], Iterator[Row]]


def _edited(machine: Machine, row: Row, pipeline: Denoising, steps: int, runs: int) -> Row:
    """Fill a row in by running edits."""
    row.steps = machine.steps(steps)
    row.warm_up_s = measuring.timed(lambda: pipeline.warm_up(measuring.job(row.references, machine.side, 2)))
    seconds, gaps = measuring.edits(pipeline, machine.device, row.references, machine.side, row.steps, runs)
    row.edit_s, row.edits, row.step_ms = measuring.p50(seconds), runs, measuring.p50(gaps)
    row.plan, row.peaks = pipeline.facts.plan, dict(pipeline.facts.phases_gb)
    row.planned = pipeline.plan.phases.measured
    rings = {"text encoder": pipeline.applied.text_encoder, "transformer": pipeline.applied.transformer}
    row.groups = {part: len(ring) for part, ring in rings.items() if ring is not None}
    if machine.device == "cuda":
        measuring.note_memory(row)
    return _with_share(machine, row)


def _with_share(machine: Machine, row: Row) -> Row:
    if row.step_ms and machine.roof:
        row.share = measuring.step_flops(row.model, row.references, machine.side) / (row.step_ms / 1000) / machine.roof
    return row


def _plain(machine: Machine, model: str, pipe: Any, references: int, steps: int) -> Row:
    row = Row(model=model, label="plain diffusers", references=references, steps=machine.steps(steps))
    measuring.plain(model, pipe, machine.device, references, machine.side, 2)
    row.edit_s, gaps = measuring.plain(model, pipe, machine.device, references, machine.side, row.steps)
    row.edits, row.step_ms = 1, measuring.p50(gaps)
    return _with_share(machine, row)


def kontext(machine: Machine) -> Iterator[Row]:
    """Kontext with a reference: plain, exact, each lever, fast with its error."""
    model = "flux-kontext-dev"
    pipe = building.pipe(model, machine.device, machine.dtype)
    yield _plain(machine, model, pipe, 1, 28)
    yield from _exact_and_fast(machine, model, pipe, (1,), 28)


def flux2(machine: Machine) -> Iterator[Row]:
    """FLUX.2 [dev] without a reference, with one and with three. Plain diffusers runs where the whole fits."""
    model = "flux-2-dev"
    exact = machine.plan(model, "exact", 0)
    streamed = exact.text_encoder.streamed > 0
    pipe = building.pipe(model, machine.device, machine.dtype, encoder_on="cpu" if streamed else None)
    if not streamed:
        yield _plain(machine, model, pipe, 0, 28)
    yield from _exact_and_fast(machine, model, pipe, (0, 1, 3), 28)


def _exact_and_fast(machine: Machine, model: str, pipe: Any, references: tuple[int, ...], steps: int) -> Iterator[Row]:
    first = references[0]
    exact = building.loaded(model, pipe, machine.plan(model, "exact", first), machine.device)
    yield _edited(machine, Row(model=model, label="exact", references=first), exact, steps, machine.runs)
    # As many as in the edit: another number might be compiled for anew.
    tokens = (machine.side // 16) ** 2 * (1 + first)
    expected = measuring.step_output(model, exact.pipe.transformer, machine.device, machine.dtype, tokens)
    for count in references[1:]:
        exact.plan = machine.plan(model, "exact", count)
        few = steps if count < 2 else FEW_STEPS
        yield _edited(machine, Row(model=model, label="exact", references=count), exact, few, 1)
    exact.applied.compute_eagerly()
    yield from _fast(machine, model, exact, expected, references, steps)


def _fast(
    machine: Machine, model: str, exact: Denoising, expected: torch.Tensor, references: tuple[int, ...], steps: int
) -> Iterator[Row]:
    """The same weights in fp8. A text encoder that is streamed goes on streaming."""
    ring = exact.applied.text_encoder

    def planned(count: int) -> Plan:
        return machine.plan(model, "fast", count, text_encoder_streamed=ring is not None)

    here = dataclasses.replace(planned(references[0]), text_encoder=plans.PartPlan())
    fast = building.loaded(model, exact.pipe, here, machine.device)
    fast.applied.text_encoder = ring
    for count in references:
        fast.plan = planned(count)
        first = count == references[0]
        # So few steps that none is left out: what a step costs in fp8.
        row = _edited(machine, Row(model=model, label="fp8", references=count), fast, FEW_STEPS, 1)
        if first:
            tokens = (machine.side // 16) ** 2 * (1 + count)
            found = measuring.step_output(model, fast.applied.computed, machine.device, machine.dtype, tokens)
            row.error = measuring.relative_error(found, expected)
        yield dataclasses.replace(row, edit_s=None)
        if count < 2:
            row = _edited(
                machine, Row(model=model, label="fast", references=count), fast, steps, machine.runs if first else 1
            )
            # Those that are left out take no time: their median says nothing.
            yield dataclasses.replace(row, step_ms=None, share=None)


def levers(machine: Machine) -> Iterator[Row]:
    """One change at a time to Kontext's transformer in bf16: what a step takes."""
    model = "flux-kontext-dev"
    pipeline = building.loaded(
        model, building.pipe(model, machine.device, machine.dtype), machine.plan(model, "exact", 1), machine.device
    )
    transformer, layers = pipeline.pipe.transformer, list(pipeline.applied.compiled)
    for label in ("compiled", "compiled, static shapes", "compiled, fused projections", "eager"):
        if label.endswith("fused projections"):
            transformer.fuse_qkv_projections()
        for layer in layers:
            layer.compile(dynamic=None if label.endswith("static shapes") else True)
            if label == "eager":
                layer._compiled_call_impl = None
        row = _edited(machine, Row(model=model, label=label, references=1), pipeline, FEW_STEPS, 1)
        yield dataclasses.replace(row, plan=label, edit_s=None)


def klein(machine: Machine) -> Iterator[Row]:
    """Klein 4B, four steps: the whole job."""
    model = "flux-2-klein-4b"
    pipe = building.pipe(model, machine.device, machine.dtype)
    yield _plain(machine, model, pipe, 1, 4)
    exact = building.loaded(model, pipe, machine.plan(model, "exact", 1), machine.device)
    yield _edited(machine, Row(model=model, label="exact", references=1), exact, 4, 5 * machine.runs)


def capped(machine: Machine, *, profile: Profile, steps: int, gpu_type: str = "l40s") -> Iterator[Row]:
    """FLUX.2 [dev] as on a smaller card: memory is capped, layers are streamed."""
    model, gpu = "flux-2-dev", machine.known.gpu_types[gpu_type]
    pipe = building.pipe(model, machine.device, machine.dtype, encoder_on="cpu")
    # Made and quantised where random numbers are quick; only the edits have to do with less.
    pipeline = building.loaded(model, pipe, machine.plan(model, profile, 0, gpu), machine.device)
    del pipe
    building.free()
    with _memory_of(machine, gpu):
        row = Row(model=model, label=f"{profile}, as on {gpu.display_name}", references=0)
        row = _edited(machine, row, pipeline, steps, 1)
    # Where some steps are left out, their median says nothing.
    yield row if profile == "exact" else dataclasses.replace(row, step_ms=None, share=None)
    pipeline.close()


@contextlib.contextmanager
def _memory_of(machine: Machine, gpu: GpuType) -> Iterator[None]:
    if machine.device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gpu.memory_gb * 1e9 / total))
    try:
        yield
    finally:
        if machine.device == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)


FIRST = (Case(name="kontext", rows=kontext), Case(name="flux2", rows=flux2), Case(name="klein", rows=klein))

LAST = (
    Case(name="capped", rows=functools.partial(capped, profile="fast", steps=28)),
    Case(name="levers", rows=levers),
    Case(name="capped-exact", rows=functools.partial(capped, profile="exact", steps=FEW_STEPS)),
    Case(name="capped-h100", rows=functools.partial(capped, profile="exact", steps=28, gpu_type="h100")),
)
"""What there may be no time for."""
