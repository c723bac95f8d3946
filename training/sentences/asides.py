"""What people say beside what they ask for: what a picture shows, what it is for. It changes nothing."""

import tomllib
from pathlib import Path

import numpy as np

from training.sentences.chance import drawn

_LISTS: dict[str, list[str]] = tomllib.loads((Path(__file__).parent / "asides.toml").read_text())
_SHARE_BEFORE, _SHARE_COLOURED = 0.4, 0.4


def _filled(rng: np.random.Generator, name: str) -> str:
    colour, another = (drawn(rng, _LISTS["colours"]) for _ in range(2))
    return drawn(rng, _LISTS[name]).format(
        n=drawn(rng, _LISTS["things"]),
        m=drawn(rng, _LISTS["things"]),
        d=drawn(rng, _LISTS["owners"]),
        c=f"{colour} " if rng.random() < _SHARE_COLOURED else "",
        k=another,
    )


def with_an_aside(rng: np.random.Generator, sentence: str) -> str:
    """A request with one before it or after it."""
    if rng.random() < _SHARE_BEFORE:
        return _filled(rng, "before") + sentence
    return sentence.rstrip(".!?") + drawn(rng, _LISTS["joints"]) + _filled(rng, "after")


def alone(rng: np.random.Generator) -> str:
    """Nothing but that."""
    return _filled(rng, drawn(rng, ("before", "after"))).strip(" ,:")
