"""What is to be deleted of what is archived, and when: told by objects, instead of an entry in Redis for each."""

import json
from collections.abc import Sequence
from typing import Literal

from storage.contracts.values import Frozen
from storage.ledger.call import Call

LISTS = "expiry/"
"""Prefix of the objects that tell what is to be deleted when."""

TOGETHER_MS = 3_600_000
"""What is to be deleted within so long is looked at once. Parked generations are moved with others that ended a week later."""


class Lapse(Frozen):
    """What a list tells of a generation: objects below these `prefixes` are to be deleted at `due_ms`.

    Only if it is archived until `until_ms` then; otherwise it was changed or erased since. `is_end`: nothing is left of it then;
    `erase`: that was agreed with its caller, and its events go with it.
    """

    tenant: str
    id: str
    sequence: str
    until_ms: int
    due_ms: int
    prefixes: tuple[str, ...]
    is_end: bool
    erase: bool = False


def next_due_ms(lapses: Sequence[Lapse]) -> int:
    """When a list is to be looked at.

    What was agreed goes on time; of the rest, those of an hour go together. Who looks then has the list tell of what is left.
    """
    first = min(one.due_ms for one in lapses)
    together = max(one.due_ms for one in lapses if one.due_ms <= first + TOGETHER_MS)
    return min([together, *(one.due_ms for one in lapses if one.erase)])


def lapses_of(body: bytes) -> list[Lapse]:
    """The content of a list. Raises `ValueError`."""
    return [Lapse.model_validate(one, extra="ignore") for one in json.loads(body)]


def lapsed(lapses: Sequence[Lapse]) -> Call[tuple[Literal["gone", "later", "due"], ...]]:
    """Whether each is still so, and is to go now: listed as expired, or with `erase` for the caller to bring back and erase."""
    told = json.dumps([one.model_dump(mode="json") for one in lapses])
    return Call(script="lapsed", arguments=(told,), decode=tuple)
