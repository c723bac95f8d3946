"""The text encoders learn what sentences mean, as the `conditioning` that the transformer follows.

T5 is trained to give the same vector, the edit's, at every token and at padding; CLIP to give it as its pooled output. With
a teacher, both also learn to choose as it does for altered sentences, which nobody has labelled.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import IterableDataset
from transformers import CLIPTokenizer, PreTrainedTokenizerFast, T5EncoderModel

from training import networks, teaching
from training.checkpoints import Course, Limits, begun_anew
from training.conditioning import conditioning, rows
from training.lessons import prepared_ahead, steps_of_this_process
from training.operations import EVERYTHING, Edit, Operation
from training.sentences import teacher, wordnet
from training.sentences.altered import altered, similar_words
from training.sentences.instructions import instruction

SEED = 5
STEPS, STEPS_ANEW = 4_000, 5_200
"""From the shipped weights, and from random ones."""
KEPT = 0.25
"""The share of the shipped weights in those that went on from them: what was understood before stays so."""
SENTENCES, UNLABELLED = 128, 64
"""In a batch: sentences with a label, and those that a teacher labels."""
SHARPNESS = 5.0
"""Of the choice between operations: the factor of the cosine. With more, vectors that are half of each of two are good enough."""
LIKELY = 0.3
"""What the teacher gives a share of this much is meant."""


@dataclass(frozen=True)
class Tokenizers:
    """Of both encoders; made once, then read from the folder."""

    clip: CLIPTokenizer
    t5: PreTrainedTokenizerFast

    def __call__(self, sentences: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token numbers: (sentences, the longest) for CLIP, which sees no padding, and (sentences, TOKENS) for T5, which does."""
        first = self.clip(list(sentences), padding="longest", max_length=77, truncation=True, return_tensors="pt")
        second = self.t5(
            list(sentences), padding="max_length", max_length=networks.TOKENS, truncation=True, return_tensors="pt"
        )
        return first.input_ids, second.input_ids


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


@dataclass(frozen=True)
class SentenceBatch:
    """A batch of sentences: token numbers of CLIP and T5, and what they mean: (sentences, operations) and (sentences, width).

    The tokens of altered sentences come after those of the others.
    """

    clip: torch.Tensor
    t5: torch.Tensor
    operations: torch.Tensor
    per_token: torch.Tensor
    pooled: torch.Tensor
    unlabelled: tuple[str, ...]


