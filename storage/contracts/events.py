"""Events: what happened to a generation, in the order the ledger saw it.

An event's `cursor` is its place in the log (`<milliseconds>-<n>`, a Redis stream id); cursors of all tenants share one
order, so any cursor can be resumed from.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from storage.contracts.generations import Status


class EventType(enum.StrEnum):
    """The names on the wire. Only `COMPLETED` exists in Oxen's API; its clients ignore the others."""

    QUEUED = "media_generation_queued"
    STARTED = "media_generation_started"
    PROGRESS = "media_generation_progress"
    COMPLETED = "media_generation_completed"
    CANCELLED = "media_generation_cancelled"
    BATCH_COMPLETED = "media_batch_completed"


TERMINAL = frozenset({EventType.COMPLETED, EventType.CANCELLED, EventType.BATCH_COMPLETED})

_CURSOR = re.compile(r"\d{1,15}-\d{1,19}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Event:
    """One entry of the log. `fields` holds what is particular to its type, as text. Two are equal when they are the same.

    Of a batch's, `generation_id` is the batch's id.
    """

    cursor: str
    type: EventType
    tenant: str
    generation_id: str
    model: str
    status: Status
    fields: Mapping[str, str]

    @classmethod
    def from_entry(cls, cursor: str, entry: Mapping[str, str]) -> "Event":
        """Decode a stream entry."""
        rest = dict(entry)
        return cls(
            cursor=cursor,
            type=EventType(rest.pop("type")),
            tenant=rest.pop("tenant"),
            generation_id=rest.pop("id"),
            model=rest.pop("model"),
            status=Status(rest.pop("status")),
            fields=rest,
        )


def order(cursor: str) -> tuple[int, int]:
    """A cursor as something that compares. Raises `ValueError` when it is none."""
    if not _CURSOR.fullmatch(cursor):
        raise ValueError(f"not a cursor: {cursor[:40]!r}")
    milliseconds, _, sequence = cursor.partition("-")
    return int(milliseconds), int(sequence)
