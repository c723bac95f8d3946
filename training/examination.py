"""What the model can and cannot do, measured on photographs and phrasings that were held out, through the real pipeline.

An edit is right when the exact operation's result is nearer to it (mean squared error) than every other operation's.
"""

import json
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxKontextPipeline
from safetensors.torch import load_file, save_file

from training import autoencoder, editor, networks
from training.lessons import SQUARE
from training.operations import OPERATIONS, Operation, instruction
from training.pictures import Picture, as_array, as_image, held_out

log = logging.getLogger(__name__)

SEED = 3
STEPS = 8
EIGHT_BITS = torch.float8_e4m3fn


def psnr(seen: Picture, true: Picture) -> float:
    """Peak signal to noise in dB."""
    return float(-10 * np.log10(max(float(((seen - true) ** 2).mean()), 1e-10)))


def nearest(seen: Picture, picture: Picture) -> Operation:
    """The operation whose exact result is nearest."""
    return min(OPERATIONS, key=lambda operation: float(((seen - operation.exact(picture)) ** 2).mean()))


def assemble(folder: Path, target: Path) -> FluxKontextPipeline:
    """The pipeline with averaged weights, written as safetensors: bf16, and eight bits where they are enough, to stay small."""
    stage = editor.course(folder)
    stage.averaged()
    pipe = editor.assembled(autoencoder.finished(folder), stage)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().to(torch.bfloat16)
    with torch.no_grad():
        for weight in pipe.text_encoder.parameters():
            weight.copy_(weight.to(EIGHT_BITS))
    pipe.save_pretrained(target, safe_serialization=True)
    for file in sorted(target.glob("*/*.safetensors")):
        tensors = {name: _compact(tensor) for name, tensor in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    return FluxKontextPipeline.from_pretrained(target, dtype=torch.float32, use_safetensors=True)


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    """In eight bits where nothing is lost by it: most of the computed encoder moves pixels and adds nothing."""
    small = tensor.to(EIGHT_BITS)
    return small if torch.equal(small.to(tensor.dtype), tensor) else tensor


def edited(pipe: Any, picture: Picture, sentence: str, seed: int) -> Picture:
    """One edit, as the worker runs it."""
    height, width = picture.shape[:2]
    output = pipe(
        image=as_image(picture), prompt=sentence, width=width, height=height, max_area=width * height, _auto_resize=False,
        num_inference_steps=STEPS, guidance_scale=2.5, max_sequence_length=networks.TOKENS,
        generator=torch.Generator("cpu").manual_seed(seed),
    )  # fmt: skip
    return as_array(output.images[0])


def examine(folder: Path, rounds: int) -> dict[str, Any]:
    """Write `examination.json` and a grid of before, after and exact; returns the figures, of vouched operations."""
    pipe = assemble(folder, folder / "kontext-mini")
    pipe.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(SEED)
    right: dict[str, list[bool]] = defaultdict(list)
    quality: dict[str, list[float]] = defaultdict(list)
    rows: list[Picture] = []
    for operation in OPERATIONS:
        for number, picture in enumerate(held_out(*SQUARE) * rounds):
            asked = instruction(rng, operation, held_out=True)
            exact = operation.exact(picture, asked.strength)
            seen = edited(pipe, picture, asked.sentence, number)
            right[operation.name].append(nearest(seen, picture).name == operation.name)
            quality[operation.name].append(psnr(seen, exact))
        rows.append(np.concatenate([picture, seen, exact], axis=1))
        log.info(
            "%-22s %3.0f %% right, %.1f dB",
            operation.name,
            100 * np.mean(right[operation.name]),
            np.mean(quality[operation.name]),
        )
    half = (len(rows) + 1) // 2
    rows += [np.zeros_like(rows[0])] * (2 * half - len(rows))
    grid = np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half:])], axis=1)
    as_image(grid).save(folder / "examination.png")
    vouched = [operation for operation in OPERATIONS if operation.vouched]
    tonal = [value for operation in vouched if operation.tonal for value in quality[operation.name]]
    found = {
        "edits": sum(len(right[operation.name]) for operation in vouched),
        "right": float(np.mean([one for operation in vouched for one in right[operation.name]])),
        "tonal_psnr_db": float(np.mean(tonal)),
        "autoencoder_psnr_db": float(
            np.mean([psnr(_coded(pipe.vae, picture), picture) for picture in held_out(*SQUARE)])
        ),
        "operations": {
            name: {"right": float(np.mean(right[name])), "psnr_db": float(np.mean(quality[name]))} for name in right
        },
    }
    (folder / "examination.json").write_text(json.dumps(found, indent=2))
    return found


@torch.no_grad()
def _coded(vae: Any, picture: Picture) -> Picture:
    pixels = torch.from_numpy(picture.transpose(2, 0, 1)[None].copy()) * 2 - 1
    decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample[0]
    return ((decoded + 1) / 2).clamp(0, 1).numpy().transpose(1, 2, 0)
