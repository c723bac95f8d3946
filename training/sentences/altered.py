"""Sentences with other words in them, for which nobody says what they mean: the teacher does."""

from collections.abc import Mapping, Sequence

import torch
from numpy.random import Generator

from training.sentences import teacher
from training.sentences.instructions import instruction

_NEIGHBOURS = 8
_SHARE_JOINED, _SHARE_REPLACED, _SHARE_LEFT_OUT = 0.2, 0.2, 0.08
"""Shares of sentences that go on as another one does, and of words that become a similar one or none."""


def similar_words() -> dict[str, tuple[str, ...]]:
    """The eight words most like each word, in the teacher's space: opposites are among them."""
    vocabulary = teacher.vocabulary()
    matrix = torch.stack([vocabulary.vectors[f" {word}"] for word in vocabulary.words])
    matrix = torch.nn.functional.normalize(matrix - matrix.mean(0))
    found: dict[str, tuple[str, ...]] = {}
    for start in range(0, len(matrix), 1000):
        nearest = (matrix[start : start + 1000] @ matrix.T).topk(_NEIGHBOURS + 1).indices[:, 1:].tolist()
        for word, places in zip(vocabulary.words[start : start + 1000], nearest, strict=True):
            found[word] = tuple(vocabulary.words[place] for place in places)
    return found


def altered(rng: Generator, similar: Mapping[str, Sequence[str]]) -> str:
    """A sentence that is like those that ask for an edit, with some words replaced by similar ones or left out."""
    words = instruction(rng)[0].split(" ")
    if rng.random() < _SHARE_JOINED:
        other = instruction(rng)[0].split(" ")
        words = words[: rng.integers(len(words)) + 1] + other[rng.integers(len(other)) :]
    return " ".join(_replaced(rng, words, similar)) or words[0]


def _replaced(rng: Generator, words: Sequence[str], similar: Mapping[str, Sequence[str]]) -> list[str]:
    changed = []
    for word in words:
        chance, others = rng.random(), similar.get(word.lower().strip(".,!?"))
        if chance < _SHARE_REPLACED and others:
            changed.append(others[rng.integers(len(others))])
        elif chance < 1 - _SHARE_LEFT_OUT:
            changed.append(word)
    return changed
