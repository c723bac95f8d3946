"""WordNet 3.0, of the Debian package wordnet-base: words, each with an explanation and examples."""

import gzip
from functools import cache
from pathlib import Path

from training.pictures import CARRIED

PARTS = ("noun", "verb", "adj", "adv")
INSTALLED = Path("/usr/share/wordnet")
_THINGS = {"05", "06", "08", "13", "18", "20"}
"""WordNet's files of animals, artifacts, body parts, food, people and plants."""


def copy(part: str) -> Path:
    """What `python -m training carry` writes, for a machine without the package."""
    return CARRIED / f"wordnet-{part}.gz"


def lines(part: str) -> list[str]:
    """The lines of one part that explain a word."""
    installed = INSTALLED / f"data.{part}"
    data = installed.read_bytes() if installed.exists() else gzip.decompress(copy(part).read_bytes())
    return [line for line in data.decode("latin-1").splitlines() if not line.startswith("  ")]


@cache
def sentences() -> tuple[str, ...]:
    """Explanations and examples: about everything."""
    collected = []
    for part in PARTS:
        for line in lines(part):
            _, bar, gloss = line.partition(" | ")
            collected += [sentence.strip(' "') for sentence in gloss.split(";") if bar and len(sentence) > 12]
    return tuple(collected)


@cache
def things() -> tuple[str, ...]:
    """Nouns for what a picture may show, of three words at most."""
    nouns = [(fields[1], fields[4]) for fields in (line.split(" ") for line in lines("noun"))]
    return tuple(noun.replace("_", " ").lower() for kind, noun in nouns if kind in _THINGS and noun.count("_") < 3)
