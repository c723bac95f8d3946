"""Batches of sentences for the text encoders, with what they mean."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from training import networks, teaching
from training.conditioning import conditioning
from training.lessons import prepared_ahead, steps_of_this_process
from training.operations import Edit
from training.sentences import wordnet
from training.sentences.altered import altered
from training.sentences.instructions import instruction

SENTENCES, UNLABELLED = 128, 64
"""In a batch: sentences with a label, and those that a teacher labels."""


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
