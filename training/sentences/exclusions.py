"""Requests with what is not to be done beside them: "darker, but no vignette", "the contrast is fine, just make it warmer"."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.operations import Operation
from training.sentences.chance import drawn
from training.sentences.short import Form, is_short

_LISTS = tomllib.loads((Path(__file__).parent / "exclusions.toml").read_text())
QUALITIES: dict[str, list[str]] = _LISTS["qualities"]
CHANGES: dict[str, list[str]] = _LISTS["changes"]
"""The qualities that an operation changes, by the table of its phrasings: nobody says that they are to stay."""
_FORMS: tuple[Form, ...] = ("state", "noun", "verb")


def excluding(
    rng: np.random.Generator,
    asked: Operation,
    request: str,
    operation: Callable[[], Operation],
    short: Callable[[Operation, Form], str],
) -> str:
    """The `request` for what is `asked`, with another operation ruled out or qualities that are to stay.

    `operation` draws one, `short` says it in few words.
    """
    other = operation()
    while other is asked or not is_short(other):
        other = operation()
    changed = CHANGES.get(asked.phrased_as, ())
    staying = [name for name in QUALITIES if name not in changed]
    first, second = rng.choice(staying, 2, replace=False)
    sentence = drawn(rng, _LISTS["sentences"])
    for form in _FORMS:
        sentence = sentence.replace(f"{{{form}}}", short(other, form))
    for name, quality in (("q", first), ("p", second)):
        sentence = sentence.replace(f"{{{name}}}", drawn(rng, QUALITIES[quality]))
    return sentence.replace("{r}", request.rstrip(".!?"))
