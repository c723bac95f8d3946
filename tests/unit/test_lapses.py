"""When a list of what is to be deleted is looked at."""

import pytest

from storage.ledger.archive.lapses import Lapse, next_due_ms

MINUTE, DAY = 60_000, 86_400_000


def _lapse(due_ms: int, *, erase: bool = False) -> Lapse:
    return Lapse(
        tenant="a", id="b", sequence="1-1", until_ms=0, due_ms=due_ms, prefixes=("p/",), is_end=True, erase=erase
    )


@pytest.mark.parametrize(
    ("due", "agreed", "looked_at"),
    [
        ([8 * DAY, 8 * DAY + 10 * MINUTE], [], 8 * DAY + 10 * MINUTE),
        ([8 * DAY, 15 * DAY], [], 8 * DAY),
        ([15 * DAY, 8 * DAY + 10 * MINUTE, 8 * DAY], [], 8 * DAY + 10 * MINUTE),
        ([8 * DAY, 8 * DAY + 10 * MINUTE], [8 * DAY + 5 * MINUTE], 8 * DAY + 5 * MINUTE),
        ([8 * DAY], [3 * DAY], 3 * DAY),
        ([3 * DAY], [8 * DAY], 3 * DAY),
    ],
)
def test_a_list_is_looked_at_when_its_first_hour_is_due(due: list[int], agreed: list[int], looked_at: int) -> None:
    assert next_due_ms([*map(_lapse, due), *(_lapse(one, erase=True) for one in agreed)]) == looked_at
