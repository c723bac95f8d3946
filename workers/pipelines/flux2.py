"""FLUX.2 [dev]: text, and up to several reference pictures; a language model reads the instruction."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import Flux2Pipeline
from diffusers.pipelines.flux2 import pipeline_flux2
from PIL import Image

from storage.contracts.plans import Plan
from storage.contracts.weights import Weights
from workers.pipelines import loading, processors
from workers.pipelines.base import Job, OnLoaded, OnToken
from workers.pipelines.denoising import Denoising
from workers.pipelines.execution import Applied

TEXT_LAYERS = (10, 20, 30)
"""Which hidden states of the text encoder are read, unless the weights say otherwise."""

PICTURE_MARK = "[IMG]"
"""Stands for a picture in what the text encoder reads; in a prompt it would count as one that is not there."""

TEXT_TOKENS = 512
"""Of a prompt, padding included."""

MOST_TOKENS = 2048
"""Of instructions, pictures and prompt together, when a prompt is to be written anew; diffusers cuts off the rest."""


def without_marks(prompt: str) -> str:
    """A prompt that stands for no picture, however it is put together."""
    while PICTURE_MARK in prompt:
        prompt = prompt.replace(PICTURE_MARK, "")
    return prompt


class Flux2(Denoising):
    """What the pipelines of the FLUX.2 family share."""

    def __init__(self, applied: Applied, plan: Plan, text_layers: tuple[int, ...]) -> None:
        super().__init__(applied, plan)
        self._text_layers = text_layers

    def per_token(self, prompt: str) -> torch.Tensor:
        """See `Denoising`: some of its layers' hidden states, beside each other."""
        embeddings: torch.Tensor
        embeddings, _ = self.pipe.encode_prompt(prompt=without_marks(prompt), text_encoder_out_layers=self._text_layers)
        return embeddings

    def placeholder(self) -> torch.Tensor:
        """See `Denoising`."""
        return torch.zeros(1, TEXT_TOKENS, self.pipe.transformer.config.joint_attention_dim)

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
        """See `base.Pipeline`. What samples is seeded with the job's seed; the global RNG stays as it was.

        A prompt so long that it would be cut stays as it is.
        """
        prompt, pictures = without_marks(job.prompt), [list(job.references)] if job.references else None
        if self._tokens_of(prompt, pictures) > MOST_TOKENS:
            return job.prompt
        listening = self.pipe.text_encoder.register_forward_pre_hook(lambda *_: on_token())
        try:
            with self.working(), torch.inference_mode(), torch.random.fork_rng():
                torch.manual_seed(job.seed)
                (written,) = self.pipe.upsample_prompt(
                    prompt, images=pictures, temperature=temperature, device=self.pipe._execution_device
                )
        finally:
            listening.remove()
        self.same_edit_goes_on()
        return str(written).strip() or job.prompt

    def _tokens_of(self, prompt: str, pictures: list[list[Image.Image]] | None) -> int:
        system = (
            pipeline_flux2.SYSTEM_MESSAGE_UPSAMPLING_I2I if pictures else pipeline_flux2.SYSTEM_MESSAGE_UPSAMPLING_T2I
        )
        shown = pictures and pipeline_flux2._validate_and_process_images(
            pictures, self.pipe.image_processor, self.pipe.upsampling_max_image_size
        )
        messages = pipeline_flux2.format_input([prompt], system, shown)
        read = self.pipe.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True
        )
        return len(read["input_ids"][0])


def load(weights: Weights, folder: Path | None, gpu_type: str, plan: Plan, on_loaded: OnLoaded) -> Flux2DevPipeline:
    """Load and place. Raises `errors.ModelUnavailableError` and `errors.OutOfMemoryError`."""
    processors.pixtral()
    layers = weights.text_layers or TEXT_LAYERS
    special = {} if weights.whole_text_encoder else {"text_encoder": loading.without_unread_layers(max(layers))}
    applied = loading.pipeline(weights, folder, (Flux2Pipeline,), gpu_type, plan, on_loaded, special)
    return Flux2DevPipeline(applied, plan, layers)
