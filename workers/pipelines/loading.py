"""Reads a pipeline part by part: safetensors only, classes of diffusers and transformers only, no code from outside."""

import contextlib
import importlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from storage.contracts import errors
from storage.contracts.plans import Plan
from storage.contracts.weights import Weights
from workers.pipelines import adapters, completeness, device, execution, faults, gguf_files, revisions
from workers.pipelines.base import OnLoaded

log = logging.getLogger(__name__)

LIBRARIES = ("diffusers", "transformers")
HEAVY = ("transformer", "text_encoder", "text_encoder_2", "vae")
"""Parts with weights worth counting, the largest first."""

Part = Callable[[type[Any], dict[str, Any]], tuple[Any, Mapping[str, Any]]]
"""Loads a part in a way of its own, given its class and the arguments of `from_pretrained`; with that one's report."""

LOCAL_PATH = re.compile(r"(?<![\w:/.])/(?:[^\s/'\"]+/)*(?=[^\s/'\"])")
"""An absolute path up to its last name."""


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
    with faults.translated(), _blamed_on(weights.name, str(folder) if folder else None):
        special = dict(special or {})
        if weights.gguf is not None and plan.encoding != "only":
            special["transformer"] = gguf_files.transformer(gguf_files.located(weights.gguf))
        pipe, revision = _read(weights, folder, allowed, dtype, on_loaded, special, plan, _straight_to(where, plan))
        applied = execution.applied(pipe, plan, where)
    applied.revision = revision
    # The rest of the way is warming up.
    on_loaded(0.97)
    return applied


def _straight_to(where: str, plan: Plan) -> Mapping[str, str]:
    """Parts that are read into the GPU's memory at once: bf16 and 4-bit ones of which nothing is streamed."""
    if where != "cuda":
        return {}
    parts = {"transformer": plan.transformer, "text_encoder": plan.text_encoder, "text_encoder_2": plan.text_encoder}
    straight = {name: where for name, part in parts.items() if part.format in ("bf16", "nf4") and not part.streamed}
    return {**straight, "vae": where}


def _read(
    weights: Weights,
    folder: Path | None,
    allowed: tuple[type[Any], ...],
    dtype: torch.dtype,
    on_loaded: OnLoaded,
    special: Mapping[str, Part],
    plan: Plan,
    straight_to: Mapping[str, str],
) -> tuple[Any, str | None]:
    _quiet()
    where = str(folder) if folder else weights.source
    common: dict[str, Any] = {"local_files_only": folder is not None}
    if folder is None:
        common["revision"] = weights.revision
    try:
        index, commit = diffusers.DiffusionPipeline.load_config(where, return_commit_hash=True, **common)
    except OSError as exc:
        if folder is not None:
            raise
        told = f"there is no folder {where} below DARKROOM_WEIGHTS_DIR, and from the hub: {_sentence(exc, None)}"
        raise errors.ModelUnavailableError(told) from exc
    if folder is None:
        # All parts are of the commit that the index is of, whatever is pushed meanwhile.
        common["revision"] = commit or weights.revision
    kind = next((one for one in allowed if one.__name__ == index["_class_name"]), None)
    if kind is None:
        names = " or ".join(one.__name__ for one in allowed)
        raise errors.ModelUnavailableError(f"the weights are of a {index['_class_name']}, not of a {names}")
    if plan.encoding == "only":
        # All of a family encode alike; the KV variant of FLUX.2 [klein] cannot be made without a transformer.
        kind = allowed[0]
    common["use_safetensors"] = True
    left_out = _left_out(index, plan)
    index = {name: part for name, part in index.items() if name not in left_out}
    parts = _parts(index, where, folder, dtype, common, on_loaded, special, straight_to)
    loaded = kind.from_pretrained(where, dtype=dtype, **common, **parts, **dict.fromkeys(left_out))
    # LoRAs are of the transformer, or of the text encoder that stays beside it.
    lora = None if plan.encoding == "only" else weights.lora
    if lora is not None and weights.scalable_lora:
        with _blamed_on("LoRA"):
            adapters.attach(loaded, lora)
    elif lora is not None:
        # Into the weights, so that it costs nothing and goes wherever they are placed.
        with _blamed_on("LoRA"):
            merged = adapters.merge(loaded, lora)
        log.info("%s: merged a LoRA of %d layers (%s)", weights.name, merged.layers, merged.format)
    return loaded, revisions.of_folder(folder) if folder else common["revision"]


def _left_out(index: Mapping[str, Any], plan: Plan) -> list[str]:
    """Parts that this worker does without: another one has the large text encoder, or this one has nothing else."""
    large = next(name for name in execution.TEXT_ENCODERS if isinstance(index.get(name), list))
    if plan.encoding == "elsewhere":
        return [large]
    heavy = [name for name in HEAVY if isinstance(index.get(name), list)]
    return [name for name in heavy if name != large] if plan.encoding == "only" else []


@contextlib.contextmanager
def _blamed_on(name: str, folder: str | None = None) -> Iterator[None]:
    """Whatever goes wrong in the block is the fault of what is loaded, by name: raises `errors.ModelUnavailableError`.

    The residency remembers that one; an `ImportError` would be met again with every claim. Other errors of ours and the
    GPU's faults pass.
    """
    try:
        yield
    except errors.ModelUnavailableError as exc:
        raise errors.ModelUnavailableError(f"{name}: {exc.message}") from exc
    except (errors.DarkroomError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as exc:
        if isinstance(exc, RuntimeError) and faults.is_exhaustion(exc):
            raise
        log.warning("%s cannot be loaded", name, exc_info=exc)
        raise errors.ModelUnavailableError(f"{name}: {_sentence(exc, folder)}") from exc


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
    straight_to: Mapping[str, str],
) -> dict[str, Any]:
    parts, done = {}, 0.0
    heavy = [name for name in HEAVY if isinstance(index.get(name), list)]
    sizes = {name: _bytes(folder / name) if folder else 1 for name in heavy}
    for name in heavy:
        library, class_name = index[name]
        if library not in LIBRARIES:
            raise errors.ModelUnavailableError(f"{name} is a {library}.{class_name}, not of diffusers or transformers")
        arguments = {"pretrained_model_name_or_path": where, "subfolder": name, "dtype": dtype, **common}
        if name in straight_to:
            arguments["device_map"] = {"": straight_to[name]}
        if library == "transformers":
            # Reported with the weights' names; otherwise they stand in a log alone.
            arguments["ignore_mismatched_sizes"] = True
        with _blamed_on(name, where if folder else None):
            kind = getattr(importlib.import_module(library), class_name)
            parts[name], report = special.get(name, _plainly)(kind, {**arguments, "output_loading_info": True})
        completeness.check(parts[name], report, name)
        done += sizes[name]
        # The last of the way is putting it where it computes.
        on_loaded(0.95 * done / sum(sizes.values()))
    return parts


def _plainly(kind: type[Any], arguments: dict[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    loaded: tuple[Any, Mapping[str, Any]] = kind.from_pretrained(**arguments)
    return loaded


def _bytes(folder: Path) -> int:
    return max(1, sum(file.stat().st_size for file in folder.glob("*.safetensors")))


def _sentence(exc: BaseException, folder: str | None) -> str:
    """The first line of a message. Where files lie on this machine is nobody's business: they keep their names alone."""
    text = str(exc).replace(f"{folder}/", "").replace(folder, Path(folder).name) if folder else str(exc)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return LOCAL_PATH.sub("", lines[0] if lines else type(exc).__name__)[:300]


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
