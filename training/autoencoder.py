"""The autoencoder: an encoder that is computed, and a decoder that is trained to undo it.

Its encoder is the best linear map of eight by eight pixels to 32 numbers (a principal component analysis of what is trained on),
written into the weights of the ordinary `AutoencoderKL`: strided convolutions that only rearrange pixels, residual branches
that add nothing. Latents therefore have a known spread from the first step on, and the editor can be trained beside the decoder.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from training import networks
from training.checkpoints import Course, Limits, begun_anew
from training.lessons import Lesson, Lessons
from training.pictures import Picture, as_array, as_image

SEED = 1
STEPS, STEPS_ANEW = 1_000, 3_500
"""From the shipped weights, and from random ones."""
WINDOWS = ((64, 64),)
NOISE = 0.05
"""Latents are shaken this much before they are decoded, so that an editor's small errors cost little."""
CELL = 8
"""Pixels to a side of what one latent stands for."""
LEVEL = 100.0
"""A constant beside the signal that a group's deviation is made of, so that the last normalisation scales every picture alike."""


def pixels(pictures: torch.Tensor) -> torch.Tensor:
    """Values from 0 to 1 as the pipelines give them to an autoencoder, from -1 to 1."""
    return (pictures * 2 - 1).contiguous(memory_format=torch.channels_last)


def kernel(folder: Path, *, anew: bool = False) -> dict[str, torch.Tensor]:
    """The linear map as `weight`, (32, 3, 8, 8), and `bias`, (32): the shipped encoder's, or measured once, then read.

    A component's variance is brought to the square root of itself, so that faint ones are not lost in noise, and their mean to 1.
    """
    file = folder / "kernel.safetensors"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_measured() if anew else linear_map(networks.shipped(networks.autoencoder(), "vae")), file)
    return load_file(file)


@torch.no_grad()
def linear_map(vae: AutoencoderKL) -> dict[str, torch.Tensor]:
    """The map that `write_encoder` wrote: the answer to a cell of zeros and to each of its numbers alone."""
    size = 3 * CELL * CELL
    cells = torch.cat([torch.zeros(1, size), torch.eye(size)]).reshape(-1, 3, CELL, CELL)
    answers = vae.encode(cells).latent_dist.mode().flatten(1)
    weight = (answers[1:] - answers[0]).T.reshape(-1, 3, CELL, CELL)
    return {"weight": weight.contiguous(), "bias": answers[0].contiguous()}


def _measured() -> dict[str, torch.Tensor]:
    lessons = Lessons(seed=SEED, first=0, pictures=16, edits=1)
    size = 3 * CELL * CELL
    number, total, products = 0, torch.zeros(size).double(), torch.zeros(size, size).double()
    for step in range(150):
        lesson = lessons.lesson(step)
        pictures = pixels(torch.cat([lesson.references, lesson.targets]))
        cells = functional.unfold(pictures, CELL, stride=CELL).transpose(1, 2).reshape(-1, size).double()
        number, total, products = number + len(cells), total + cells.sum(0), products + cells.T @ cells
    mean = total / number
    variances, directions = torch.linalg.eigh(products / number - torch.outer(mean, mean))
    kept = directions[:, -networks.LATENT_CHANNELS :].flip(1)
    spread = variances[-networks.LATENT_CHANNELS :].flip(0).sqrt()
    scale = spread.pow(-0.5)
    scale = scale / (scale * spread).square().mean().sqrt()
    weight = (kept * scale).T
    return {
        "weight": weight.reshape(-1, 3, CELL, CELL).float().contiguous(),
        "bias": (-weight @ mean).float().contiguous(),
    }


