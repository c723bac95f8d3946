"""Reads a pipeline part by part: safetensors only, classes of diffusers and transformers only, no code from outside."""

import importlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import safetensors
import torch
import transformers

from storage.contracts import errors
from storage.contracts.catalog import Weights
from storage.contracts.plans import Plan
from workers.pipelines import device, execution, faults
from workers.pipelines.base import OnLoaded

log = logging.getLogger(__name__)

LIBRARIES = ("diffusers", "transformers")
HEAVY = ("transformer", "text_encoder", "text_encoder_2", "vae")
"""Parts with weights worth counting, the largest first."""

Part = Callable[[type[Any], dict[str, Any]], Any]
"""Loads a part in a way of its own, given its class and the arguments of `from_pretrained`."""


def pipeline(
    weights: Weights,
    folder: Path | None,
    allowed: tuple[type[Any], ...],
    gpu_type: str,
    plan: Plan,
    on_loaded: OnLoaded,
    special: Mapping[str, Part] | None = None,
) -> Any:
    """Load from a local folder, or from the hub when `folder` is None, and carry out its execution plan.

    `special` loads named parts in other ways. Raises `errors.ModelUnavailableError` saying what is wrong with the weights,
    `errors.OutOfMemoryError` and `errors.GpuFaultError`.
    """
    where, dtype = device.of(gpu_type)
    with faults.translated():
        pipe = _read(weights, folder, allowed, dtype, on_loaded, special or {})
        placed = execution.applied(pipe, plan, where)
    on_loaded(1.0)
    return placed


def _read(
    weights: Weights,
    folder: Path | None,
    allowed: tuple[type[Any], ...],
    dtype: torch.dtype,
    on_loaded: OnLoaded,
    special: Mapping[str, Part],
) -> Any:
    _quiet()
    where = str(folder) if folder else weights.source
    common: dict[str, Any] = {"local_files_only": folder is not None, "use_safetensors": True}
    if folder is None:
        common["revision"] = weights.revision
    try:
        index = diffusers.DiffusionPipeline.load_config(
            where, **{k: v for k, v in common.items() if k != "use_safetensors"}
        )
        kind = next((one for one in allowed if one.__name__ == index["_class_name"]), None)
        if kind is None:
            names = " or ".join(one.__name__ for one in allowed)
            raise errors.ModelUnavailableError(
                f"{weights.name}: the weights are of a {index['_class_name']}, not of a {names}"
            )
        parts = _parts(index, where, folder, dtype, common, on_loaded, special)
        loaded = kind.from_pretrained(where, dtype=dtype, **common, **parts)
        if weights.lora is not None:
            local = Path(weights.lora).is_dir()
            loaded.load_lora_weights(weights.lora, use_safetensors=True, local_files_only=local)
            # Into the weights, so that it costs nothing and goes wherever they are placed.
            loaded.fuse_lora()
            loaded.unload_lora_weights()
    except (errors.DarkroomError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, safetensors.SafetensorError) as exc:
        log.warning("%s cannot be loaded", weights.name, exc_info=exc)
        # Where weights lie on this machine is nobody's business.
        sentence = _sentence(exc).replace(where, weights.name)
        raise errors.ModelUnavailableError(f"{weights.name}: {sentence}") from exc
    return loaded


def _quiet() -> None:
    """No progress bars, and no report of layers that are left out on purpose."""
    diffusers.utils.logging.disable_progress_bar()
    # Its warning about a long prompt quotes the prompt.
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def _parts(
    index: Mapping[str, Any],
    where: str,
    folder: Path | None,
    dtype: torch.dtype,
    common: Mapping[str, Any],
    on_loaded: OnLoaded,
    special: Mapping[str, Part],
) -> dict[str, Any]:
    found, done = {}, 0.0
    heavy = [name for name in HEAVY if isinstance(index.get(name), list)]
    sizes = {name: _bytes(folder / name) if folder else 1 for name in heavy}
    for name in heavy:
        library, class_name = index[name]
        if library not in LIBRARIES:
            raise errors.ModelUnavailableError(f"{name}: {library}.{class_name} is not of diffusers or transformers")
        kind = getattr(importlib.import_module(library), class_name)
        arguments = {"pretrained_model_name_or_path": where, "subfolder": name, "dtype": dtype, **common}
        load = special.get(name)
        found[name] = load(kind, arguments) if load else kind.from_pretrained(**arguments)
        done += sizes[name]
        # The last of the way is putting it where it computes.
        on_loaded(0.95 * done / sum(sizes.values()))
    return found


def _bytes(folder: Path) -> int:
    return max(1, sum(file.stat().st_size for file in folder.glob("*.safetensors")))


def _sentence(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[0] if lines else type(exc).__name__)[:300]


def without_unread_layers(last: int) -> Part:
    """Loads a language model up to its `last` layer that is read: no later layers, no final norm, no head, no eyes.

    The hidden states that are read stay the same; FLUX.2's encoder shrinks from 48 to 34.7 GB.
    """

    def load(kind: type[Any], arguments: dict[str, Any]) -> Any:
        config = transformers.AutoConfig.from_pretrained(
            arguments["pretrained_model_name_or_path"],
            subfolder=arguments["subfolder"],
            local_files_only=arguments["local_files_only"],
            revision=arguments.get("revision"),
        )
        text = config.get_text_config()
        if text.num_hidden_layers > last:
            text.num_hidden_layers = last
            if getattr(text, "layer_types", None):
                text.layer_types = text.layer_types[:last]
        encoder = kind.from_pretrained(**arguments, config=config)
        language = encoder.model.language_model if hasattr(encoder.model, "language_model") else encoder.model
        language.norm = torch.nn.Identity()
        encoder.lm_head = torch.nn.Identity()
        if hasattr(encoder.model, "vision_tower"):
            encoder.model.vision_tower = encoder.model.multi_modal_projector = None
        return encoder

    return load
