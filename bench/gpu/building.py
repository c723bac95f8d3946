"""Pipelines of the published shapes, or shrunk ones, with random weights."""

import gc
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch

from bench import architectures
from bench.plans import models
from storage.contracts.plans import Plan
from workers.pipelines import execution, flux2, klein, kontext, small
from workers.pipelines.denoising import Denoising

TEXT_LAYERS = {"flux-2-dev": (10, 20, 30), "flux-2-klein-4b": (9, 18, 27), "flux-2-klein-9b": (9, 18, 27)}
SHRUNK_TEXT_LAYERS = (1, 2, 3)
SMALL = {"flux-kontext-dev": "small-kontext", "flux-2-dev": "small-flux2"}
"""Pipelines of the same classes, of which tokenizers and schedulers are taken."""

DEVIATION = 0.02
"""Of the random weights: so small that nothing overflows, and not zero, which a GPU multiplies faster."""


def shrunk() -> ExitStack:
    """While it is open, models have a layer or two of each kind, an eighth of the width and a short vocabulary."""
    tables: Mapping[str, Any] = {
        "TRANSFORMERS": {
            name: {
                **shape, "num_layers": 1, "num_single_layers": 2, "num_attention_heads": 2,
                "joint_attention_dim": 64 if name == "flux-kontext-dev" else 96,
                **({"pooled_projection_dim": 64} if name == "flux-kontext-dev" else {}),
            }
            for name, shape in architectures.TRANSFORMERS.items()
        },
        "AUTOENCODER": {**architectures.AUTOENCODER, "block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4},
        "CLIP": {**architectures.CLIP, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2,
                 "num_hidden_layers": 2},
        "T5": {**architectures.T5, "d_model": 64, "d_kv": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2, "vocab_size": 256},
        "MISTRAL": {
            **architectures.MISTRAL, "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
            "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
        },
        "QWEN": {
            name: {
                **shape, "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
                "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
            }
            for name, shape in architectures.QWEN.items()
        },
    }  # fmt: skip
    patches = ExitStack()
    for name, table in tables.items():
        patches.enter_context(mock.patch.object(architectures, name, table))
    patches.enter_context(mock.patch.dict(TEXT_LAYERS, dict.fromkeys(TEXT_LAYERS, SHRUNK_TEXT_LAYERS)))
    # Graphs are captured and run as they are: generating C++ for them takes longer than all the rest.
    compiled = torch.nn.Module.compile
    patches.enter_context(
        mock.patch.object(
            torch.nn.Module, "compile", lambda module, **named: compiled(module, backend="eager", **named)
        )
    )
    return patches


def random(device: str, dtype: torch.dtype) -> Callable[..., Any]:
    """Makes a part with random weights on the device."""

    def make(kind: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                part = kind(*arguments, **more).eval()
        finally:
            torch.set_default_dtype(before)
        for weight in part.parameters():
            weight.data.normal_(0, DEVIATION)
        return part

    return make


def pipe(model: str, device: str, dtype: torch.dtype, *, encoder_on: str | None = None) -> Any:
    """A pipeline of diffusers on the device, but for text encoders that stay on `encoder_on` once they are made."""
    found = small.built(SMALL.get(model, "small-klein"))
    make = random(device, dtype)
    parts = models.text_encoders(model, make)
    if encoder_on is not None:
        # Made where random numbers are quick, and gone from there before the transformer comes.
        parts = {name: part.to(encoder_on) for name, part in parts.items()}
        free()
    if model == "flux-2-dev":
        parts["text_encoder"].config.text_config.num_hidden_layers = architectures.MISTRAL["num_hidden_layers"]
    parts |= {"transformer": models.transformer(model, make), "vae": models.autoencoder(model, make)}
    language = parts["text_encoder"]
    if model != "flux-kontext-dev":
        inner = language.model.language_model if hasattr(language.model, "language_model") else language.model
        inner.norm = torch.nn.Identity()
    found.register_modules(**parts)
    found.set_progress_bar_config(disable=True)
    return found


def loaded(model: str, found: Any, plan: Plan, device: str) -> Denoising:
    """The worker's own pipeline around one of diffusers, which is put where the plan says by the worker's own code."""
    applied = execution.applied(found, plan, device)
    if model == "flux-kontext-dev":
        return kontext.KontextPipeline(applied, plan)
    family = flux2.Flux2DevPipeline if model == "flux-2-dev" else klein.KleinPipeline
    return family(applied, plan, TEXT_LAYERS[model])


def free() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
