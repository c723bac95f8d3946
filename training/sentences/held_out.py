"""Sentences that were written apart from those trained on, and are only examined."""

import tomllib
from pathlib import Path

from training.operations import NOTHING, OPERATIONS, Edit, Operation

_FOLDER = Path(__file__).parent
HELD_OUT: dict[str, list[str]] = {
    name: table["held_out"] for name, table in tomllib.loads((_FOLDER / "held_out.toml").read_text()).items()
}
_PAIRS = tomllib.loads((_FOLDER / "held_out_pairs.toml").read_text())["pairs"]


def held_out_sentences() -> list[tuple[str, str, Operation]]:
    """Every sentence: its table, itself with one of the colours, and the operation it means."""
    found: list[tuple[str, str, Operation]] = []
    for name, sentences in HELD_OUT.items():
        operations = [operation for operation in OPERATIONS if operation.phrased_as == name] or [NOTHING]
        for place, sentence in enumerate(sentences):
            operation = operations[place % len(operations)]
            found.append((name, sentence.replace("{colour}", operation.colour or ""), operation))
    return found


def second_sentences() -> list[tuple[str, str, Operation]]:
    """The same of the second set, whose tables name the colour."""
    operations = {operation.name: operation for operation in OPERATIONS}
    operations |= {f"{one.colour} {one.phrased_as}": one for one in OPERATIONS if one.colour}
    found: list[tuple[str, str, Operation]] = []
    for name, table in tomllib.loads((_FOLDER / "held_out_second.toml").read_text()).items():
        operation = operations.get(name, NOTHING)
        told = operation.phrased_as if name in operations else "unknown"
        found += [(told, sentence, operation) for sentence in table["held_out"]]
    return found


def held_out_pairs() -> list[tuple[str, Edit]]:
    """Every sentence that asks for two operations, and what it means."""
    by_name = {operation.name: operation for operation in OPERATIONS}
    return [(pair["sentence"], Edit(tuple(by_name[name] for name in pair["operations"]))) for pair in _PAIRS]
