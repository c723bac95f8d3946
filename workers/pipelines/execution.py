"""Carries out an execution plan: formats, streamed layers, compilation. One function, `applied`."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from storage.contracts.plans import SLOTS, TILE_PIXELS, PartPlan, Plan
from workers.pipelines import fp8, streams
from workers.pipelines.stepcache import StepCache

log = logging.getLogger(__name__)

RECOMPILATIONS = 64
"""Of one kind of layer in this process: for each model, format and size (two, then any). PyTorch's default, eight, is less than
two models of a family need, after which it computes eagerly."""

TEXT_ENCODERS = ("text_encoder_2", "text_encoder")
"""With two of them the second is the large one (T5 beside CLIP)."""


@dataclass
class Applied:
    """A pipeline that is where its plan says. `text_encoder` and `transformer` are the rings of streamed layers, if any are."""

    pipe: Any
    revision: str | None = None
    """Of the weights: a commit of the hub, or a fingerprint."""
    text_encoder: streams.Ring | None = None
    transformer: streams.Ring | None = None
    quantised: int = 0
    """Linear layers that multiply in fp8."""
    compiled: list[torch.nn.Module] = field(default_factory=list)
    step_cache: StepCache | None = None
    _postponed: list[Any] = field(default_factory=list)

    @property
    def computed(self) -> Any:
        """The transformer as a function that computes every time."""
        return self.step_cache.compute if self.step_cache is not None else self.pipe.transformer

    def encoded(self) -> None:
        """The prompt is encoded: what that took of the GPU is free for denoising."""
        if self.text_encoder is not None:
            self.text_encoder.release()

    def postpone_compiled(self) -> None:
        """Run no compiled code until `resume_compiled`."""
        self._postponed = [layer._compiled_call_impl for layer in self.compiled]
        for layer in self.compiled:
            layer._compiled_call_impl = None

    def resume_compiled(self) -> None:
        """Run compiled code again, which is compiled when it is first called."""
        for layer, code in zip(self.compiled, self._postponed, strict=False):
            layer._compiled_call_impl = code
        self._postponed = []

    @property
    def is_eager(self) -> bool:
        """Whether compiled code is postponed."""
        return bool(self._postponed)

    def compute_eagerly(self) -> None:
        """Run no compiled code from now on."""
        for layer in self.compiled:
            layer._compiled_call_impl = None
        self.compiled.clear()

    def close(self) -> None:
        """Unpin host memory."""
        for ring in (self.text_encoder, self.transformer):
            if ring is not None:
                ring.close()


def stacks(part: torch.nn.Module) -> list[torch.nn.ModuleList]:
    """A part's repeated layers: a transformer's stacks in the order in which they run, or a text encoder's one."""
    top = [child for child in part.children() if isinstance(child, torch.nn.ModuleList)]
    if top:
        return top
    inner = [module for module in part.modules() if isinstance(module, torch.nn.ModuleList)]
    return [max(inner, key=lambda stack: sum(weight.numel() for weight in stack.parameters()))] if inner else []


def applied(pipe: Any, plan: Plan, device: str) -> Applied:
    """Put every part where the plan says, in the format it says.

    Weights that are quantised when this is called (4 bits, a checkpoint's own) stay as they are. Raises what torch raises when
    memory runs out.
    """
    result = Applied(pipe)
    if pipe.transformer is not None:
        _denoiser_applied(result, plan, device)
    for name in TEXT_ENCODERS:
        encoder = getattr(pipe, name, None)
        if encoder is not None and result.text_encoder is None and plan.encoding != "elsewhere":
            result.text_encoder = _streamed(encoder, plan.text_encoder, device, wraps=False)
    for part in pipe.components.values():
        # bitsandbytes loads its own to the GPU, and refuses to move them.
        if isinstance(part, torch.nn.Module) and not getattr(part, "is_loaded_in_4bit", False):
            part.to(device)
    return result


def _denoiser_applied(result: Applied, plan: Plan, device: str) -> None:
    pipe, transformer = result.pipe, result.pipe.transformer
    layers = [layer for stack in stacks(transformer) for layer in stack]
    if plan.transformer.format == "fp8":
        result.quantised = _quantised(layers, _turns(plan.transformer, len(layers)), device)
    if plan.compiled:
        for layer in layers:
            # For all sizes at once: a second one would be compiled for anew, in the middle of somebody's edit.
            layer.compile(dynamic=True)
            result.compiled.append(layer)
        torch._dynamo.config.recompile_limit = RECOMPILATIONS
    result.transformer = _streamed(transformer, plan.transformer, device)
    pipe.vae.to(memory_format=torch.channels_last)
    if plan.step_cache:
        result.step_cache = StepCache(transformer)
    if plan.tiled:
        _tiled(pipe.vae)


def _tiled(vae: Any) -> None:
    """Decode in tiles of `TILE_PIXELS`; by itself diffusers takes the size it was trained with, four times as large."""
    vae.enable_tiling()
    scale = vae.tile_sample_min_size // vae.tile_latent_min_size
    vae.tile_sample_min_size = min(vae.tile_sample_min_size, math.isqrt(TILE_PIXELS))
    vae.tile_latent_min_size = vae.tile_sample_min_size // scale
    encode = vae.encode

    def whole(*arguments: Any, **named: Any) -> Any:
        # What goes in is read as one picture, for which the plan has room.
        vae.use_tiling = False
        try:
            return encode(*arguments, **named)
        finally:
            vae.use_tiling = True

    vae.encode = whole


def _turns(plan: PartPlan, count: int) -> tuple[int, ...]:
    """Which of a part's layers are streamed; of a part with another number of layers than planned for, the same share."""
    streamed = plan.streamed if count == plan.layers else math.ceil(count * plan.streamed / max(plan.layers, 1))
    return PartPlan(layers=count, streamed=streamed).streamed_layers


def _quantised(layers: Sequence[torch.nn.Module], streamed: Sequence[int], device: str) -> int:
    """Quantised on the device, a linear layer at a time; what is streamed goes back."""
    done = 0
    for index, layer in enumerate(layers):
        done += fp8.quantise(layer, device)
        if index in streamed:
            layer.to("cpu")
    return done


def _streamed(part: torch.nn.Module, plan: PartPlan, device: str, *, wraps: bool = True) -> streams.Ring | None:
    if not plan.streamed:
        return None
    layers = stacks(part)
    turns = _turns(plan, sum(len(stack) for stack in layers))
    return streams.streamed(layers, turns, device, SLOTS, wraps=wraps) if turns else None
