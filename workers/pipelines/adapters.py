"""Merges a LoRA into a pipeline's weights, and refuses what it would not merge whole.

Read are safetensors files as kohya's sd-scripts, ai-toolkit, ComfyUI, diffusers and PEFT write them. diffusers' own loader passes
over names that it does not know, and what loads then is the base model; here every layer of a file has to match one of the model.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from huggingface_hub import hf_hub_download, list_repo_files

from storage.contracts import errors
from workers.pipelines import adapter_names
from workers.pipelines.adapter_names import Target

DEFAULT_FILE = "pytorch_lora_weights.safetensors"

PART = re.compile(
    r"^(?P<layer>.+?)\.(?:(?P<down>lora_A(?:\.\w+)?\.weight|lora_down\.weight|lora\.down\.weight)"
    r"|(?P<up>lora_B(?:\.\w+)?\.weight|lora_up\.weight|lora\.up\.weight)|(?P<alpha>alpha))$"
)
"""A tensor's name: the layer, and which of its matrices. PEFT puts the adapter's name (`default`) in between."""

UNREADABLE = ("dora_scale", "lora_magnitude_vector", "lokr_", "hada_", "oft_", "diff_b", ".diff")
"""In names of tensors of other kinds of adapters."""

SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What was merged: how many layers of the file, into how many of the model, and the norm of the change."""

    layers: int
    linears: int
    norm: float


@dataclass
class _Layer:
    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    alpha: float | None = None


def merge(pipe: Any, source: str, *, name: str, revision: str | None = None, scale: float = 1.0) -> Merged:
    """Add a LoRA to the weights of a pipeline's transformer (and CLIP text encoder): W + scale * alpha / rank * up @ down.

    `source` is a file, a folder with one file, or a repository on the hub. Raises `errors.ModelUnavailableError` naming what
    is wrong; then nothing was merged, unless the sizes of a later layer do not fit.
    """
    path = _file(source, name, revision)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        layers = _layers({key: file.get_tensor(key) for key in file.keys()}, name)  # noqa: SIM118  (no mapping)
    alphas = _alphas(metadata, path.parent / "adapter_config.json")
    known = adapter_names.targets(pipe.transformer, getattr(pipe, "text_encoder", None) if _has_clip(pipe) else None)
    unknown = [layer for layer in layers if adapter_names.plain(layer) not in known]
    if unknown:
        raise errors.ModelUnavailableError(
            f"{name}: {len(unknown)} of {len(layers)} layers of the LoRA are none of {type(pipe.transformer).__name__}'s: "
            f"{_listed(unknown)}. Read are the formats of kohya, ai-toolkit, ComfyUI, diffusers and PEFT"
        )
    norm, linears = 0.0, 0
    with torch.no_grad():
        for layer, parts in layers.items():
            factor = scale * _factor(layer, parts, alphas)
            change, count = _add(pipe, known[adapter_names.plain(layer)], parts, factor, f"{name}: {layer}")
            norm, linears = norm + change, linears + count
    if norm == 0:
        raise errors.ModelUnavailableError(f"{name}: the LoRA changes no weight: all its matrices are zero")
    return Merged(layers=len(layers), linears=linears, norm=norm)


def _file(source: str, name: str, revision: str | None) -> Path:
    path = Path(source)
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir() if file.suffix == ".safetensors")
        return path / _only(names, [file.name for file in path.iterdir()], name)
    if path.suffix == ".safetensors" and path.is_file():
        return path
    if path.exists():
        raise errors.ModelUnavailableError(
            f"{name}: the LoRA {path.name} is no safetensors file; no other kind is read"
        )
    files = list_repo_files(source, revision=revision)
    chosen = _only([one for one in files if one.endswith(".safetensors")], files, name)
    return Path(hf_hub_download(source, chosen, revision=revision))


