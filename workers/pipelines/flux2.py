"""FLUX.2 [dev]: text, and up to several reference pictures; a language model reads the instruction."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import Flux2Pipeline
from PIL import Image

from storage.contracts.catalog import Weights
from storage.contracts.placement import Placement
from workers.pipelines import loading, processors
from workers.pipelines.base import Job, OnLoaded, OnToken
from workers.pipelines.denoising import Denoising

TEXT_LAYERS = (10, 20, 30)
"""Which hidden states of the text encoder are read, unless the weights say otherwise."""


class Flux2(Denoising):
    """What the pipelines of the FLUX.2 family share."""

    def __init__(self, pipe: Any, placement: Placement, text_layers: tuple[int, ...]) -> None:
        super().__init__(pipe, placement)
        self._text_layers = text_layers

    def encode(self, prompt: str) -> tuple[torch.Tensor, ...]:
        """Embeddings per token."""
        per_token, _ = self.pipe.encode_prompt(prompt=prompt, text_encoder_out_layers=self._text_layers)
        return (per_token,)

    def call(self, job: Job) -> tuple[Any, Mapping[str, Any]]:
        """See `Denoising`."""
        (per_token,) = self.embeddings(job.prompt)
        return self.pipe, {"prompt_embeds": per_token, "image": list(job.references) or None}

    def tokens(self, picture: Image.Image) -> torch.Tensor:
        """See `Denoising`."""
        vae = self.pipe.vae
        pixels = self.pipe.image_processor.preprocess(
            picture, height=picture.height, width=picture.width, resize_mode="crop"
        )
        latents, _ = self.pipe.prepare_image_latents(
            images=[pixels], batch_size=1, generator=None, device=vae.device, dtype=vae.dtype
        )
        tokens: torch.Tensor = latents[0]
        return tokens


class Flux2DevPipeline(Flux2):
    """diffusers' `Flux2Pipeline`: guidance is embedded in the model."""

    def call(self, job: Job) -> tuple[Any, Mapping[str, Any]]:
        """See `Denoising`."""
        pipe, arguments = super().call(job)
        return pipe, {**arguments, "guidance_scale": job.guidance}

    def upsample(self, job: Job, temperature: float, on_token: OnToken) -> str:
        """See `base.Pipeline`. What samples is seeded with the job's seed, in a generator of its own."""
        pictures = [list(job.references)] if job.references else None
        listening = self.pipe.text_encoder.register_forward_pre_hook(lambda *_: on_token())
        try:
            with self.working(), torch.inference_mode(), torch.random.fork_rng():
                torch.manual_seed(job.seed)
                (written,) = self.pipe.upsample_prompt(
                    job.prompt, images=pictures, temperature=temperature, device=self.pipe._execution_device
                )
        finally:
            listening.remove()
        return str(written).strip() or job.prompt


def load(
    weights: Weights, folder: Path | None, gpu_type: str, placement: Placement, on_loaded: OnLoaded
) -> Flux2DevPipeline:
    """Load and place. Raises `errors.ModelUnavailableError` and `errors.OutOfMemoryError`."""
    processors.pixtral()
    layers = weights.text_layers or TEXT_LAYERS
    special = {} if weights.whole_text_encoder else {"text_encoder": loading.without_unread_layers(max(layers))}
    pipe = loading.pipeline(weights, folder, (Flux2Pipeline,), gpu_type, placement, on_loaded, special)
    return Flux2DevPipeline(pipe, placement, layers)
