"""What a training step learns from: batches that depend on the seed and the number of the step alone, so that a run resumes."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.conditioning import conditioning, normalised
from training.networks import POOLED_WIDTH, TEXT_WIDTH
from training.operations import NOTHING, OPERATIONS, OPPOSITES, Edit, Operation, drawn_edit, go_together
from training.pictures import Picture, drawn

Batch = TypeVar("Batch")

NATIVE = (256, 256)
SIZES = (NATIVE, NATIVE, NATIVE, (288, 224), (224, 288), (320, 208), (208, 320), (352, 192), (192, 352), (192, 192))
"""Width and height in pixels; a batch has one of these."""
SMALL_SIZES = ((128, 128), (128, 128), (144, 112), (112, 144), (160, 96), (96, 160))
"""A quarter of the pixels: four times as many edits a second."""
_PAIRED = 0.25
"""Share of instructions that ask for two operations."""
_MIXED, _MIXED_PAIRS, _CONTRARY = 0.5, 0.8, 0.3
"""Shares of edits, and of those of two operations, that the encoders are not sure of; of these, in which T5 means something else
altogether."""
_T5_ASTRAY = 0.6
"""Share of edits in which T5 means another one altogether, whatever CLIP means."""
_CLIP_MIXED, _CLIP_ADDED, _CLIP_UNEVEN = 0.4, 0.22, 0.55
"""Of another meaning CLIP says so much at the most; less where both could be done, or it would be a request for both, and more
where it is one of the two that are meant.

CLIP understands more than T5 does, and the transformer is to follow it.
"""
_EASY = ("tint", "border")
_NOTHING_WEIGHT = 3.0
"""Whatever is not understood is to change nothing, so that this is asked for in more ways than all else."""


@dataclass(frozen=True)
class Lesson:
    """A batch."""

    references: torch.Tensor
    """(pictures, 3, height, width), from 0 to 1."""
    targets: torch.Tensor
    """(edits, 3, height, width): those of the first picture, then of the next."""
    per_token: torch.Tensor
    """(edits, TEXT_WIDTH)."""
    pooled: torch.Tensor
    """(edits, POOLED_WIDTH)."""


def _stacked(pictures: list[Picture]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)))


_WEIGHTS = np.array([0.4 if operation.name.startswith(_EASY) else 1.0 for operation in OPERATIONS])
_WEIGHTS[OPERATIONS.index(NOTHING)] = _NOTHING_WEIGHT
_WEIGHTS /= _WEIGHTS.sum()


def edits(rng: np.random.Generator, number: int) -> list[Edit]:
    """Different edits, some of two operations, some of another strength."""

    def another() -> Operation:
        return OPERATIONS[rng.choice(len(OPERATIONS), p=_WEIGHTS)]

    firsts = [OPERATIONS[index] for index in rng.choice(len(OPERATIONS), number, replace=False, p=_WEIGHTS)]
    return [drawn_edit(rng, first, another, share_paired=_PAIRED) for first in firsts]


def _other(rng: np.random.Generator, edit: Edit) -> Edit:
    """What an edit may be taken for: one of its two operations, its opposite, no change, or anything."""
    if len(edit.operations) > 1 and rng.random() < 0.85:
        return Edit((edit.operations[rng.integers(2)],), edit.strength)
    kind = rng.random()
    opposites = [OPPOSITES[operation.name] for operation in edit.operations if operation.name in OPPOSITES]
    if kind < 0.4 and opposites:
        return Edit((next(one for one in OPERATIONS if one.name == opposites[0]),))
    if kind < 0.6:
        return Edit((NOTHING,))
    return edits(rng, 1)[0]


def _most_of_clip(edit: Edit, other: Edit) -> float:
    """How much CLIP may say of the other meaning."""
    added = set(other.operations) - set(edit.operations)
    if any(go_together(first, second) for first in edit.operations for second in added):
        return _CLIP_ADDED
    return _CLIP_UNEVEN if set(other.operations) < set(edit.operations) else _CLIP_MIXED


def told(rng: np.random.Generator, edit: Edit) -> tuple[torch.Tensor, torch.Tensor]:
    """What both encoders may say of an edit, for each token (TEXT_WIDTH,) and pooled (POOLED_WIDTH,).

    Both may mix another meaning into it, the same one, or T5 mean another one alone; pooled, the edit's has the larger share, or
    all of it where the other is one of its two operations.
    """
    other, shares = _other(rng, edit), np.zeros(2)
    if rng.random() < (_MIXED_PAIRS if len(edit.operations) > 1 else _MIXED):
        of_t5 = 1.0 if rng.random() < _CONTRARY else rng.random()
        shares = np.array([of_t5, rng.uniform(0, _most_of_clip(edit, other))])
    others = [other, other]
    if rng.random() < _T5_ASTRAY:
        others[0], shares[0] = _other(rng, edit), 1.0
    vectors = []
    for meaning, share, width in zip(others, shares.tolist(), (TEXT_WIDTH, POOLED_WIDTH), strict=True):
        noise = torch.from_numpy(rng.normal(0, rng.uniform(0, 0.3), width).astype(np.float32))
        meant = (1 - share) * conditioning(edit, width) + share * conditioning(meaning, width)
        vectors.append(normalised(normalised(meant) + noise))
    return vectors[0], vectors[1]


class Lessons(IterableDataset[Lesson]):
    """From step `first` on: `pictures` references, `edits` of each. A share of `small` has small sizes and twice the pictures."""

    def __init__(
        self,
        *,
        seed: int,
        first: int,
        pictures: int,
        edits: int,
        sizes: Sequence[tuple[int, int]] = SIZES,
        small: float = 0.0,
    ) -> None:
        super().__init__()
        self._seed, self._first, self._pictures, self._edits = seed, first, pictures, edits
        self._sizes, self._small = sizes, small

    def lesson(self, step: int) -> Lesson:
        """The batch of one step."""
        rng = np.random.default_rng([self._seed, step])
        small = rng.random() < self._small
        sizes = SMALL_SIZES if small else self._sizes
        width, height = sizes[rng.integers(len(sizes))]
        references = [drawn(rng, width, height) for _ in range(self._pictures * (2 if small else 1))]
        requested = [(reference, edit) for reference in references for edit in edits(rng, self._edits)]
        per_token, pooled = zip(*(told(rng, edit) for _, edit in requested), strict=True)
        targets = _stacked([edit.exact(reference) for reference, edit in requested])
        return Lesson(_stacked(references), targets, torch.stack(per_token), torch.stack(pooled))

    def __iter__(self) -> Iterator[Lesson]:
        return (self.lesson(step) for step in steps_of_this_process(self._first))

    def ahead(self) -> Iterator[Lesson]:
        """The batches, prepared ahead in processes of their own."""
        return prepared_ahead(self)


def steps_of_this_process(first: int) -> Iterator[int]:
    """The steps that this process of a `DataLoader` prepares: in turn with the others, so that their order stays."""
    process = get_worker_info()
    return count(first + process.id, process.num_workers) if process else count(first)


def prepared_ahead(batches: IterableDataset[Batch]) -> Iterator[Batch]:
    """By as many processes as leave a core to the training."""
    processes = max((os.cpu_count() or 2) - 1, 1)
    return iter(DataLoader(batches, batch_size=None, num_workers=min(processes, 8), prefetch_factor=4))
