"""Two operations in one sentence, as people write them: pairs.toml."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.operations import Edit
from training.sentences.chance import drawn

PAIRS: dict[frozenset[str], list[str]] = {
    frozenset((first, second)): table["trained"]
    for first, tables in tomllib.loads((Path(__file__).parent / "pairs.toml").read_text()).items()
    for second, table in tables.items()
}
"""Sentences by the tables of both operations."""


def is_written(edit: Edit) -> bool:
    """Whether there are sentences for its two operations."""
    return frozenset(operation.phrased_as for operation in edit.operations) in PAIRS


def written(rng: np.random.Generator, edit: Edit, colours: Sequence[str | None]) -> str:
    """A sentence for an edit's two operations; `colours` are those of the operations, by one of their names."""
    sentence = drawn(rng, PAIRS[frozenset(operation.phrased_as for operation in edit.operations)])
    return sentence.replace("{colour}", next(filter(None, colours), ""))
