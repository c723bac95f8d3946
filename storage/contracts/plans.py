"""Execution plans: how a model runs on a GPU, and the sums of bytes it was chosen by. Pure.

A plan says for the transformer and the text encoder in which format their weights are and how many of their layers are streamed:
kept in the machine's memory and copied to the GPU, layer by layer, ahead of the computing. It has a sum for each phase (load,
encode, denoise, decode) and one for host memory. GB are 10^9 bytes.

The plans of a profile stand in an order, best first; `planned` takes the first that fits, and a worker that runs out of memory
all the same takes the next that needs less (`below`).

- `exact`: bf16 weights throughout; only rounding differs from the published pipeline. When memory is short, first the text
  encoder is streamed (it runs once an edit), then ever more layers of the transformer.
- `fast`: the transformer's linear layers multiply in fp8, or the weights come in 4 bits; and in some of many steps its output is
  extrapolated instead of computed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from storage.contracts import errors
from storage.contracts.catalog import Catalog, GpuType, Memory, Model, Part, Profile, WeightFormat

CONTEXT_GB = 1.0
"""What the CUDA context, cuBLAS' workspaces and the compiled kernels take before a model is there."""

SLOTS = 2
"""Layers of a streamed part on the GPU at once: one computes while the next arrives."""

TILE_PIXELS = 512 * 512
"""Decoded at once where the autoencoder works in tiles (diffusers' default tile)."""

HOST_GB = 6.0
"""What a worker's process takes of host memory besides streamed weights: libraries, decoded pictures, prompt embeddings."""

FP8_CAPABILITY = 8.9
"""Compute capability from which on tensor cores multiply fp8 (Ada, Hopper, Blackwell)."""
CUDNN_CAPABILITY = 9.0
"""The same from which on cuDNN's attention is faster than PyTorch's own (Hopper, Blackwell)."""

Format = WeightFormat | Literal["fp8"]

BYTES: dict[Format, float] = {
    "bf16": 1.0, "fp8": 0.5, "nf4": 0.28125, "q8": 0.53125, "q6": 0.4102, "q5": 0.34375, "q4": 0.28125,
}  # fmt: skip
"""A quantised weight's bytes against bf16. nf4: 4 bits, and a float32 scale for 64 weights; GGUF's by their blocks."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What an edit asks of memory: rendered pixels and reference pictures."""

    pixels: int
    references: int


def heaviest(model: Model) -> Workload:
    """The largest edit that the model accepts."""
    references = 1 if model.stitches else model.max_references
    pixels = min(model.frame.max_pixels, model.frame.render_pixels or model.frame.max_pixels)
    return Workload(pixels=pixels, references=references)


@dataclass(frozen=True, kw_only=True)
class PartPlan:
    """One part's format and how many of its `layers` are streamed."""

    format: Format = "bf16"
    layers: int = 0
    streamed: int = 0

    @property
    def streamed_layers(self) -> tuple[int, ...]:
        """Which layers are streamed: spread evenly, so that copies hide behind the layers that stay."""
        return tuple(math.floor(index * self.layers / self.streamed) for index in range(self.streamed))


@dataclass(frozen=True, kw_only=True)
class Phases:
    """GB on the GPU at the most in each phase, without the context; between edits (`resting`); and of host memory (`host`)."""

    resting: float
    load: float
    encode: float
    denoise: float
    decode: float
    host: float

    @property
    def measured(self) -> dict[str, float]:
        """The sums of those phases that a worker measures with each edit."""
        return {name: round(getattr(self, name), 2) for name in ("encode", "denoise", "decode")}

    @property
    def working(self) -> float:
        """What the heaviest phase needs besides what rests."""
        return max(self.load, self.encode, self.denoise, self.decode) - self.resting


