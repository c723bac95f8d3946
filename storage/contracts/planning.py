"""Choosing an execution plan: the sums of each, in the order of a profile, best first. Pure.

`planned` takes the first that fits, and a worker that runs out of memory all the same takes the next that needs less (`below`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from storage.contracts import errors
from storage.contracts.catalog import Catalog, Model
from storage.contracts.gpus import GpuType
from storage.contracts.plans import (
    BYTES,
    CONTEXT_GB,
    FP8_CAPABILITY,
    HOST_GB,
    RESIDENT,
    SLOTS,
    TILE_PIXELS,
    WORKSPACE_KB_PER_PIXEL,
    Format,
    PartPlan,
    Phases,
    Plan,
    TextEncoding,
    Workload,
)
from storage.contracts.weights import Memory, Part

MODULATIONS = 10
"""Vectors of the transformer's width that the first step of weights with `caches_references` keeps for each token of picture and
references: nine of modulations, one of putting them together. On meta tensors 82 KB were counted for FLUX.2 [klein] 9B."""


GGUF: tuple[Format, ...] = ("q8", "q6", "q5", "q4")


def heaviest(model: Model) -> Workload:
    """The largest edit that the model accepts."""
    references = 1 if model.stitches else model.max_references
    pixels = min(model.frame.max_pixels, model.frame.render_pixels or model.frame.max_pixels)
    return Workload(pixels=pixels, references=references)


def total_gb(together: Sequence[Plan]) -> float:
    """GB of several models on one GPU, of which one works at a time."""
    resting = sum(plan.phases.resting for plan in together)
    return resting + max((plan.phases.working for plan in together), default=0.0) + CONTEXT_GB


def total_host_gb(together: Sequence[Plan]) -> float:
    """GB of host memory of several models in one process."""
    return HOST_GB + sum(plan.phases.host - HOST_GB for plan in together)


def is_separable(model: Model) -> bool:
    """Whether its text encoder may run on another worker. One that writes prompts anew sees the references, and may not."""
    return model.pipeline != "stand_in" and not model.weights.whole_text_encoder


def ladder(
    model: Model, gpu: GpuType, workload: Workload | None = None, *, encoding: TextEncoding = "here"
) -> Iterator[Plan]:
    """Every plan of the model's profile for that kind of GPU, best first, whether it fits or not.

    Sums are for `workload`, by default the heaviest edit that the model accepts.
    """
    memory = model.loaded_memory
    if not is_separable(model):
        if encoding == "only":
            return
        encoding = "here"
    if memory is None:
        if encoding in ("elsewhere", "only"):
            yield replace(RESIDENT, encoding=encoding)
        if encoding != "only":
            yield RESIDENT
        return
    workload = workload or heaviest(model)
    for choice in _choices(model, memory, gpu, encoding):
        yield replace(choice, phases=_sums(memory, choice, workload, caches_references=model.weights.caches_references))


def _choices(model: Model, memory: Memory, gpu: GpuType, encoding: TextEncoding) -> Iterator[Plan]:
    given = model.weights.format
    format_: Format = "fp8" if given == "bf16" and model.profile == "fast" else given
    layers, read = memory.transformer.count, memory.text_encoder.count
    # A GGUF file has the transformer alone.
    encoder: Format = "nf4" if given == "nf4" else "bf16"
    best = Plan(
        profile=model.profile,
        transformer=PartPlan(format=format_, layers=layers),
        text_encoder=PartPlan(format=encoder, layers=read),
        compiled=gpu.capability is not None and encoding != "only",
        step_cache=model.profile == "fast" and encoding != "only",
        encoding="only" if encoding == "only" else "here",
    )
    streamed = replace(best, text_encoder=replace(best.text_encoder, streamed=read))
    if encoding == "only":
        yield best
        if gpu.capability is not None:
            yield streamed
        return
    elsewhere = replace(best, encoding="elsewhere")
    if gpu.capability is None:
        # A device without memory of its own: there is nowhere to stream from.
        yield from (elsewhere, best) if encoding == "elsewhere" else (best,)
        return
    if format_ == "fp8" and gpu.capability < FP8_CAPABILITY:
        return
    yield from (elsewhere, best) if encoding == "elsewhere" else (best,)
    short = [elsewhere] if encoding != "here" else []
    if not memory.text_encoder.stays:
        short.append(streamed)
    yield from (plan for plan in short if plan != elsewhere or encoding == "either")
    for count in range(1, layers + 1):
        for plan in short or [best]:
            yield replace(plan, transformer=replace(plan.transformer, streamed=count))
    for plan in short or [best]:
        yield replace(plan, transformer=replace(plan.transformer, streamed=layers), tiled=True)


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


def _sums(memory: Memory, plan: Plan, workload: Workload, *, caches_references: bool) -> Phases:
    encoder, encoder_slots, encoder_host = _on_gpu(memory.text_encoder, plan.text_encoder)
    activations = memory.text_encoder.activations
    if plan.encoding == "only":
        resting = encoder - memory.pooled
        encoding = resting + encoder_slots + activations
        host = HOST_GB + encoder_host
        return Phases(resting=resting, load=resting, encode=encoding, denoise=resting, decode=resting, host=host)
    if plan.encoding == "elsewhere":
        encoder, encoder_slots, encoder_host, activations = memory.pooled, 0.0, 0.0, 0.0
    denoiser, denoiser_slots, denoiser_host = _on_gpu(memory.transformer, plan.transformer)
    resting = denoiser + denoiser_slots + encoder + memory.vae
    references = workload.references * memory.reference_tokens
    computing = memory.token_kb * (memory.text_tokens + workload.pixels / 256 + references)
    cached = 0.0
    if caches_references:
        # The first step modulates the picture's tokens and the references' apart: vectors of the width of a key for each.
        width_kb = memory.reference_cache_kb / (2 * memory.transformer.count)
        cached = memory.reference_cache_kb * references
        cached += MODULATIONS * width_kb * (workload.pixels / 256 + references)
    seen = memory.reference_tokens * 256 if workload.references else 0
    decoded = min(workload.pixels, TILE_PIXELS) if plan.tiled else workload.pixels
    decoding = memory.decode_kb_per_pixel + WORKSPACE_KB_PER_PIXEL
    quantising = max(layer.gb for layer in memory.transformer.layers) if plan.transformer.format == "fp8" else 0.0
    # Of a GGUF file each layer's weights are made anew when it runs.
    made = max(layer.quantised for layer in memory.transformer.layers) if plan.transformer.format in GGUF else 0.0
    # bitsandbytes puts all that it reads on the GPU, from where streamed layers go.
    whole = denoiser + denoiser_host + encoder + encoder_host + memory.vae
    return Phases(
        resting=resting,
        load=max(resting + quantising, whole if plan.transformer.format == "nf4" else 0.0),
        # The slots of a streamed text encoder are given back before the first step.
        encode=resting + encoder_slots + activations,
        denoise=resting + max((computing + cached) / 1e6 + made, memory.encode_kb_per_pixel * seen / 1e6),
        # Tiles are put together in a picture that is decoded already.
        decode=resting + (decoding * decoded + (0.012 * workload.pixels if plan.tiled else 0)) / 1e6,
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
    encoding: TextEncoding = "here",
) -> Plan | None:
    """The best plan that fits the heaviest edit the model accepts, or `workload`; None when none does."""
    plans = ladder(model, gpu, workload, encoding=encoding)
    return next((plan for plan in plans if fits(plan, gpu, room_gb=room_gb, host_gb=host_gb)), None)


def below(
    plan: Plan, model: Model, gpu: GpuType, *, host_gb: float | None = None, encoding: TextEncoding = "here"
) -> Plan | None:
    """The next plan that needs at least a twentieth less than one that ran out of memory; None when there is none."""
    after = False
    for other in ladder(model, gpu, encoding=encoding):
        # What was learnt at run time (not to compile, say) is not part of the order.
        same = (other.transformer, other.text_encoder, other.tiled, other.encoding)
        if after and other.peak_gb <= 0.95 * plan.peak_gb and fits(other, gpu, host_gb=host_gb):
            return replace(other, stepped_down=True)
        after = after or same == (plan.transformer, plan.text_encoder, plan.tiled, plan.encoding)
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
    nearest = f"the smallest GPU that it fits is {min(fitting)[1]}" if fitting else "it fits no listed GPU type"
    return errors.ModelUnavailableError(
        f"{name} on {gpu_type} needs {least.peak_gb:.1f} GB at the least, and there are {gpu.memory_gb:g}; {nearest}"
    )
