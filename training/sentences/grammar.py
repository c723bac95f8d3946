"""Words by what they are for, and sentences about a quality that rises or falls: grammar.toml."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.operations import Operation
from training.sentences.chance import drawn

Generator = np.random.Generator


@dataclass(frozen=True)
class _Scale:
    """A quality that one operation raises and another lowers: see grammar.toml."""

    up: str | None = None
    down: str | None = None
    nouns: Sequence[str] = ()
    higher: Sequence[str] = ()
    lower: Sequence[str] = ()
    high: Sequence[str] = ()
    low: Sequence[str] = ()


_GRAMMAR = tomllib.loads((Path(__file__).parent / "grammar.toml").read_text())
_SCALES = [_Scale(**table) for table in _GRAMMAR["scales"]]
VERBS = frozenset(_GRAMMAR["verbs"])


def listed(name: str) -> Any:
    """A list of grammar.toml."""
    return _GRAMMAR[name]


def drawn_from(rng: Generator, name: str) -> str:
    """A word of a list in grammar.toml."""
    return drawn(rng, _GRAMMAR[name])


def coloured(rng: Generator, operation: Operation) -> str | None:
    """A name of its colour, where it has one."""
    return drawn(rng, _GRAMMAR["colours"][operation.colour]) if operation.colour else None


def scaled(rng: Generator, operation: Operation) -> str | None:
    """A sentence about a quality, or none where the operation has none."""
    fitting = [(scale, operation.name == scale.up) for scale in _SCALES if operation.name in (scale.up, scale.down)]
    if not fitting:
        return None
    scale, up = drawn(rng, fitting)
    comparatives, opposites, wrong = (
        (scale.higher, scale.lower, scale.low) if up else (scale.lower, scale.higher, scale.high)
    )
    forms = ["verb", "noun"]
    forms += ["comparative", "version"] if comparatives else []
    forms += ["less", "too", "too"] if wrong else []
    forms += ["opposite"] if opposites else []
    match drawn(rng, forms):
        case "verb":
            article, of = drawn(rng, ("", "", "the ", "its ")), drawn(rng, ("", "", " of {it}", " in {it}"))
            return f"{drawn_from(rng, 'raise' if up else 'lower')} {article}{{much_of}}{drawn(rng, scale.nouns)}{of}"
        case "noun":
            article = drawn(rng, ("", "", "the "))
            return f"{article}{drawn(rng, scale.nouns)} {drawn_from(rng, 'raised' if up else 'lowered')}"
        case "comparative":
            return f"{drawn_from(rng, 'compared')} {{much}}{drawn(rng, comparatives)}"
        case "version":
            return f"{{much}}{drawn(rng, comparatives)}{drawn_from(rng, 'endings')}"
        case "less":
            return f"{drawn(rng, ('less', 'not so', 'not as', 'make {it} less'))} {drawn(rng, wrong)}"
        case "opposite":
            return f"not {drawn(rng, opposites)}, the opposite"
        case _:
            return f"{drawn_from(rng, 'too')} {drawn(rng, wrong)}{drawn_from(rng, 'repairs')}"
