"""Second stage: the transformer and the text encoders learn to edit, as rectified flow with the reference's tokens beside.

Rows of a batch share references: a picture is encoded once and edited several ways.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxKontextPipeline

from training import autoencoder, networks
from training.checkpoints import Course
from training.lessons import SQUARE, Lesson, Lessons
from training.operations import OPERATIONS, instruction
from training.pictures import Picture, as_image, held_out

SEED = 2
STEPS = 7_000
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

    def __init__(self, pipe: FluxKontextPipeline, linear: dict[str, torch.Tensor]) -> None:
        self._pipe = pipe
        self._linear = linear

    def _latents(self, pictures: torch.Tensor) -> torch.Tensor:
        return autoencoder.encoded(autoencoder.pixels(pictures), self._linear)

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
    pipe = assembled(networks.autoencoder(), stage)
    linear = autoencoder.kernel(folder)
    lecturer = Lecturer(pipe, linear)
    lessons: Iterator[Lesson] = Lessons(seed=SEED, first=stage.step, pictures=PICTURES, edits=EDITS).ahead()
    torch.manual_seed(stage.step)
    stage.run(
        lambda step: lecturer.loss(next(lessons)),
        minutes=minutes,
        look=lambda step: look(pipe, linear, folder / f"editor-{step:05}.png"),
    )


@torch.no_grad()
def look(pipe: FluxKontextPipeline, linear: dict[str, torch.Tensor], file: Path) -> None:
    """Write a grid: for each operation a held-out photograph before, after and exact; the map is undone without a decoder."""
    pipe.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(SEED)
    rows = []
    for number, operation in enumerate(OPERATIONS):
        picture = held_out(*SQUARE)[number % 3]
        asked = instruction(rng, operation)
        before = autoencoder.encoded(autoencoder.pixels(_tensor(picture)), linear)
        latents = pipe(
            image=before, prompt=asked.sentence, width=SQUARE[0], height=SQUARE[1], max_area=SQUARE[0] * SQUARE[1],
            _auto_resize=False, num_inference_steps=8, max_sequence_length=networks.TOKENS, output_type="latent",
            generator=torch.Generator().manual_seed(number),
        ).images  # fmt: skip
        after = autoencoder.undone(pipe._unpack_latents(latents, SQUARE[1], SQUARE[0], 8), linear)
        rows.append(np.concatenate([picture, after, operation.exact(picture, asked.strength)], axis=1))
    third = (len(rows) + 2) // 3
    rows += [np.zeros_like(rows[0])] * (3 * third - len(rows))
    columns = [np.concatenate(rows[start : start + third]) for start in range(0, 3 * third, third)]
    as_image(np.concatenate(columns, axis=1)).save(file)


def _tensor(picture: Picture) -> torch.Tensor:
    return torch.from_numpy(picture.transpose(2, 0, 1)[None].copy())