class SentenceBatches(IterableDataset[SentenceBatch]):
    """Batches from step `first` on; each depends on the seed and its number alone."""

    def __init__(
        self, tokenizers: Tokenizers, *, seed: int, first: int, similar: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        super().__init__()
        self._tokenizers, self._seed, self._first, self._similar = tokenizers, seed, first, similar

    def __iter__(self) -> Iterator[SentenceBatch]:
        for step in steps_of_this_process(self._first):
            rng = np.random.default_rng([self._seed, step])
            labelled = [instruction(rng) for _ in range(SENTENCES)]
            unlabelled = () if self._similar is None else (altered(rng, self._similar) for _ in range(UNLABELLED))
            yield batched(self._tokenizers, labelled, tuple(unlabelled))

    def ahead(self) -> Iterator[SentenceBatch]:
        """The batches, prepared ahead in processes of their own."""
        # Read before the processes begin, so that all have them.
        wordnet.sentences()
        wordnet.things()
        return prepared_ahead(self)


def batched(
    tokenizers: Tokenizers, instructions: Sequence[tuple[str, Edit]], unlabelled: tuple[str, ...] = ()
) -> SentenceBatch:
    """A batch of some sentences."""
    clip, t5 = tokenizers([*(sentence for sentence, _ in instructions), *unlabelled])
    edits = [edit for _, edit in instructions]
    per_token, pooled = (
        torch.stack([conditioning(edit, width) for edit in edits])
        for width in (networks.TEXT_WIDTH, networks.POOLED_WIDTH)
    )
    return SentenceBatch(clip, t5, teaching.shares(edits), per_token, pooled, unlabelled)


def finished(folder: Path) -> Course:
    """The stage with averaged weights, for looking and for shipping."""
    stage = course(folder)
    stage.averaged()
    if not begun_anew(folder, "words", asked=False):
        for name, before in _encoders(tokenizers(folder), shipped=True).items():
            for weight, old in zip(stage.networks[name].parameters(), before.parameters(), strict=True):
                weight.data.lerp_(old.data.to(weight.device), KEPT)
    return stage


def _coordinates(seen: torch.Tensor) -> torch.Tensor:
    """How much of each operation is in vectors (..., width): (..., operations), 1 where there is nothing else."""
    return seen @ rows(seen.shape[-1]).T.to(seen.device) / seen.shape[-1]


def _choice(coordinates: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """How far vectors, by their coordinates (..., operations), are from choosing as `shares` does (..., operations)."""
    logits = SHARPNESS * coordinates
    return functional.cross_entropy(logits.flatten(0, -2), shares.expand(*logits.shape).flatten(0, -2))


def _indecision(coordinates: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """How far vectors are from the likely operations alone: half of each of two would cancel both. Arguments are `_choice`'s."""
    likely = (shares >= shares.amax(-1, keepdim=True).clamp(max=LIKELY)).float()
    return (coordinates - functional.normalize(likely, dim=-1)).square().sum(-1).mean()


def _everywhere(one: torch.Tensor, tokens: int) -> torch.Tensor:
    return one[:, None].expand(-1, tokens, -1)


_CHUNKS = 4
"""Sentences of like length are read together; else padding would be more than half of the work."""


def pooled(encoder: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """CLIP's pooled outputs of sentences (sentences, longest): (sentences, width)."""
    lengths = (tokens == encoder.config.eos_token_id).int().argmax(1) + 1
    order = lengths.argsort()
    read = [encoder(tokens[part, : lengths[part].max()]).pooler_output for part in order.chunk(_CHUNKS)]
    return torch.cat(read)[order.argsort()]


def loss_of(
    batch: SentenceBatch, encoders: Mapping[str, nn.Module], told_by: Callable[[Sequence[str]], torch.Tensor] | None
) -> torch.Tensor:
    """How far these encoders are from what the batch means; `told_by` gives the logits of sentences without a label."""
    told = told_by(batch.unlabelled).softmax(-1) if told_by else None
    losses = []
    for name, encoder in encoders.items():
        device = next(encoder.parameters()).device
        with networks.bf16():
            if name == "text_encoder":
                meant, seen = batch.pooled, pooled(encoder, batch.clip.to(device)).float()[:, None]
            else:
                meant, seen = batch.per_token, encoder(batch.t5.to(device)).last_hidden_state.float()
        losses.append(_loss(seen, meant.to(device), batch.operations.to(device), told))
    return torch.stack(losses).sum()


def _loss(seen: torch.Tensor, meant: torch.Tensor, shares: torch.Tensor, told: torch.Tensor | None) -> torch.Tensor:
    """How far vectors (sentences, tokens, width) are from `meant` (sentences, width) and from choosing as `shares` and `told` do.

    `shares` and `told` are (sentences, operations); the sentences of `told` come last, and have no vector that is meant.
    """
    count, tokens = len(shares), seen.shape[1]
    loss = (seen[:count] - _everywhere(meant, tokens)).square().mean()
    at = _coordinates(seen)
    if told is not None:
        loss = loss + _indecision(at[count:], _everywhere(told, tokens))
        shares = torch.cat([shares, told])
    return loss + _choice(at, _everywhere(shares, tokens))


def train(folder: Path, limits: Limits) -> None:
    """Go on with the text encoders."""
    stage, told_by = course(folder, anew=limits.anew), teaching.trained(folder)
    batches = SentenceBatches(
        tokenizers(folder, anew=limits.anew), seed=SEED, first=stage.step, similar=similar_words() if told_by else None
    ).ahead()
    learning = {"text_encoder": stage.networks["text_encoder"]} if limits.clip_alone else stage.networks
    torch.manual_seed(stage.step)
    stage.run(lambda step: loss_of(next(batches), learning, told_by), limits)


@torch.no_grad()
def understood(
    encoders: Mapping[str, nn.Module], tokenizers: Tokenizers, sentences: Sequence[str]
) -> tuple[list[Operation], list[Operation]]:
    """The operation nearest to what each encoder makes of each sentence: T5's and CLIP's."""
    clip, t5 = (tokens.to(next(encoders["text_encoder"].parameters()).device) for tokens in tokenizers(sentences))
    seen = (
        encoders["text_encoder_2"](t5).last_hidden_state.mean(1),
        encoders["text_encoder"](clip).pooler_output,
    )
    by_t5, by_clip = (
        [EVERYTHING[place] for place in (vectors.cpu() @ rows(vectors.shape[-1]).T).argmax(1)] for vectors in seen
    )
    return by_t5, by_clip