def _only(names: list[str], all_names: Iterable[str], name: str) -> str:
    if len(names) == 1 or DEFAULT_FILE in names:
        return names[0] if len(names) == 1 else DEFAULT_FILE
    found = (
        f"{len(names)}: {_listed(names)}"
        if names
        else f"none, but {_listed(sorted(all_names)) or 'nothing else either'}"
    )
    raise errors.ModelUnavailableError(f"{name}: the LoRA's folder must hold one safetensors file; it holds {found}")


def _layers(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, _Layer]:
    layers: dict[str, _Layer] = {}
    unread = []
    for key, tensor in tensors.items():
        found = PART.match(key)
        if found is None or any(word in key for word in UNREADABLE):
            unread.append(key)
            continue
        layer = layers.setdefault(found["layer"], _Layer())
        if found["alpha"]:
            layer.alpha = float(tensor)
        elif found["down"]:
            layer.down = tensor
        else:
            layer.up = tensor
    incomplete = [layer for layer, parts in layers.items() if parts.down is None or parts.up is None]
    if unread or incomplete or not layers:
        what = _listed(unread or incomplete) or "it is empty"
        raise errors.ModelUnavailableError(f"{name}: what the LoRA's file holds is not pairs of LoRA matrices: {what}")
    return layers


def _alphas(metadata: Mapping[str, str], config: Path) -> Mapping[str, Any]:
    """`lora_alpha`, `r` and `use_rslora`, where diffusers writes them into the file or PEFT beside it."""
    if config.is_file():
        found: dict[str, Any] = json.loads(config.read_text())
        return found
    try:
        written = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        return {}
    return {key.removeprefix("transformer."): value for key, value in written.items()}


def _factor(layer: str, parts: _Layer, settings: Mapping[str, Any]) -> float:
    assert parts.down is not None  # noqa: S101  (incomplete layers were refused)
    rank = parts.down.shape[0]
    alpha = parts.alpha
    if alpha is None:
        by_layer = settings.get("alpha_pattern") or {}
        alpha = next(
            (value for key, value in by_layer.items() if layer.endswith(key)), settings.get("lora_alpha", rank)
        )
    return float(float(alpha) / (rank**0.5 if settings.get("use_rslora") else rank))


def _add(pipe: Any, target: Target, parts: _Layer, factor: float, where: str) -> tuple[float, int]:
    """Returns the norm of the change and how many linear layers it was shared out to."""
    assert parts.down is not None  # noqa: S101
    assert parts.up is not None  # noqa: S101
    linears = [_linear(pipe, one) for one in target.names]
    rows = sum(linear.out_features for linear in linears)
    up, down = parts.up.flatten(1), parts.down.flatten(1)
    if up.shape[1] != down.shape[0] or (up.shape[0], down.shape[1]) != (rows, linears[0].in_features):
        raise errors.ModelUnavailableError(
            f"{where} is for {up.shape[0]}x{down.shape[1]} weights, and the model's are {rows}x{linears[0].in_features}"
        )
    device = linears[0].weight.device
    change = factor * (up.to(device, torch.float32) @ down.to(device, torch.float32))
    if target.swapped:
        change = torch.cat(change.chunk(2)[::-1])
    start = 0
    for linear in linears:
        if not linear.weight.is_floating_point():
            raise errors.ModelUnavailableError(f"{where}: a LoRA cannot be merged into weights of 4 bits")
        share = change[start : start + linear.out_features]
        linear.weight.copy_((linear.weight.float() + share).to(linear.weight.dtype))
        start += linear.out_features
    return float(change.norm()), len(linears)


def _linear(pipe: Any, name: str) -> torch.nn.Linear:
    if name.startswith("text_encoder."):
        return pipe.text_encoder.get_submodule(name.removeprefix("text_encoder."))
    return pipe.transformer.get_submodule(name)


def _has_clip(pipe: Any) -> bool:
    return getattr(pipe, "text_encoder_2", None) is not None


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
