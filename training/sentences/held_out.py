"""Sentences that were written apart from those trained on, and are only examined: three sets, each of other people's."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from training.operations import NOTHING, OPERATIONS, Edit, Operation

SetName = Literal["first", "second", "third"]

_FOLDER = Path(__file__).parent


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / f"{name}.toml").read_text())


HELD_OUT: dict[str, list[str]] = {name: table["held_out"] for name, table in _table("held_out").items()}
"""The first set, whose tables are those of the phrasings; those of the others name the colour, too."""
_PAIRS: dict[SetName, str] = {"first": "held_out_pairs", "second": "held_out_pairs", "third": "held_out_third_pairs"}
_BY_NAME = {operation.name: operation for operation in OPERATIONS}
_BY_TABLE = _BY_NAME | {f"{one.colour} {one.phrased_as}": one for one in OPERATIONS if one.colour}


def held_out_sentences(which: SetName = "first") -> list[tuple[str, str, Operation]]:
    """Every sentence of a set: its table of phrasings, itself with a colour, and the operation it means."""
    found: list[tuple[str, str, Operation]] = []
    if which == "first":
        for name, sentences in HELD_OUT.items():
            operations = [operation for operation in OPERATIONS if operation.phrased_as == name] or [NOTHING]
            for place, sentence in enumerate(sentences):
                operation = operations[place % len(operations)]
                found.append((name, sentence.replace("{colour}", operation.colour or ""), operation))
        return found
    for name, table in _table(f"held_out_{which}").items():
        operation = _BY_TABLE.get(name, NOTHING)
        told = operation.phrased_as if name in _BY_TABLE else "unknown"
        found += [(told, sentence, operation) for sentence in table["held_out"]]
    return found


def held_out_pairs(which: SetName = "first") -> list[tuple[str, Edit]]:
    """Every sentence that asks for two operations, and what it means. The second set has those of the first."""
    pairs = _table(_PAIRS[which])["pairs"]
    return [(pair["sentence"], Edit(tuple(_BY_NAME[name] for name in pair["operations"]))) for pair in pairs]
