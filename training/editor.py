"""The transformer learns to edit, as rectified flow with the reference's tokens beside.

Rows of a batch share references: a picture is encoded once and edited several ways. What is requested is given as `conditioning`,
which the text encoders learn to give apart from it (`training.words`).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxKontextPipeline

from training import autoencoder, networks
from training.checkpoints import Course, Limits, begun_anew
from training.conditioning import conditioning
from training.lessons import NATIVE, Lesson, Lessons
from training.operations import OPERATIONS, Edit
from training.pictures import Picture, grid, held_out

SEED = 4
STEPS, STEPS_ANEW = 2_200, 9_000
"""From the shipped weights, and from random ones."""
PICTURES, EDITS = 4, 4
SMALL = 0.45
"""Share of batches with small pictures."""
GUIDANCE = (1.0, 5.0)
"""The guidance a model is told means nothing to this one; it learns to ignore whatever is said."""


def course(folder: Path, *, anew: bool = False) -> Course:
    """The stage as far as it got."""
    torch.manual_seed(SEED)
    anew = begun_anew(folder, "editor", asked=anew)
    transformer = networks.transformer()
    if not anew:
        networks.shipped(transformer, "transformer")
    rate, steps = (8e-4, STEPS_ANEW) if anew else (5e-4, STEPS)
    return Course(folder, "editor", {"transformer": transformer}, rate=rate, steps=steps, anew=anew)


class VelocityLoss:
    """How far the transformer is from the velocity that leads to a lesson's targets."""

    def __init__(self, pipe: FluxKontextPipeline, linear: dict[str, torch.Tensor]) -> None:
        self._pipe = pipe
        self._device = networks.device()
        self._linear = {name: tensor.to(self._device) for name, tensor in linear.items()}

    def _latents(self, pictures: torch.Tensor) -> torch.Tensor:
        return autoencoder.encoded(autoencoder.pixels(pictures.to(self._device)), self._linear)

    def _packed(self, latents: torch.Tensor) -> torch.Tensor:
        packed: torch.Tensor = self._pipe._pack_latents(latents, *latents.shape)
        return packed

    def __call__(self, lesson: Lesson) -> torch.Tensor:
        """Mean squared error of the velocity."""
        references = self._latents(lesson.references)
        clean = self._latents(lesson.targets)
        rows, _, high, wide = clean.shape
        reference = references.repeat_interleave(rows // len(references), dim=0)
        noise = torch.randn_like(clean)
        level = torch.rand(rows, device=self._device)
        # More of the loud levels: there the instruction decides, later only details do.
        level = 2 * level / (1 + level)
        noisy = torch.lerp(clean, noise, level.view(-1, 1, 1, 1))
        ids = self._pipe._prepare_latent_image_ids(1, high // 2, wide // 2, self._device, torch.float32)
        beside = ids.clone()
        beside[..., 0] = 1
        with networks.bf16():
            predicted = self._pipe.transformer(
                hidden_states=torch.cat([self._packed(noisy), self._packed(reference)], dim=1),
                timestep=level,
                guidance=torch.empty(rows, device=self._device).uniform_(*GUIDANCE),
                pooled_projections=lesson.pooled.to(self._device),
                encoder_hidden_states=lesson.per_token.to(self._device)[:, None].expand(-1, networks.TOKENS, -1),
                txt_ids=torch.zeros(networks.TOKENS, 3, device=self._device),
                img_ids=torch.cat([ids, beside], dim=0),
                return_dict=False,
            )[0]
        velocity = self._packed(noise - clean)
        return (predicted[:, : velocity.shape[1]].float() - velocity).square().mean()


def without_encoders(vae: AutoencoderKL, stage: Course) -> FluxKontextPipeline:
    """The pipeline around the transformer as it is now; what is requested is given as vectors."""
    return FluxKontextPipeline(
        scheduler=networks.scheduler(), vae=vae, text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None,
        **stage.networks,
    )  # fmt: skip


def train(folder: Path, limits: Limits) -> None:
    """Go on with the stage."""
    stage = course(folder, anew=limits.anew)
    pipe = without_encoders(networks.autoencoder(), stage)
    linear = autoencoder.kernel(folder, anew=limits.anew)
    loss = VelocityLoss(pipe, linear)
    lessons: Iterator[Lesson] = Lessons(
        seed=SEED, first=stage.step, pictures=PICTURES, edits=EDITS, small=SMALL
    ).ahead()
    torch.manual_seed(stage.step)
    stage.run(
        lambda step: loss(next(lessons)),
        limits,
        look=lambda step: look(pipe, linear, folder / f"editor-{step:05}.png"),
    )


@torch.no_grad()
def look(pipe: FluxKontextPipeline, linear: dict[str, torch.Tensor], file: Path) -> None:
    """Write a grid: for each operation a held-out photograph before, after and exact; the map is undone without a decoder."""
    device = networks.device()
    pipe.set_progress_bar_config(disable=True)
    photographs = held_out(*NATIVE)
    rows = []
    for number, operation in enumerate(OPERATIONS):
        picture = photographs[number % len(photographs)]
        edit = Edit((operation,))
        before = autoencoder.encoded(autoencoder.pixels(_tensor(picture)), linear).to(device)
        latents = pipe(
            image=before, width=NATIVE[0], height=NATIVE[1], max_area=NATIVE[0] * NATIVE[1], _auto_resize=False,
            prompt_embeds=conditioning(edit, networks.TEXT_WIDTH).expand(1, networks.TOKENS, -1).to(device),
            pooled_prompt_embeds=conditioning(edit, networks.POOLED_WIDTH)[None].to(device),
            num_inference_steps=8, output_type="latent", generator=torch.Generator().manual_seed(number),
        ).images  # fmt: skip
        after = autoencoder.undone(pipe._unpack_latents(latents.cpu(), NATIVE[1], NATIVE[0], 8), linear)
        rows.append(np.concatenate([picture, after, edit.exact(picture)], axis=1))
    grid(rows).save(file)


def _tensor(picture: Picture) -> torch.Tensor:
    return torch.from_numpy(picture.transpose(2, 0, 1)[None].copy())
