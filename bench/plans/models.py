"""The published models' parts without memory, and calls of them."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, Flux2Transformer2DModel, FluxTransformer2DModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)

from bench import architectures
from bench.plans.counting import built, meta

TEXT_TOKENS = 512
NO_VISION = {
    "model_type": "pixtral", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 16,
}  # fmt: skip
"""A vision tower of no weight: edits do not load the real one."""


def transformer(model: str, make: Callable[..., Any] = built) -> Any:
    """A model's transformer."""
    kind = FluxTransformer2DModel if model == "flux-kontext-dev" else Flux2Transformer2DModel
    return make(kind, **architectures.TRANSFORMERS[model])


def step(model: str, part: Any, tokens: int) -> object:
    """One denoising step of a transformer with so many tokens of pictures."""
    shape = architectures.TRANSFORMERS[model]
    named = {
        "hidden_states": meta(1, tokens, shape["in_channels"]),
        "timestep": meta(1),
        "guidance": meta(1) if shape["guidance_embeds"] else None,
        "encoder_hidden_states": meta(1, TEXT_TOKENS, shape["joint_attention_dim"]),
        "return_dict": False,
    }
    if model == "flux-kontext-dev":
        ids = {"txt_ids": meta(TEXT_TOKENS, 3), "img_ids": meta(tokens, 3)}
        return part(**named, **ids, pooled_projections=meta(1, shape["pooled_projection_dim"]))
    return part(**named, txt_ids=meta(1, TEXT_TOKENS, 4), img_ids=meta(1, tokens, 4))


def text_encoders(model: str, make: Callable[..., Any] = built) -> dict[str, Any]:
    """What is loaded of a model's text encoders: no layer that is not read, no LM head, no vision tower."""
    if model == "flux-kontext-dev":
        clip = CLIPTextConfig(**architectures.CLIP, vocab_size=49408)
        return {
            "text_encoder": make(CLIPTextModel, clip),
            "text_encoder_2": make(T5EncoderModel, T5Config(**architectures.T5)),
        }
    if model == "flux-2-dev":
        config = Mistral3Config(text_config=architectures.MISTRAL, vision_config=NO_VISION)
        encoder = make(Mistral3ForConditionalGeneration, config)
        encoder.model.vision_tower = encoder.model.multi_modal_projector = None
    else:
        encoder = make(Qwen3ForCausalLM, Qwen3Config(**architectures.QWEN[model]))
    encoder.lm_head = torch.nn.Identity()
    return {"text_encoder": encoder}


def autoencoder(model: str, make: Callable[..., Any] = built) -> Any:
    """A model's autoencoder."""
    if model == "flux-kontext-dev":
        return make(
            AutoencoderKL, **architectures.AUTOENCODER, latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159,
            use_quant_conv=False, use_post_quant_conv=False,
        )  # fmt: skip
    return make(AutoencoderKLFlux2, **architectures.AUTOENCODER, latent_channels=32)
