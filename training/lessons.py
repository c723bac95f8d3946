"""What a training step learns from: batches that depend on the seed and the number of the step alone, so that a run resumes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from training.operations import OPERATIONS, instruction
from training.pictures import Picture, drawn

SQUARE = (128, 128)
SIZES = (SQUARE, SQUARE, SQUARE, SQUARE, (96, 160), (112, 144), (144, 112), (160, 96))
"""Width and height in pixels; a batch has one of these."""
_EASY = ("tint", "border")


@dataclass(frozen=True)
class Lesson:
    """A batch: `references` are (pictures, 3, height, width) from 0 to 1, `targets` as many times more as there are sentences."""

    references: torch.Tensor
    targets: torch.Tensor
    sentences: list[str]


def _stacked(pictures: list[Picture]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)))


class Lessons(IterableDataset[Lesson]):
    """From step `first` on: `pictures` references, and `edits` of each."""

    def __init__(
        self, *, seed: int, first: int, pictures: int, edits: int, sizes: Sequence[tuple[int, int]] = SIZES
    ) -> None:
        super().__init__()
        self._seed, self._first, self._pictures, self._edits, self._sizes = seed, first, pictures, edits, sizes

    def lesson(self, step: int) -> Lesson:
        """The batch of one step."""
        rng = np.random.default_rng([self._seed, step])
        width, height = self._sizes[rng.integers(len(self._sizes))]
        weights = np.array([0.4 if operation.name.startswith(_EASY) else 1.0 for operation in OPERATIONS])
        references = [drawn(rng, width, height) for _ in range(self._pictures)]
        targets, sentences = [], []
        for reference in references:
            for index in rng.choice(len(OPERATIONS), self._edits, replace=False, p=weights / weights.sum()):
                asked = instruction(rng, OPERATIONS[index])
                targets.append(asked.operation.exact(reference, asked.strength))
                sentences.append(asked.sentence)
        return Lesson(_stacked(references), _stacked(targets), sentences)

    def __iter__(self) -> Iterator[Lesson]:
        step = self._first
        while True:
            yield self.lesson(step)
            step += 1

    def ahead(self) -> Iterator[Lesson]:
        """The batches, prepared ahead in a process of their own."""
        return iter(DataLoader(self, batch_size=None, num_workers=1, prefetch_factor=4))
