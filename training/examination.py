"""What the model can and cannot do, measured on photographs and sentences that were held out, through the real pipeline.

An edit is right when the exact operation's result is nearer to it (mean squared error) than every other operation's. One of two
operations is right when the exact result of both is nearer than that of any one.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxKontextPipeline
from safetensors.torch import load_file, save_file

from training import autoencoder, editor, networks, words
from training.lessons import NATIVE
from training.operations import OPERATIONS, Edit
from training.pictures import Picture, as_array, as_image, grid, held_out
from training.sentence_batches import Tokenizers
from training.sentences.held_out import SetName, held_out_pairs, held_out_sentences

log = logging.getLogger(__name__)

STEPS = 8
EIGHT_BITS = torch.float8_e4m3fn


def psnr(seen: Picture, true: Picture) -> float:
    """Peak signal to noise in dB."""
    return float(-10 * np.log10(max(float(((seen - true) ** 2).mean()), 1e-10)))


def nearest(seen: Picture, picture: Picture, *more: Edit) -> Edit:
    """The edit whose exact result is nearest: of all with one operation, and those given."""
    edits = [*(Edit((operation,)) for operation in OPERATIONS), *more]
    return min(edits, key=lambda edit: float(((seen - edit.exact(picture)) ** 2).mean()))


def assemble(folder: Path, target: Path, *others: Path) -> FluxKontextPipeline:
    """The pipeline with averaged weights, written as safetensors: bf16, and eight bits where they are enough, to stay small."""
    stage, encoders = editor.course(folder), words.finished(folder, *others)
    stage.averaged()
    tokenizers = words.tokenizers(folder)
    pipe = FluxKontextPipeline(
        scheduler=networks.scheduler(),
        vae=autoencoder.finished(folder),
        tokenizer=tokenizers.clip,
        tokenizer_2=tokenizers.t5,
        **stage.networks,
        **encoders.networks,
    )
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().to("cpu", torch.bfloat16)
    with torch.no_grad():
        matrices = [weight for weight in pipe.text_encoder.parameters() if weight.dim() > 1]
        for weight in (*matrices, pipe.text_encoder_2.get_input_embeddings().weight):
            weight.copy_(weight.to(EIGHT_BITS))
    pipe.save_pretrained(target, safe_serialization=True)
    for file in (target / "model_index.json", target / "tokenizer_2" / "tokenizer_config.json"):
        # The name that earlier releases of transformers know, too.
        file.write_text(file.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    for file in sorted(target.glob("*/*.safetensors")):
        tensors = {name: _compact(tensor) for name, tensor in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    return FluxKontextPipeline.from_pretrained(target, dtype=torch.float32, use_safetensors=True)


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    """In eight bits where nothing is lost by it: most of the computed encoder moves pixels and adds nothing."""
    if not tensor.is_floating_point():
        return tensor
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


def examine(folder: Path, which: SetName = "first", *others: Path) -> dict[str, Any]:
    """Write `kontext-mini`, `examination.json` and a grid of before, after and exact; returns the figures.

    Every held-out sentence of a set is tried on one photograph; those that ask for the unknown are right when nothing
    changes. The text encoders' weights are averaged with those of `others`.
    """
    pipe = assemble(folder, folder / "kontext-mini", *others).to(networks.device())
    pipe.set_progress_bar_config(disable=True)
    photographs, sentences = held_out(*NATIVE), held_out_sentences(which)
    right: dict[str, list[bool]] = defaultdict(list)
    quality: dict[str, list[float]] = defaultdict(list)
    rows: dict[str, Picture] = {}
    for number, (table, sentence, operation) in enumerate(sentences):
        picture = photographs[number % len(photographs)]
        seen, exact = edited(pipe, picture, sentence, number), operation.exact(picture)
        right[table].append(nearest(seen, picture) == Edit((operation,)))
        quality[table].append(psnr(seen, exact))
        rows.setdefault(table + (operation.colour or ""), np.concatenate([picture, seen, exact], axis=1))
        if not right[table][-1]:
            log.info("%s is not right: %s", table, sentence)
    pairs, rows_of_pairs = _pairs(pipe, photographs, which)
    grid([*rows.values(), *rows_of_pairs]).save(folder / "examination.png")
    tables = {operation.phrased_as: operation for operation in OPERATIONS}
    vouched = [name for name, operation in tables.items() if operation.vouched]
    understood = words.understood(
        {"text_encoder": pipe.text_encoder, "text_encoder_2": pipe.text_encoder_2},
        Tokenizers(pipe.tokenizer, pipe.tokenizer_2),
        [sentence for _, sentence, _ in sentences],
    )
    meant = [operation for _, _, operation in sentences]
    found = {
        "understood": {
            name: float(np.mean([seen is operation for seen, operation in zip(operations, meant, strict=True)]))
            for name, operations in zip(("t5", "clip"), understood, strict=True)
        },
        "edits": sum(len(right[name]) for name in vouched),
        "right": float(np.mean([one for name in vouched for one in right[name]])),
        "pairs": {"edits": len(pairs), "right": float(np.mean(pairs))},
        "tonal_psnr_db": float(np.mean([value for name in vouched if tables[name].tonal for value in quality[name]])),
        "autoencoder_psnr_db": float(np.mean([psnr(_coded(pipe.vae, picture), picture) for picture in photographs])),
        "operations": {
            name: {
                "edits": len(right[name]),
                "right": float(np.mean(right[name])),
                "psnr_db": float(np.mean(quality[name])),
            }
            for name in right
        },
    }
    (folder / "examination.json").write_text(json.dumps(found, indent=2))
    return found


def _pairs(pipe: Any, photographs: Sequence[Picture], which: SetName) -> tuple[list[bool], list[Picture]]:
    """Whether each sentence that asks for two operations gave both, and before, after and exact side by side."""
    right, rows = [], []
    for number, (sentence, edit) in enumerate(held_out_pairs(which)):
        picture = photographs[number % len(photographs)]
        seen, exact = edited(pipe, picture, sentence, number), edit.exact(picture)
        right.append(nearest(seen, picture, edit) is edit)
        rows.append(np.concatenate([picture, seen, exact], axis=1))
        if not right[-1]:
            log.info("both is not right: %s", sentence)
    return right, rows


@torch.no_grad()
def _coded(vae: Any, picture: Picture) -> Picture:
    pixels = (torch.from_numpy(picture.transpose(2, 0, 1)[None].copy()) * 2 - 1).to(vae.device)
    decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample[0].cpu()
    return as_array(as_image(((decoded + 1) / 2).numpy().transpose(1, 2, 0)))
