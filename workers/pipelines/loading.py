"""Reads a pipeline part by part: safetensors only, classes of diffusers and transformers only, no code from outside."""

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from storage.contracts import errors
from storage.contracts.catalog import Weights
from storage.contracts.plans import Plan
from workers.pipelines import adapters, device, execution, faults, revisions
from workers.pipelines.base import OnLoaded

log = logging.getLogger(__name__)

LIBRARIES = ("diffusers", "transformers")
HEAVY = ("transformer", "text_encoder", "text_encoder_2", "vae")
"""Parts with weights worth counting, the largest first."""

Part = Callable[[type[Any], dict[str, Any]], tuple[Any, Mapping[str, Any]]]
"""Loads a part in a way of its own, given its class and the arguments of `from_pretrained`; with that one's report."""

SHOWN = 3
"""Names of weights in an error's sentence."""


def pipeline(
    weights: Weights,
    folder: Path | None,
    allowed: tuple[type[Any], ...],
    gpu_type: str,
    plan: Plan,
    on_loaded: OnLoaded,
    special: Mapping[str, Part] | None = None,
) -> execution.Applied:
    """Load from a local folder, or from the hub when `folder` is None, and carry out its execution plan.

    `special` loads named parts in other ways. Raises `errors.ModelUnavailableError` saying what is wrong with the weights,
    `errors.OutOfMemoryError` and `errors.GpuFaultError`.
    """
    where, dtype = device.of(gpu_type)
    with faults.translated():
        pipe, revision = _read(weights, folder, allowed, dtype, on_loaded, special or {}, _straight_to(where, plan))
        found = execution.applied(pipe, plan, where)
    found.revision = revision
    # The rest of the way is warming up.
    on_loaded(0.97)
    return found


def _straight_to(where: str, plan: Plan) -> Mapping[str, str]:
    """Parts that are read into the GPU's memory at once: bf16 and 4-bit ones of which nothing is streamed."""
    if where != "cuda":
        return {}
    parts = {"transformer": plan.transformer, "text_encoder": plan.text_encoder, "text_encoder_2": plan.text_encoder}
    straight = {name: where for name, part in parts.items() if part.format != "fp8" and not part.streamed}
    return {**straight, "vae": where}


