"""Operations in few words, as they stand beside another one: "warm and bright", "sepia with a white frame"."""

import tomllib
from pathlib import Path
from typing import Literal

import numpy as np

from training.operations import Edit, Operation
from training.sentences.chance import drawn

Form = Literal["state", "noun", "verb"]
"""What it makes of a picture, as a thing, and as an order."""

_TABLES = tomllib.loads((Path(__file__).parent / "short.toml").read_text())


def is_short(operation: Operation) -> bool:
    """Whether it has such words."""
    return operation.phrased_as in _TABLES["forms"]


def short(rng: np.random.Generator, operation: Operation, form: Form, colour: str | None) -> str:
    """An operation in few words; `colour` is its own, by one of its names."""
    words = drawn(rng, _TABLES["forms"][operation.phrased_as][form])
    return words.replace("{colour}", colour) if colour else words


def paired(rng: np.random.Generator, edit: Edit, colours: tuple[str | None, str | None]) -> str:
    """Two operations in few words, in either order."""
    both = list(zip(edit.operations, colours, strict=True))
    if rng.random() < 0.5:
        both.reverse()
    table = drawn(rng, _TABLES["pairs"])
    (first, its), (second, others) = both
    said = {"first": short(rng, first, table["first"], its), "second": short(rng, second, table["second"], others)}
    sentence = drawn(rng, table["joined"])
    return sentence.replace("{first}", said["first"]).replace("{second}", said["second"])