NOTHING = Phases(resting=0, load=0, encode=0, denoise=0, decode=0, host=0)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a model runs on a GPU.

    `compiled` by TorchInductor, layer by layer; `attention` is `native` (PyTorch's) or `cudnn`; `tiled` decodes in tiles, which
    may show at their seams; `step_cache` leaves out some steps of the transformer; `stepped_down`: a better one ran out of
    memory.
    """

    profile: Profile = "exact"
    transformer: PartPlan = PartPlan()
    text_encoder: PartPlan = PartPlan()
    attention: Literal["native", "cudnn"] = "native"
    compiled: bool = False
    tiled: bool = False
    step_cache: bool = False
    stepped_down: bool = False
    phases: Phases = NOTHING

    @property
    def name(self) -> str:
        """What receipts and plans call it."""
        words: list[str] = [self.transformer.format]
        if self.transformer.streamed:
            words.append(f"{self.transformer.streamed} of {self.transformer.layers} layers streamed")
        else:
            words.append("resident")
        if self.text_encoder.format != "bf16":
            words.append(f"text encoder {self.text_encoder.format}")
        if self.text_encoder.streamed:
            words.append("text encoder streamed")
        if self.step_cache:
            words.append("step cache")
        if self.tiled:
            words.append("decoded in tiles")
        if self.stepped_down:
            words.append("after running out of memory")
        return ", ".join(words)

    @property
    def peak_gb(self) -> float:
        """The most GB on the GPU at once, the context included."""
        return round(self.phases.resting + self.phases.working + CONTEXT_GB, 2)


RESIDENT = Plan()
"""Everything on the device, nothing compiled: what a model so small needs that the catalog does not say its memory."""


def total_gb(together: Sequence[Plan]) -> float:
    """GB of several models on one GPU, of which one works at a time."""
    resting = sum(plan.phases.resting for plan in together)
    return resting + max((plan.phases.working for plan in together), default=0.0) + CONTEXT_GB


def ladder(model: Model, gpu: GpuType, workload: Workload | None = None) -> Iterator[Plan]:
    """Every plan of the model's profile for that kind of GPU, best first, whether it fits or not.

    Sums are for `workload`, by default the heaviest edit that the model accepts.
    """
    memory = model.loaded_memory
    if memory is None:
        yield RESIDENT
        return
    workload = workload or heaviest(model)
    for transformer, text_encoder, tiled in _choices(model, memory, gpu):
        yield Plan(
            profile=model.profile,
            transformer=transformer,
            text_encoder=text_encoder,
            attention="cudnn" if (gpu.capability or 0) >= CUDNN_CAPABILITY else "native",
            compiled=gpu.capability is not None,
            tiled=tiled,
            step_cache=model.profile == "fast",
            phases=_sums(memory, transformer, text_encoder, workload, tiled=tiled),
        )


def _choices(model: Model, memory: Memory, gpu: GpuType) -> Iterator[tuple[PartPlan, PartPlan, bool]]:
    given = model.weights.format
    format_: Format = "fp8" if given == "bf16" and model.profile == "fast" else given
    layers, read = memory.transformer.count, memory.text_encoder.count
    # A GGUF file has the transformer alone.
    encoder: Format = "nf4" if given == "nf4" else "bf16"
    whole, here = PartPlan(format=format_, layers=layers), PartPlan(format=encoder, layers=read)
    if gpu.capability is None:
        # A device without memory of its own: there is nowhere to stream from.
        yield whole, here, False
        return
    if format_ == "fp8" and gpu.capability < FP8_CAPABILITY:
        return
    yield whole, here, False
    streamed = here if memory.text_encoder.stays else replace(here, streamed=read)
    if streamed != here:
        yield whole, streamed, False
    for count in range(1, layers + 1):
        yield replace(whole, streamed=count), streamed, False
    yield replace(whole, streamed=layers), streamed, True


def _layer_gb(part: Part, format_: Format) -> list[float]:
    """GB of every layer, in the order in which they run."""
    kept = 1 - BYTES[format_]
    return [layer.gb - kept * layer.quantised for layer in part.layers for _ in range(layer.count)]


def _on_gpu(part: Part, plan: PartPlan) -> tuple[float, float, float]:
    """GB that stay on the GPU, of the slots that streamed layers pass through, and of what is streamed."""
    layers = _layer_gb(part, plan.format)
    streamed = [layers[index] for index in plan.streamed_layers]
    slots = min(SLOTS, len(streamed)) * max(streamed, default=0.0)
    return part.outside + sum(layers) - sum(streamed), slots, sum(streamed)


def _sums(memory: Memory, transformer: PartPlan, text_encoder: PartPlan, workload: Workload, *, tiled: bool) -> Phases:
    denoiser, denoiser_slots, denoiser_host = _on_gpu(memory.transformer, transformer)
    encoder, encoder_slots, encoder_host = _on_gpu(memory.text_encoder, text_encoder)
    resting = denoiser + denoiser_slots + encoder + memory.vae
    tokens = memory.text_tokens + workload.pixels / 256 + workload.references * memory.reference_tokens
    seen = memory.reference_tokens * 256 if workload.references else 0
    decoded = min(workload.pixels, TILE_PIXELS) if tiled else workload.pixels
    quantising = max(layer.gb for layer in memory.transformer.layers) if transformer.format == "fp8" else 0.0
    return Phases(
        resting=resting,
        load=resting + quantising,
        # The slots of a streamed text encoder are given back before the first step.
        encode=resting + encoder_slots + memory.text_encoder.activations,
        denoise=resting + max(memory.token_kb * tokens, memory.encode_kb_per_pixel * seen) / 1e6,
        # Tiles are put together in a picture that is decoded already.
        decode=resting + (memory.decode_kb_per_pixel * decoded + (0.012 * workload.pixels if tiled else 0)) / 1e6,
        host=HOST_GB + denoiser_host + encoder_host,
    )


def fits(plan: Plan, gpu: GpuType, *, room_gb: float | None = None, host_gb: float | None = None) -> bool:
    """Whether a plan has room on such a GPU (or in `room_gb` of it), and in `host_gb` of host memory when that is known."""
    room = gpu.memory_gb if room_gb is None else room_gb
    return plan.peak_gb <= room and (host_gb is None or plan.phases.host <= host_gb)


def planned(
    model: Model,
    gpu: GpuType,
    *,
    workload: Workload | None = None,
    room_gb: float | None = None,
    host_gb: float | None = None,
) -> Plan | None:
    """The best plan that fits the heaviest edit the model accepts, or `workload`; None when none does."""
    return next((p for p in ladder(model, gpu, workload) if fits(p, gpu, room_gb=room_gb, host_gb=host_gb)), None)


def below(plan: Plan, model: Model, gpu: GpuType, *, host_gb: float | None = None) -> Plan | None:
    """The next plan that needs at least a twentieth less than one that ran out of memory; None when there is none."""
    after = False
    for other in ladder(model, gpu):
        # What was learnt at run time (not to compile, say) is not part of the order.
        same = (other.transformer, other.text_encoder, other.tiled)
        if after and other.peak_gb <= 0.95 * plan.peak_gb and fits(other, gpu, host_gb=host_gb):
            return replace(other, stepped_down=True)
        after = after or same == (plan.transformer, plan.text_encoder, plan.tiled)
    return None


def refusal(
    known: Catalog, name: str, gpu_type: str, *, model: Model | None = None, host_gb: float | None = None
) -> errors.ModelUnavailableError:
    """Why a model cannot run there, and the smallest GPU type that would do. `model` is the catalog's, unless it is given."""
    wanted, gpu = model or known.model(name), known.gpu_types[gpu_type]
    least = min(ladder(wanted, gpu), key=lambda plan: plan.peak_gb, default=None)
    if least is None:
        return errors.ModelUnavailableError(
            f"{name} multiplies in fp8, for which compute capability {FP8_CAPABILITY} is needed; {gpu_type} has {gpu.capability}"
        )
    if host_gb is not None and planned(wanted, gpu) is not None:
        needs = min(p.phases.host for p in ladder(wanted, gpu) if fits(p, gpu))
        return errors.ModelUnavailableError(
            f"{name} on {gpu_type} needs {needs:.1f} GB of the machine's memory for streamed layers, and there are {host_gb:.1f}"
        )
    fitting = [(other.memory_gb, kind) for kind, other in known.gpu_types.items() if planned(wanted, other)]
    nearest = f"the smallest that does is {min(fitting)[1]}" if fitting else "no listed GPU type does"
    return errors.ModelUnavailableError(
        f"{name} needs {least.peak_gb:.1f} GB at the least and {gpu_type} has {gpu.memory_gb:g}; {nearest}"
    )