def _read(
    weights: Weights,
    folder: Path | None,
    allowed: tuple[type[Any], ...],
    dtype: torch.dtype,
    on_loaded: OnLoaded,
    special: Mapping[str, Part],
    straight_to: Mapping[str, str],
) -> tuple[Any, str]:
    _quiet()
    where = str(folder) if folder else weights.source
    common: dict[str, Any] = {"local_files_only": folder is not None}
    if folder is None:
        common["revision"] = weights.revision
    try:
        index = diffusers.DiffusionPipeline.load_config(where, **common)
        if folder is None:
            # All parts are of the commit that the index is of, whatever is pushed meanwhile.
            common["revision"] = revisions.of_hub(weights.source, weights.revision)
        kind = next((one for one in allowed if one.__name__ == index["_class_name"]), None)
        if kind is None:
            names = " or ".join(one.__name__ for one in allowed)
            message = f"{weights.name}: the weights are of a {index['_class_name']}, not of a {names}"
            raise errors.ModelUnavailableError(message)  # noqa: TRY301  (what it raises itself passes below)
        common["use_safetensors"] = True
        parts = _parts(index, weights.name, where, folder, dtype, common, on_loaded, special, straight_to)
        loaded = kind.from_pretrained(where, dtype=dtype, **common, **parts)
        if weights.lora is not None:
            # Into the weights, so that it costs nothing and goes wherever they are placed.
            merged = adapters.merge(loaded, weights.lora, name=weights.name)
            log.info("%s: %d layers of a LoRA are merged", weights.name, merged.layers)
        return loaded, common["revision"] if folder is None else revisions.of_folder(folder)
    except (errors.DarkroomError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as exc:
        if isinstance(exc, RuntimeError) and faults.is_exhaustion(exc):
            raise
        log.warning("%s cannot be loaded", weights.name, exc_info=exc)
        # Where weights lie on this machine is nobody's business.
        sentence = _sentence(exc).replace(where, weights.name)
        raise errors.ModelUnavailableError(f"{weights.name}: {sentence}") from exc


def _quiet() -> None:
    """No progress bars, and no report of layers that are left out on purpose."""
    diffusers.utils.logging.disable_progress_bar()
    # Its warning about a long prompt quotes the prompt.
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def _parts(
    index: Mapping[str, Any],
    weights_name: str,
    where: str,
    folder: Path | None,
    dtype: torch.dtype,
    common: Mapping[str, Any],
    on_loaded: OnLoaded,
    special: Mapping[str, Part],
    straight_to: Mapping[str, str],
) -> dict[str, Any]:
    found, done = {}, 0.0
    heavy = [name for name in HEAVY if isinstance(index.get(name), list)]
    sizes = {name: _bytes(folder / name) if folder else 1 for name in heavy}
    for name in heavy:
        library, class_name = index[name]
        if library not in LIBRARIES:
            raise errors.ModelUnavailableError(
                f"{weights_name}: {name} is a {library}.{class_name}, which is not of diffusers or transformers"
            )
        kind = getattr(importlib.import_module(library), class_name)
        arguments = {"pretrained_model_name_or_path": where, "subfolder": name, "dtype": dtype, **common}
        if name in straight_to:
            arguments["device_map"] = {"": straight_to[name]}
        load = special.get(name, _plainly)
        found[name], report = load(kind, {**arguments, "output_loading_info": True})
        _check_whole(found[name], report, f"{weights_name}: {name}")
        done += sizes[name]
        # The last of the way is putting it where it computes.
        on_loaded(0.95 * done / sum(sizes.values()))
    return found


def _plainly(kind: type[Any], arguments: dict[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    loaded: tuple[Any, Mapping[str, Any]] = kind.from_pretrained(**arguments)
    return loaded


def _check_whole(part: torch.nn.Module, report: Mapping[str, Any], where: str) -> None:
    """Whether every weight of a part came from the files: what is missing would stay random, or without memory.

    Raises `errors.ModelUnavailableError` naming the first few. What was left out on purpose is no weight of the part any more.
    """
    own = set(part.state_dict())
    missing = sorted(own & set(report["missing_keys"]))
    if missing:
        raise errors.ModelUnavailableError(f"{where} lacks {_counted(missing)}")
    # Some with the shapes: (name, in the file, in the model).
    mismatched = sorted(own & {one if isinstance(one, str) else one[0] for one in report["mismatched_keys"]})
    if mismatched:
        raise errors.ModelUnavailableError(f"{where} has another shape than the model for {_counted(mismatched)}")
    if report.get("error_msgs"):
        raise errors.ModelUnavailableError(f"{where}: {str(report['error_msgs'][0]).splitlines()[0][:200]}")


def _counted(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return f"{len(names)} weight{'s' if len(names) > 1 else ''}: {shown}"


def _bytes(folder: Path) -> int:
    return max(1, sum(file.stat().st_size for file in folder.glob("*.safetensors")))


def _sentence(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[0] if lines else type(exc).__name__)[:300]


def without_unread_layers(last: int) -> Part:
    """Loads a language model up to its `last` layer that is read: no later layers, no final norm, no LM head, no vision tower.

    The hidden states that are read stay the same; FLUX.2's encoder shrinks from 48 to 34.7 GB.
    """

    def load(kind: type[Any], arguments: dict[str, Any]) -> tuple[Any, Mapping[str, Any]]:
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
        encoder, report = kind.from_pretrained(**arguments, config=config)
        language = encoder.model.language_model if hasattr(encoder.model, "language_model") else encoder.model
        language.norm = torch.nn.Identity()
        encoder.lm_head = torch.nn.Identity()
        if hasattr(encoder.model, "vision_tower"):
            encoder.model.vision_tower = encoder.model.multi_modal_projector = None
        return encoder, report

    return load
