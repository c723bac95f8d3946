"""`make bench-placement MODEL=flux-2-dev GPU=h100`: one full-size edit on this machine's GPU, placed as on that GPU type.

Memory is capped to that GPU type's, so an H200 shows what an 80 or a 48 GB card would do. Needs a CUDA device, and as much memory
in the machine as the parts that are streamed or cast. Text encoders are built as they are loaded: up to the last layer read.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, Flux2Transformer2DModel, FluxTransformer2DModel
from PIL import Image
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

from bench.placement import architectures
from storage.contracts import placement
from storage.settings import StoreSettings
from workers.pipelines import device, flux2, klein, kontext, small
from workers.pipelines.base import Job
from workers.pipelines.denoising import Denoising

READ = {"flux-2-dev": (10, 20, 30), "flux-2-klein-4b": (9, 18, 27), "flux-2-klein-9b": (9, 18, 27)}


def built(kind: Callable[..., Any], where: str, *arguments: Any, **more: Any) -> Any:
    """A part with random bf16 weights: zeros would flatter the clock."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(where):
            part = kind(*arguments, **more).eval()
    finally:
        torch.set_default_dtype(before)
    for parameter in part.parameters():
        parameter.data.normal_(0, 0.02)
    return part


def parts(model: str, found: placement.Placement, gpu: str) -> dict[str, Any]:
    """The heavy parts of a model, each made where it will be, or in the machine's memory when it is streamed or cast."""
    transformer_at = gpu if found.transformer == "gpu" and found.weights == "bf16" else "cpu"
    encoder_at = gpu if found.encoder == "gpu" else "cpu"
    architecture = architectures.TRANSFORMERS[model]
    if model == "flux-kontext-dev":
        clip = CLIPTextConfig(**architectures.CLIP, vocab_size=514, bos_token_id=0, eos_token_id=1, pad_token_id=1)
        shape = {**architectures.AUTOENCODER, "latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159}
        return {
            "transformer": built(FluxTransformer2DModel, transformer_at, **architecture),
            "text_encoder": built(CLIPTextModel, encoder_at, clip),
            "text_encoder_2": built(T5EncoderModel, encoder_at, T5Config(**architectures.T5)),
            "vae": built(AutoencoderKL, gpu, **shape, use_quant_conv=False, use_post_quant_conv=False),
        }
    if model == "flux-2-dev":
        vision = {
            "model_type": "pixtral",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 16,
        }
        encoder = built(
            Mistral3ForConditionalGeneration,
            encoder_at,
            Mistral3Config(text_config=architectures.MISTRAL, vision_config=vision),
        )
    else:
        encoder = built(Qwen3ForCausalLM, encoder_at, Qwen3Config(**architectures.QWEN[model]))
    return {
        "transformer": built(Flux2Transformer2DModel, transformer_at, **architecture),
        "text_encoder": encoder,
        "vae": built(AutoencoderKLFlux2, gpu, **architectures.AUTOENCODER, latent_channels=32),
    }


def pipeline(model: str, found: placement.Placement, gpu: str) -> Denoising:
    """The worker's own pipeline around the parts, placed by the worker's own code."""
    name = {"flux-kontext-dev": "small-kontext", "flux-2-dev": "small-flux2"}.get(model, "small-klein")
    pipe = small.built(name)
    pipe.register_modules(**parts(model, found, gpu))
    placed = device.placed(pipe, found, gpu, torch.bfloat16)
    if model == "flux-kontext-dev":
        return kontext.KontextPipeline(placed, found)
    family = flux2.Flux2DevPipeline if model == "flux-2-dev" else klein.KleinPipeline
    return family(placed, found, READ[model])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="flux-kontext-dev")
    parser.add_argument("--gpu-type", default="h200", help="the GPU type to place for, and to cap memory to")
    parser.add_argument("--references", type=int, default=1)
    parser.add_argument("--steps", type=int, default=28)
    asked = parser.parse_args()
    known = StoreSettings().read_catalog()
    gpu_type = known.gpu_types[asked.gpu_type]
    found = placement.planned(known.model(asked.model), gpu_type)
    assert found is not None, placement.refusal(known, asked.model, asked.gpu_type)
    memory = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gpu_type.memory_gb * 1e9 / memory))
    loaded = pipeline(asked.model, found, "cuda")
    reference = Image.effect_noise((1024, 1024), 80).convert("RGB")
    job = Job(
        prompt="make it blue", references=[reference] * asked.references, width=1024, height=1024, steps=asked.steps,
        guidance=2.5, seed=1,
    )  # fmt: skip
    times = []
    for run in range(3):
        torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        loaded.edit(dataclasses.replace(job, seed=run), lambda step: None)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_reserved() / 1e9 + placement.CONTEXT_GB
    print(
        f"{asked.model} as on {asked.gpu_type} ({torch.cuda.get_device_name()}), {found.name}, {asked.references} references"
    )
    print(f"planned {found.total_gb:.1f} GB, peak {peak:.1f} GB ({peak / found.total_gb:.2f} of it)")
    print(f"first edit {times[0]:.2f} s, then {min(times[1:]):.2f} s, {asked.steps} steps at 1024x1024")


if __name__ == "__main__":
    main()
