"""Merges a LoRA into a pipeline's weights, and refuses what it would not merge whole.

diffusers' own loader passes over names that it does not know, and what loads then is the base model. Its converters take FLUX.1's
number of layers and widths for granted, drop keys around the blocks, and ignore alpha in some formats (0.42.1). So every layer of
a file is looked up here among the model's own, by all names that trainers give it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from storage.contracts import errors
from workers.pipelines import adapter_files, adapter_names
from workers.pipelines.adapter_files import Pair, listed

FAMILIES = {"FluxTransformer2DModel": 1, "Flux2Transformer2DModel": 2}
"""Which FLUX a transformer's class is of."""

READ = "kohya, ai-toolkit, ComfyUI, diffusers, PEFT and XLabs (FLUX.1)"


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What was merged: how many `layers` of the file, into how many linear layers of the model, and the norm of the change."""

    format: str
    layers: int
    linears: int
    norm: float


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A layer of a file, and the model's linear layers whose rows, one after the other, are its rows."""

    name: str
    pair: Pair
    linears: tuple[torch.nn.Linear, ...]
    swapped: bool

    def change(self, scale: float) -> torch.Tensor:
        """What is to be added to the weights, (rows, in) in float32, where they are."""
        device = self.linears[0].weight.device
        change = scale * self.pair.factor * (self.pair.up.to(device).float() @ self.pair.down.to(device).float())
        return self.ordered(change)

    def ordered(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of the file in the order that the model has them in."""
        return torch.cat(rows.chunk(2)[::-1]) if self.swapped else rows


def merge(pipe: Any, source: str | Path, *, revision: str | None = None, scale: float = 1.0) -> Merged:
    """Add a LoRA to the weights of a pipeline's transformer (and CLIP text encoder): W + scale * alpha / rank * up @ down.

    `source` is a file, a folder with one file, or a repository on the hub. Raises `errors.ModelUnavailableError` saying what is
    wrong with it: unless its numbers are not finite or too small, no weight has changed then.
    """
    adapter = adapter_files.read(source, revision)
    layers = _placed(pipe, adapter)
    norm, changed = 0.0, 0
    with torch.no_grad():
        for layer in layers:
            change = layer.change(scale)
            if not math.isfinite(size := float(change.norm())):
                raise errors.ModelUnavailableError(f"{layer.name} has numbers that are not finite")
            norm += size
            changed += _add(layer.linears, change)
    if not changed:
        precision = str(layers[0].linears[0].weight.dtype).removeprefix("torch.")
        raise errors.ModelUnavailableError(f"it is too weak to change a weight in {precision}")
    return Merged(
        format=adapter.format, layers=len(layers), linears=sum(len(layer.linears) for layer in layers), norm=norm
    )


class ScaledLinear(torch.nn.Linear):  # type: ignore[misc]
    """A linear layer with a LoRA beside its weights: W x + up (down x), where `up` has the scale in it.

    Both matrices are plain attributes, no buffers: where layers are streamed, these stay on the device.
    """

    down: torch.Tensor
    up: torch.Tensor
    unscaled: torch.Tensor

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Values (…, in_features) to (…, out_features)."""
        return super().forward(values) + functional.linear(functional.linear(values, self.down), self.up)


class Scalable:
    """The LoRA of a transformer that is not merged."""

    def __init__(self, linears: Sequence[ScaledLinear]) -> None:
        self._linears = linears
        self._placed: tuple[float, torch.device] | None = None

    def set(self, scale: float, device: torch.device) -> None:
        """From now on it works so strongly; 0 is not at all, 1 as it was trained. Nothing adds up."""
        if self._placed == (scale, device):
            return
        with torch.no_grad():
            for one in self._linears:
                if one.up.device != device:
                    one.down, one.up = one.down.to(device), one.up.to(device)
                # In place: compiled code reads it where it is. What it is made of stays in host memory.
                one.up.copy_(one.unscaled * scale)
        self._placed = scale, device


def attach(pipe: Any, source: str | Path, *, revision: str | None = None) -> Scalable:
    """Put a LoRA beside the weights of a pipeline's transformer, which then has it as `scalable_lora`. Raises as `merge`."""
    layers = _placed(pipe, adapter_files.read(source, revision))
    inside = set(pipe.transformer.modules())
    scaled: list[ScaledLinear] = []
    for layer in layers:
        up = layer.ordered(layer.pair.factor * layer.pair.up.float())
        if not (torch.isfinite(up).all() and torch.isfinite(layer.pair.down).all()):
            raise errors.ModelUnavailableError(f"{layer.name} has numbers that are not finite")
        for one, rows in zip(layer.linears, up.split([one.out_features for one in layer.linears]), strict=True):
            if one not in inside:
                raise errors.ModelUnavailableError(f"{layer.name} is of the text encoder, and is merged or not at all")
            # The weights stay where they are; only what is computed with them changes.
            one.__class__ = ScaledLinear
            scaled.append(one)
            scaled[-1].down, scaled[-1].unscaled = layer.pair.down.to(one.weight.dtype), rows.contiguous()
            scaled[-1].up = rows.to(one.weight.dtype, copy=True)
    pipe.transformer.scalable_lora = Scalable(scaled)
    return pipe.transformer.scalable_lora  # type: ignore[no-any-return]


def _placed(pipe: Any, adapter: adapter_files.Adapter) -> list[Placed]:
    kind = type(pipe.transformer).__name__
    if adapter.family not in {None, FAMILIES.get(kind)}:
        raise errors.ModelUnavailableError(f"it is for FLUX.{adapter.family}, and the model is a {kind}")
    pairs = {name: pair for name, pair in adapter.pairs.items() if not pair.is_zero}
    if not pairs:
        raise errors.ModelUnavailableError("it changes no weight: all its matrices are zero")
    # CLIP beside T5; nobody tunes the language models of FLUX.2.
    clip = pipe.text_encoder if getattr(pipe, "text_encoder_2", None) is not None else None
    known = adapter_names.targets(pipe.transformer, clip)
    unknown = [name for name in pairs if adapter_names.plain(name) not in known]
    if unknown:
        raise errors.ModelUnavailableError(
            f"{len(unknown)} of its {len(pairs)} layers are none of a {kind}: {listed(unknown)}. Read are {READ}"
        )
    targets = {name: known[adapter_names.plain(name)] for name in pairs}
    twice = [
        name for name, count in Counter(one for target in targets.values() for one in target.names).items() if count > 1
    ]
    if twice:
        raise errors.ModelUnavailableError(f"it names {listed(twice)} twice")
    layers = [
        Placed(
            name=name,
            pair=pair,
            linears=tuple(_linear(pipe, one) for one in targets[name].names),
            swapped=targets[name].swapped,
        )
        for name, pair in pairs.items()
    ]
    for layer in layers:
        _check_sizes(layer)
    return layers


def _check_sizes(layer: Placed) -> None:
    if not all(linear.weight.is_floating_point() for linear in layer.linears):
        raise errors.ModelUnavailableError(f"{layer.name} cannot be merged into weights of 4 bits")
    down, up = layer.pair.down, layer.pair.up
    if up.shape[1] != down.shape[0]:
        raise errors.ModelUnavailableError(
            f"{layer.name} has a rank of {down.shape[0]} on one side and {up.shape[1]} on the other"
        )
    rows, columns = sum(linear.out_features for linear in layer.linears), layer.linears[0].in_features
    if (up.shape[0], down.shape[1]) != (rows, columns):
        raise errors.ModelUnavailableError(
            f"{layer.name} is for {up.shape[0]}x{down.shape[1]} weights, and the model's are {rows}x{columns}"
        )


def _add(linears: tuple[torch.nn.Linear, ...], change: torch.Tensor) -> int:
    """Returns of how many linear layers the weights have changed; in bf16 a small change may be rounded away."""
    changed = 0
    for linear, share in zip(linears, change.split([linear.out_features for linear in linears]), strict=True):
        after = (linear.weight.float() + share).to(linear.weight.dtype)
        changed += not torch.equal(after, linear.weight)
        linear.weight.copy_(after)
    return changed


def _linear(pipe: Any, name: str) -> torch.nn.Linear:
    if name.startswith("text_encoder."):
        return pipe.text_encoder.get_submodule(name.removeprefix("text_encoder."))
    return pipe.transformer.get_submodule(name)