def encoded(pictures: torch.Tensor, linear: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the encoder gives for `pixels`, without its detours."""
    return functional.conv2d(pictures, linear["weight"], linear["bias"], stride=CELL)


def undone(latents: torch.Tensor, linear: dict[str, torch.Tensor]) -> Picture:
    """The first picture of what `encoded` gave, as well as a linear map can: with seams between cells."""
    inverse = torch.linalg.pinv(linear["weight"].flatten(1))
    cells = inverse @ (latents[:1] - linear["bias"].view(1, -1, 1, 1)).flatten(2)
    size = (latents.shape[2] * CELL, latents.shape[3] * CELL)
    found = functional.fold(cells, size, CELL, stride=CELL)[0]
    return as_array(as_image(((found + 1) / 2).permute(1, 2, 0).numpy()))


@torch.no_grad()
def _rearranging(convolution: nn.Conv2d, channels: int, kept: torch.Tensor | None = None) -> None:
    """Two by two pixels of `channels` become as many times four channels, or what `kept` (outputs, four times channels) takes."""
    moved = torch.zeros(4 * channels, convolution.in_channels, 3, 3)
    for place in range(4):
        for channel in range(channels):
            moved[place * channels + channel, channel, place // 2, place % 2] = 1
    if kept is not None:
        moved = torch.einsum("oi,ichw->ochw", kept, moved)
    convolution.weight.zero_()
    convolution.bias.zero_()
    convolution.weight[: len(moved)] = moved


@torch.no_grad()
def _silenced(block: nn.Module) -> None:
    """A residual branch adds nothing."""
    block.conv2.weight.zero_()
    block.conv2.bias.zero_()


@torch.no_grad()
def write_encoder(vae: AutoencoderKL, linear: dict[str, torch.Tensor]) -> None:
    """Let the encoder be exactly the linear map."""
    encoder = vae.encoder
    count = networks.LATENT_CHANNELS
    for block in [resnet for part in encoder.down_blocks for resnet in part.resnets] + list(encoder.mid_block.resnets):
        _silenced(block)
        # Nothing comes of these then; zeros are stored small.
        block.conv1.weight.zero_()
        block.conv1.bias.zero_()
        if block.conv_shortcut is not None:
            block.conv_shortcut.bias.zero_()
            block.conv_shortcut.weight.zero_()
            block.conv_shortcut.weight[:, :, 0, 0].fill_diagonal_(1)
    encoder.conv_in.weight.zero_()
    encoder.conv_in.bias.zero_()
    encoder.conv_in.weight[:3, :, 1, 1] = torch.eye(3)
    _rearranging(encoder.down_blocks[0].downsamplers[0].conv, 3)
    _rearranging(encoder.down_blocks[1].downsamplers[0].conv, 12)
    # The third step gathers the (row, column) places of all three, the last step's being the most distant.
    weight = linear["weight"].reshape(count, 3, 2, 2, 2, 2, 2, 2)
    order = weight.permute(0, 2, 5, 3, 6, 4, 7, 1)
    _rearranging(encoder.down_blocks[2].downsamplers[0].conv, 48, order.reshape(count, 192))
    # silu(x) - silu(-x) is x: each latent passes the last activation beside its opposite, in a group whose deviation LEVEL makes.
    spread = encoder.down_blocks[3].resnets[0].conv_shortcut
    spread.weight.zero_()
    groups = encoder.conv_norm_out.num_groups
    size = spread.out_channels // groups
    held = count // groups
    encoder.conv_out.weight.zero_()
    encoder.conv_out.bias.zero_()
    encoder.conv_out.bias[count:] = -30
    share = (1 - 2 * held / size) ** 0.5
    for group in range(groups):
        for place in range(size // 2):
            channel = group * size + 2 * place
            latent = group * held + place
            if place < held:
                spread.weight[channel, latent] = 1
                spread.weight[channel + 1, latent] = -1
                spread.bias[channel] = linear["bias"][latent]
                spread.bias[channel + 1] = -linear["bias"][latent]
                encoder.conv_out.weight[latent, channel, 1, 1] = 1
                encoder.conv_out.weight[latent, channel + 1, 1, 1] = -1
            else:
                spread.bias[channel] = LEVEL
                spread.bias[channel + 1] = -LEVEL
    encoder.conv_norm_out.weight.fill_(LEVEL * share)
    encoder.conv_norm_out.bias.zero_()
    encoder.requires_grad_(False)


def course(folder: Path, *, anew: bool = False) -> Course:
    """The decoder as far as it got."""
    torch.manual_seed(SEED)
    anew = begun_anew(folder, "decoder", asked=anew)
    vae = networks.autoencoder()
    if not anew:
        networks.shipped(vae, "vae")
    decoder = vae.decoder.to(memory_format=torch.channels_last)
    if anew:
        for part in [decoder.mid_block, *decoder.up_blocks]:
            for block in part.resnets:
                _silenced(block)
    rate, steps = (2e-3, STEPS_ANEW) if anew else (5e-4, STEPS)
    return Course(folder, "decoder", {"decoder": decoder}, rate=rate, steps=steps, anew=anew)


def _loss(decoder: nn.Module, lesson: Lesson, linear: dict[str, torch.Tensor]) -> torch.Tensor:
    device = networks.device()
    pictures = pixels(torch.cat([lesson.references, lesson.targets]).to(device))
    latents = encoded(pictures, linear)
    with networks.bf16():
        decoded = decoder(latents + NOISE * torch.randn_like(latents)).float()
    difference = decoded - pictures
    return 4 * difference.square().mean() + 0.25 * difference.abs().mean()


def train(folder: Path, limits: Limits) -> None:
    """Go on with the decoder."""
    stage = course(folder, anew=limits.anew)
    linear = {name: tensor.to(networks.device()) for name, tensor in kernel(folder, anew=limits.anew).items()}
    lessons: Iterator[Lesson] = Lessons(seed=SEED, first=stage.step, pictures=16, edits=1, sizes=WINDOWS).ahead()
    torch.manual_seed(stage.step)
    stage.run(lambda step: _loss(stage.networks["decoder"], next(lessons), linear), limits)


def finished(folder: Path) -> AutoencoderKL:
    """The computed encoder and the averaged decoder; the shipped ones where the folder has no decoder.

    Raises `ValueError` where the shipped decoder does not undo the folder's map.
    """
    stage = course(folder)
    vae: AutoencoderKL = networks.autoencoder()
    vae.register_to_config(shift_factor=0.0, scaling_factor=1.0)
    if stage.step == 0:
        networks.shipped(vae, "vae")
        if not torch.allclose(kernel(folder)["weight"], linear_map(vae)["weight"], atol=1e-3):
            raise ValueError(f"{folder} has a map of its own; train its decoder, too")
        return vae.eval()
    stage.averaged()
    vae.decoder = stage.networks["decoder"].cpu()
    write_encoder(vae, kernel(folder))
    return vae.eval()
