"""Second stage: the transformer and the text encoders learn to edit, as rectified flow with the reference's tokens beside.

Rows of a batch share references: a picture is encoded once and edited several ways.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxKontextPipeline

from training import autoencoder, networks
from training.checkpoints import Course
from training.lessons import Lesson, Lessons

SEED = 2
STEPS = 12_000
PICTURES, EDITS = 8, 4
GUIDANCE = (1.0, 5.0)
"""The guidance a model is told means nothing to this one; it learns to ignore whatever is said."""


def course(folder: Path) -> Course:
    """The stage as far as it got."""
    torch.manual_seed(SEED)
    parts = {"transformer": networks.transformer(), "text_encoder": networks.clip(), "text_encoder_2": networks.t5()}
    return Course(folder, "editor", parts, rate=8e-4, steps=STEPS)


def assembled(vae: AutoencoderKL, stage: Course) -> FluxKontextPipeline:
    """The pipeline with the networks as they are now."""
    return FluxKontextPipeline(
        scheduler=networks.scheduler(),
        vae=vae,
        tokenizer=networks.clip_tokenizer(),
        tokenizer_2=networks.t5_tokenizer(),
        **stage.networks,
    )


class Lecturer:
    """Computes the loss of a lesson."""

    def __init__(self, pipe: FluxKontextPipeline) -> None:
        self._pipe = pipe
        self._vae = pipe.vae.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def _latents(self, pictures: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            pixels = (pictures * 2 - 1).contiguous(memory_format=torch.channels_last)
            code = self._vae.encode(pixels).latent_dist.mode().float()
        return (code - self._vae.config.shift_factor) * self._vae.config.scaling_factor

    def _packed(self, latents: torch.Tensor) -> torch.Tensor:
        packed: torch.Tensor = self._pipe._pack_latents(latents, *latents.shape)
        return packed

    def loss(self, lesson: Lesson) -> torch.Tensor:
        """Mean squared error of the velocity."""
        references = self._latents(lesson.references)
        clean = self._latents(lesson.targets)
        rows, _, high, wide = clean.shape
        reference = references.repeat_interleave(rows // len(references), dim=0)
        noise = torch.randn_like(clean)
        level = torch.rand(rows)
        # More of the loud levels: there the instruction decides, later only details do.
        level = 2 * level / (1 + level)
        noisy = torch.lerp(clean, noise, level.view(-1, 1, 1, 1))
        per_token, pooled, text_ids = self._pipe.encode_prompt(
            prompt=lesson.sentences, prompt_2=None, max_sequence_length=networks.TOKENS
        )
        ids = self._pipe._prepare_latent_image_ids(1, high // 2, wide // 2, "cpu", torch.float32)
        beside = ids.clone()
        beside[..., 0] = 1
        with torch.autocast("cpu", torch.bfloat16):
            told = self._pipe.transformer(
                hidden_states=torch.cat([self._packed(noisy), self._packed(reference)], dim=1),
                timestep=level,
                guidance=torch.empty(rows).uniform_(*GUIDANCE),
                pooled_projections=pooled,
                encoder_hidden_states=per_token,
                txt_ids=text_ids.float(),
                img_ids=torch.cat([ids, beside], dim=0),
                return_dict=False,
            )[0]
        velocity = self._packed(noise - clean)
        return (told[:, : velocity.shape[1]].float() - velocity).square().mean()


def train(folder: Path, minutes: float) -> None:
    """Go on with the stage."""
    stage = course(folder)
    lecturer = Lecturer(assembled(autoencoder.finished(folder), stage))
    lessons: Iterator[Lesson] = Lessons(seed=SEED, first=stage.step, pictures=PICTURES, edits=EDITS).ahead()
    torch.manual_seed(stage.step)
    stage.run(lambda step: lecturer.loss(next(lessons)), minutes=minutes)
