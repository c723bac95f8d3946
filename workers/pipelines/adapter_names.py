"""What layers of FLUX transformers are called in LoRA files: by diffusers, and by Black Forest Labs' code (kohya, ComfyUI).

Black Forest Labs fuse several linear layers into one, whose rows are those of diffusers' layers one after the other.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Target:
    """Linear layers of ours, whose rows one after the other are those of a layer in a file; `swapped`: halves change places."""

    names: tuple[str, ...]
    swapped: bool = False


ATTENTION = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
}

DOUBLE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "FluxTransformer2DModel": {
        **ATTENTION,
        "img_mlp.0": ("ff.net.0.proj",),
        "img_mlp.2": ("ff.net.2",),
        "txt_mlp.0": ("ff_context.net.0.proj",),
        "txt_mlp.2": ("ff_context.net.2",),
        "img_mod.lin": ("norm1.linear",),
        "txt_mod.lin": ("norm1_context.linear",),
        # XLabs
        "processor.qkv_lora1": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "processor.qkv_lora2": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "processor.proj_lora1": ("attn.to_out.0",),
        "processor.proj_lora2": ("attn.to_add_out",),
    },
    "Flux2Transformer2DModel": {
        **ATTENTION,
        "img_mlp.0": ("ff.linear_in",),
        "img_mlp.2": ("ff.linear_out",),
        "txt_mlp.0": ("ff_context.linear_in",),
        "txt_mlp.2": ("ff_context.linear_out",),
    },
}
"""Of a double-stream block, by the transformer's class."""

SINGLE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "FluxTransformer2DModel": {
        "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
        "linear2": ("proj_out",),
        "modulation.lin": ("norm.linear",),
        # XLabs
        "processor.qkv_lora": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "processor.proj_lora": ("proj_out",),
    },
    "Flux2Transformer2DModel": {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)},
}
"""Of a single-stream block."""

AROUND: Mapping[str, Mapping[str, str]] = {
    "FluxTransformer2DModel": {
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
        "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
        "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
        "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
        "final_layer.linear": "proj_out",
    },
    "Flux2Transformer2DModel": {
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
        "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
        "final_layer.linear": "proj_out",
        "single_stream_modulation.lin": "single_stream_modulation.linear",
        "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
        "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    },
}
"""Outside the blocks."""

FINAL_NORM = "final_layer.adaLN_modulation.1"
"""Scale and shift, which diffusers has the other way round."""

PREFIXES = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet.")
"""What trainers put before a transformer's layer; several may stand one after the other."""

UNDERSCORED = re.compile(r"^(lora_unet|lora_transformer|lycoris|lora_te1|lora_te)_")
"""kohya's and LyCORIS' way: dots are underscores."""

CLIP = ("text_encoders.clip_l.transformer.", "text_encoder.")
"""What ComfyUI and diffusers put before a layer of the CLIP text encoder."""


def targets(transformer: torch.nn.Module, text_encoder: torch.nn.Module | None) -> dict[str, Target]:
    """Every name that a file may use for a layer of these."""
    kind = type(transformer).__name__
    ours = {name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)}
    targets = {name: Target(names=(name,)) for name in ours}
    targets |= {name: target for name, target in _original_names(kind, transformer) if ours.issuperset(target.names)}
    targets |= {name.replace(".", "_"): target for name, target in targets.items()}
    if text_encoder is not None:
        for name, module in text_encoder.named_modules():
            if isinstance(module, torch.nn.Linear):
                target = Target(names=(f"text_encoder.{name}",))
                short = name.removeprefix("text_model.")
                # Trainers of all days have the module in between that transformers 5 left out.
                for written in (short, f"text_model.{short}"):
                    targets |= {f"{CLIP[-1]}{written}": target, f"te1_{written.replace('.', '_')}": target}
    return targets


def _original_names(kind: str, transformer: torch.nn.Module) -> Iterator[tuple[str, Target]]:
    for ours, theirs, table in (
        ("transformer_blocks", "double_blocks", DOUBLE.get(kind, {})),
        ("single_transformer_blocks", "single_blocks", SINGLE.get(kind, {})),
    ):
        for index in range(len(getattr(transformer, ours, ()))):
            for name, parts in table.items():
                yield f"{theirs}.{index}.{name}", Target(names=tuple(f"{ours}.{index}.{part}" for part in parts))
    for name, part in AROUND.get(kind, {}).items():
        yield name, Target(names=(part,))
    yield FINAL_NORM, Target(names=("norm_out.linear",), swapped=True)


def plain(name: str) -> str:
    """A layer's name without what trainers put before it."""
    underscored = UNDERSCORED.match(name)
    if underscored:
        rest = name[underscored.end() :]
        return f"te1_{rest}" if underscored[1].startswith("lora_te") else rest
    if name.startswith(CLIP):
        return f"{CLIP[-1]}{next(name.removeprefix(one) for one in CLIP if name.startswith(one))}"
    while prefix := next((one for one in PREFIXES if name.startswith(one)), None):
        name = name[len(prefix) :]
    return name
