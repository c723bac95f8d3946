"""What is asked for in a roundabout way: a lack, a limit, what is not enough or not wanted, another time of day."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.operations import NOTHING, OPERATIONS, Edit, Operation
from training.sentences.chance import drawn
from training.sentences.short import Form, is_short

_LISTS = tomllib.loads((Path(__file__).parent / "indirect.toml").read_text())
_BY_NAME = {operation.name: operation for operation in OPERATIONS}
_KINDS = {"lack": 0.32, "limit": 0.23, "not enough": 0.15, "forbidden": 0.18, "time": 0.12}

Short = Callable[[Operation, Form], str]


def indirect(
    rng: np.random.Generator, operation: Callable[[], Operation], ordered: Callable[[Operation], str], short: Short
) -> tuple[str, Edit]:
    """Such a sentence and what it means.

    `operation` draws one, `ordered` and `short` say how it is asked for, at length and in few words.
    """
    match str(rng.choice(list(_KINDS), p=list(_KINDS.values()))):
        case "lack":
            name = drawn(rng, list(_LISTS["lack"]))
            sentence = drawn(rng, _LISTS["lacking"]).replace("{n}", drawn(rng, _LISTS["lack"][name]))
            return sentence + drawn(rng, _LISTS["lacking_ends"]), Edit((_BY_NAME[name],))
        case "limit":
            asked = _drawn_until(operation, lambda one: one.graded)
            sentence = ordered(asked) if rng.random() < 0.5 or not is_short(asked) else short(asked, "verb")
            return sentence.rstrip(".!?") + drawn(rng, _LISTS["limits"]), Edit((asked,), 0.5)
        case "not enough":
            name = drawn(rng, list(_LISTS["enough"]))
            return drawn(rng, _LISTS["not_enough"]).replace("{state}", drawn(rng, _LISTS["enough"][name])), Edit(
                (_BY_NAME[name],)
            )
        case "forbidden":
            unwanted, sentence = _drawn_until(operation, is_short), drawn(rng, _LISTS["forbidden"])
            forms: tuple[Form, ...] = ("state", "noun", "verb")
            for form in forms:
                sentence = sentence.replace(f"{{{form}}}", short(unwanted, form))
            return sentence, Edit((NOTHING,))
        case _:
            is_night = rng.random() < 0.5
            before, after = ("days", "nights") if is_night else ("nights", "days")
            sentence = drawn(rng, _LISTS["times"]).replace("{x}", drawn(rng, _LISTS[before]))
            return sentence.replace("{y}", drawn(rng, _LISTS[after])), Edit(
                (_BY_NAME["darker" if is_night else "brighter"],)
            )


def _drawn_until(operation: Callable[[], Operation], fits: Callable[[Operation], bool]) -> Operation:
    while not fits(found := operation()):
        pass
    return found
