"""Reads LoRA files: which file, which pairs of matrices, by which factor. Safetensors only; reading a pickle may run anything."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import safetensors
import torch

from storage.contracts import errors

DEFAULT_FILE = "pytorch_lora_weights.safetensors"

PEFT_CONFIG = "adapter_config.json"

MATRIX = re.compile(
    r"^(?P<layer>.+?)\.(?:(?P<down>lora_A(?:\.\w+)?\.weight|lora_down\.weight|(?:lora\.)?down\.weight)"
    r"|(?P<up>lora_B(?:\.\w+)?\.weight|lora_up\.weight|(?:lora\.)?up\.weight)|(?P<alpha>alpha))$"
)
"""A tensor's name: the layer, and which of its matrices. PEFT puts the adapter's name (`default`) in between."""

OTHER_KINDS = ("dora_scale", "lora_magnitude_vector", "lokr_", "hada_", "oft_", "diff_b", ".diff")
"""In names of tensors of other kinds of adapters."""

FORMATS = (
    ("XLabs", re.compile(r"\.processor\.")),
    ("kohya", re.compile(r"^(lora|lycoris)_")),
    ("ComfyUI", re.compile(r"^(model\.)?diffusion_model\.")),
    ("PEFT", re.compile(r"^base_model\.model\.")),
    ("diffusers", re.compile(r"^(transformer|text_encoder)\.")),
)
"""How the layers' names begin; the first that is met. ai-toolkit writes as ComfyUI or diffusers; without a prefix it is PEFT."""

FAMILY = re.compile(r"flux\W?\.?(\d)", re.IGNORECASE)
"""In what kohya's trainers and the `modelspec` say about the base model: `flux1`, `flux-1-dev/lora`, `flux2_klein_4b`."""

SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A layer of a file: `down` (rank, in), `up` (out, rank), and the `factor` that their product counts by."""

    down: torch.Tensor
    up: torch.Tensor
    factor: float

    @property
    def is_zero(self) -> bool:
        """Whether it changes nothing."""
        return not (self.factor and self.down.any() and self.up.any())


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA as its file has it: pairs by their layers' names, and the FLUX generation it says it is for (1 or 2)."""

    format: str
    family: int | None
    pairs: Mapping[str, Pair]


def read(source: str | Path, revision: str | None = None) -> Adapter:
    """Read a file, a folder with one file, or a repository on the hub.

    Raises `errors.ModelUnavailableError` when it is no LoRA, and what safetensors and huggingface_hub raise.
    """
    path = _file(Path(source), str(source), revision)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
    pairs = _pairs(tensors, _settings(metadata, path.parent / PEFT_CONFIG))
    base = metadata.get("ss_base_model_version") or metadata.get("modelspec.architecture") or ""
    family = FAMILY.search(base)
    known = (name for name, prefix in FORMATS if any(prefix.search(key) for key in pairs))
    return Adapter(format=next(known, "PEFT"), family=int(family[1]) if family else None, pairs=pairs)


def _file(path: Path, source: str, revision: str | None) -> Path:
    if path.is_dir():
        return path / _only([file.name for file in path.iterdir()])
    if path.is_file():
        if path.suffix != ".safetensors":
            raise errors.ModelUnavailableError(f"{path.name} is no safetensors file; no other kind is read")
        return path
    try:
        repository = huggingface_hub.model_info(source, revision=revision)
    except Exception:
        # Without the hub, what was fetched before has to do; without that, its error says so.
        folder = Path(huggingface_hub.snapshot_download(source, revision=revision, local_files_only=True))
        return folder / _only([file.name for file in folder.iterdir()])
    names = [file.rfilename for file in repository.siblings or ()]
    if PEFT_CONFIG in names:
        huggingface_hub.hf_hub_download(source, PEFT_CONFIG, revision=repository.sha)
    return Path(huggingface_hub.hf_hub_download(source, _only(names), revision=repository.sha))


def _only(names: Iterable[str]) -> str:
    names = sorted(names)
    readable = [name for name in names if name.endswith(".safetensors")]
    if DEFAULT_FILE in readable:
        return DEFAULT_FILE
    if len(readable) == 1:
        return readable[0]
    there = (
        f"{len(readable)}: {listed(readable)}" if readable else f"none, but {listed(names) or 'nothing else either'}"
    )
    raise errors.ModelUnavailableError(f"its folder must hold one safetensors file; it holds {there}")


def _settings(metadata: Mapping[str, str], config: Path) -> Mapping[str, Mapping[str, Any]]:
    """PEFT's settings for `transformer` and `text_encoder`, as diffusers writes them into the file or PEFT beside it."""
    if config.is_file():
        return {"transformer": json.loads(config.read_text())}
    settings: dict[str, dict[str, Any]] = {}
    for key, value in json.loads(metadata.get("lora_adapter_metadata", "{}")).items():
        part, _, name = key.partition(".")
        settings.setdefault(part, {})[name] = value
    return settings


def _pairs(tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Pair]:
    layers: dict[str, dict[str, torch.Tensor]] = {}
    unread = []
    for key, tensor in tensors.items():
        match = MATRIX.match(key)
        if match is None or any(kind in key for kind in OTHER_KINDS):
            unread.append(key)
        else:
            matrix = next(name for name in ("down", "up", "alpha") if match[name])
            layers.setdefault(match["layer"], {})[matrix] = tensor
    unread += [layer for layer, matrices in layers.items() if not {"down", "up"} <= matrices.keys()]
    if unread or not layers:
        what = listed(unread) or "it is empty"
        raise errors.ModelUnavailableError(f"its file holds not only pairs of LoRA matrices: {what}")
    return {layer: _pair(layer, matrices, settings) for layer, matrices in layers.items()}


def _pair(layer: str, matrices: Mapping[str, torch.Tensor], settings: Mapping[str, Mapping[str, Any]]) -> Pair:
    own = settings.get("text_encoder" if layer.startswith("text_encoder.") else "transformer", {})
    down, up = matrices["down"].flatten(1), matrices["up"].flatten(1)
    rank = down.shape[0]
    alpha = float(matrices["alpha"]) if "alpha" in matrices else _alpha(layer, own, rank)
    return Pair(down=down, up=up, factor=alpha / (rank**0.5 if own.get("use_rslora") else rank))


def _alpha(layer: str, settings: Mapping[str, Any], rank: int) -> float:
    for pattern, alpha in (settings.get("alpha_pattern") or {}).items():
        # As PEFT reads its patterns.
        if re.match(rf"(.*\.)?({pattern})$", layer):
            return float(alpha)
    return float(settings.get("lora_alpha") or rank)


def listed(names: Iterable[str]) -> str:
    """The first few, for an error's sentence."""
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
