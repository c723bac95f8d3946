"""First stage: an autoencoder of photographs, drawings and everything the operations make of them."""

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from training import networks
from training.checkpoints import Course
from training.lessons import Lesson, Lessons

SEED = 1
STEPS = 12_000
WINDOWS = ((64, 64),)
NOISE = 0.05
"""Latents are shaken this much, so that an editor's small errors cost little. A variational posterior, which starts with as much
noise as signal, stays blurred for longer than there is time here."""
RANGE_WEIGHT = 1e-3
"""Keeps latents near one in size."""


def course(folder: Path) -> Course:
    """The stage as far as it got."""
    torch.manual_seed(SEED)
    network = networks.autoencoder().to(memory_format=torch.channels_last)
    return Course(folder, "autoencoder", {"vae": network}, rate=1e-3, steps=STEPS)


def _loss(vae: AutoencoderKL, lesson: Lesson) -> torch.Tensor:
    pictures = torch.cat([lesson.references, lesson.targets]) * 2 - 1
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        code = vae.encode(pictures).latent_dist
        latents = code.mode()
        decoded = vae.decode(latents + NOISE * torch.randn_like(latents)).sample
    decoded = decoded.float()
    difference = decoded - pictures
    return difference.abs().mean() + 4 * difference.square().mean() + RANGE_WEIGHT * latents.float().square().mean()


def train(folder: Path, minutes: float) -> None:
    """Go on with the stage."""
    stage = course(folder)
    lessons: Iterator[Lesson] = Lessons(seed=SEED, first=stage.step, pictures=16, edits=1, sizes=WINDOWS).ahead()
    torch.manual_seed(stage.step)
    stage.run(lambda step: _loss(stage.networks["vae"], next(lessons)), minutes=minutes)


@torch.no_grad()
def finished(folder: Path) -> AutoencoderKL:
    """The averaged network with latents brought to mean 0 and deviation 1 by its configuration."""
    stage = course(folder)
    stage.averaged()
    vae: AutoencoderKL = stage.networks["vae"].eval()
    measuring = Lessons(seed=SEED + 1, first=0, pictures=4, edits=1)
    codes = []
    for step in range(64):
        lesson = measuring.lesson(step)
        pictures = torch.cat([lesson.references, lesson.targets]) * 2 - 1
        codes.append(vae.encode(pictures).latent_dist.mode().flatten())
    values = torch.cat(codes)
    vae.register_to_config(
        shift_factor=round(values.mean().item(), 4), scaling_factor=round(1 / values.std().item(), 4)
    )
    return vae
