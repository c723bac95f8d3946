"""FLUX.1 Kontext: one reference picture, guidance embedded in the model, rectified flow; with a mask, inpainting."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxKontextInpaintPipeline, FluxKontextPipeline
from diffusers.pipelines.flux.pipeline_flux_kontext import retrieve_latents
from PIL import Image

from storage.contracts.plans import Plan
from storage.contracts.weights import Weights
from workers.pipelines import loading
from workers.pipelines.base import Job, OnLoaded
from workers.pipelines.denoising import Denoising

MAX_SEQUENCE_LENGTH = 512


class KontextPipeline(Denoising):
    """diffusers' `FluxKontextPipeline`, and `FluxKontextInpaintPipeline` on the same weights."""

    @functools.cached_property
    def _inpaint(self) -> Any:
        pipe = FluxKontextInpaintPipeline(**self.pipe.components)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @property
    def _longest(self) -> int:
        return min(MAX_SEQUENCE_LENGTH, int(self.pipe.tokenizer_2.model_max_length))

    def per_token(self, prompt: str) -> torch.Tensor:
        """See `Denoising`: T5's."""
        encoder = self.pipe.text_encoder_2
        embeddings: torch.Tensor = self.pipe._get_t5_prompt_embeds(
            prompt, max_sequence_length=self._longest, device=self.pipe._execution_device, dtype=encoder.dtype
        )
        return embeddings

    def placeholder(self) -> torch.Tensor:
        """See `Denoising`."""
        return torch.zeros(1, self._longest, self.pipe.transformer.config.joint_attention_dim)

    def pooled(self, prompt: str) -> tuple[torch.Tensor, ...]:
        """See `Denoising`: CLIP's, (1, width)."""
        return (self.pipe._get_clip_prompt_embeds(prompt, device=self.pipe._execution_device),)

    def call(self, job: Job) -> tuple[Any, Mapping[str, Any]]:
        """See `Denoising`."""
        per_token, pooled = self.embeddings(job.prompt)
        arguments: dict[str, Any] = {
            "prompt_embeds": per_token,
            "pooled_prompt_embeds": pooled,
            "guidance_scale": job.guidance,
            # Without it four of the seventeen preferred sizes come out smaller than asked.
            "max_area": job.width * job.height,
            # The reference arrives at a size the model reads; resizing it again would only blur it.
            "_auto_resize": False,
        }
        if job.negative_prompt is not None:
            per_token, pooled = self.embeddings(job.negative_prompt)
            arguments |= {"negative_prompt_embeds": per_token, "negative_pooled_prompt_embeds": pooled}
            arguments["true_cfg_scale"] = job.true_guidance
        if job.mask is None:
            return self.pipe, arguments | {"image": job.references[0]}
        return self._inpaint, arguments | {
            "image": job.references[0],
            # What it looks at: other pictures where there are any, else the one that is painted in.
            "image_reference": job.references[-1],
            "mask_image": job.mask,
            "strength": job.strength,
        }

    def tokens(self, picture: Image.Image) -> torch.Tensor:
        """See `Denoising`."""
        vae = self.pipe.vae
        pixels = self.pipe.image_processor.preprocess(picture).to(vae.device, vae.dtype)
        latents = retrieve_latents(vae.encode(pixels), sample_mode="argmax")
        latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
        packed: torch.Tensor = self.pipe._pack_latents(latents, *latents.shape)[0]
        return packed


def load(weights: Weights, folder: Path | None, gpu_type: str, plan: Plan, on_loaded: OnLoaded) -> KontextPipeline:
    """Load and place. Raises `errors.ModelUnavailableError` and `errors.OutOfMemoryError`."""
    applied = loading.pipeline(weights, folder, (FluxKontextPipeline,), gpu_type, plan, on_loaded)
    return KontextPipeline(applied, plan)
