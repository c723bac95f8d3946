"""The text encoders learn what sentences mean, as the `conditioning` that the transformer follows.

T5 is trained to give the same vector, the edit's, at every token and at padding; CLIP to give it as its pooled output. With
a teacher, both also learn to choose as it does, together with the encoders as they were, for altered sentences, which nobody
has labelled.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import CLIPTokenizer, PreTrainedTokenizerFast, T5EncoderModel

from training import networks, teaching
from training.checkpoints import Course, Limits, begun_anew
from training.consensus import Consensus, read
from training.losses import loss_of
from training.operations import EVERYTHING, Operation
from training.sentence_batches import SentenceBatches, Tokenizers
from training.sentences import teacher
from training.sentences.altered import similar_words
from training.sentences.instructions import instruction

SEED = 5
STEPS, STEPS_ANEW = 4_000, 5_200
"""From the shipped weights, and from random ones."""


def tokenizers(folder: Path, *, anew: bool = False) -> Tokenizers:
    """The shipped tokenizers, or where the stage begins anew the folder's own, which are made once."""
    if not begun_anew(folder, "words", asked=anew):
        folder = networks.SHIPPED
    clip, t5 = folder / "tokenizer", folder / "tokenizer_2"
    if not t5.exists():
        rng = np.random.default_rng(SEED)
        networks.clip_tokenizer([instruction(rng)[0] for _ in range(60_000)]).save_pretrained(clip)
        words = teacher.vocabulary()
        networks.t5_tokenizer(words.words, words.endings).save_pretrained(t5)
    return Tokenizers(CLIPTokenizer.from_pretrained(clip), PreTrainedTokenizerFast.from_pretrained(t5))


def _encoders(tokenized: Tokenizers, *, shipped: bool) -> dict[str, nn.Module]:
    """Both, with the shipped weights or random ones."""
    found = {"text_encoder": networks.clip(len(tokenized.clip)), "text_encoder_2": networks.t5(len(tokenized.t5))}
    if shipped:
        for name, encoder in found.items():
            networks.shipped(encoder, name)
    return found


def course(folder: Path, *, anew: bool = False) -> Course:
    """The stage as far as it got."""
    torch.manual_seed(SEED)
    anew = begun_anew(folder, "words", asked=anew)
    tokenized = tokenizers(folder, anew=anew)
    parts = _encoders(tokenized, shipped=not anew)
    if anew and not (folder / "words.safetensors").exists():
        _begin_with_the_teacher(parts["text_encoder_2"], tokenized.t5)
    rate, steps = (1e-3, STEPS_ANEW) if anew else (2e-4, STEPS)
    return Course(folder, "words", parts, rate=rate, steps=steps, anew=anew)


@torch.no_grad()
def _begin_with_the_teacher(encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Its word vectors, reduced to as many principal components, at a root mean square of 1."""
    vectors = teacher.vocabulary().vectors
    matrix = torch.stack(list(vectors.values()))
    matrix = matrix - matrix.mean(0)
    _, _, directions = torch.linalg.svd(matrix, full_matrices=False)
    reduced = matrix @ directions[: networks.TEXT_WIDTH].T
    reduced = reduced / reduced.square().mean().sqrt()
    by_piece = dict(zip(vectors, reduced, strict=True))
    embedding = encoder.get_input_embeddings().weight
    for piece, number in tokenizer.get_vocab().items():
        vector = by_piece.get(piece.replace("▁", " ")) if piece != "▁" else None
        if vector is not None:
            embedding[number] = vector


def finished(folder: Path, *others: Path) -> Course:
    """The stage with averaged weights, also with those of other runs, for looking and for shipping."""
    stage = course(folder)
    stage.averaged(*others)
    return stage


def _told_by(folder: Path, *, anew: bool) -> Callable[[Sequence[str]], torch.Tensor] | None:
    """What says what altered sentences mean, as logits (sentences, operations); none where there is no teacher."""
    taught = teaching.trained(folder)
    if taught is None or begun_anew(folder, "words", asked=anew):
        return taught
    tokenized = tokenizers(folder)
    before = _encoders(tokenized, shipped=True)
    for encoder in before.values():
        encoder.eval().requires_grad_(False).to(networks.device())
    return Consensus(taught, before, tokenized)


def train(folder: Path, limits: Limits) -> None:
    """Go on with the text encoders."""
    stage, told_by = course(folder, anew=limits.anew), _told_by(folder, anew=limits.anew)
    batches = SentenceBatches(
        tokenizers(folder, anew=limits.anew),
        seed=SEED + limits.seed,
        first=stage.step,
        similar=similar_words() if told_by else None,
    ).ahead()
    learning = {"text_encoder": stage.networks["text_encoder"]} if limits.clip_alone else stage.networks
    torch.manual_seed(stage.step)
    stage.run(lambda step: loss_of(next(batches), learning, told_by), limits)


@torch.no_grad()
def understood(
    encoders: Mapping[str, nn.Module], tokenizers: Tokenizers, sentences: Sequence[str]
) -> tuple[list[Operation], list[Operation]]:
    """The operation nearest to what each encoder makes of each sentence: T5's and CLIP's."""
    by_t5, by_clip = (
        [EVERYTHING[place] for place in one.argmax(1).tolist()] for one in read(encoders, tokenizers, sentences)
    )
    return by_t5, by_clip
