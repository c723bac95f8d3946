"""What housekeeping does: take back what silent workers held, end rests, move what waits, count what is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from storage.ledger.call import MAX_TICKETS, Call, table_of

SWEEP = 100
"""Generations one sweep's script takes at the most, so that it never blocks Redis for long."""


def recover(*, lease_ms: int, stall_ms: int, max_attempts: int, max_losses: int) -> Call[dict[str, str]]:
    """Take back what silent workers held; which ids became `queued` or `failed`."""
    return Call(script="recover", arguments=(lease_ms, stall_ms, max_attempts, max_losses, SWEEP), decode=table_of)


def wake() -> Call[dict[str, str]]:
    """End rests and waits that are over; which ids became `pending` or `expired`."""
    return Call(script="wake", arguments=(SWEEP,), decode=table_of)


def parked() -> Call[list[dict[str, str]]]:
    """Records of parked generations of all tenants, newest first."""

    def decode(reply: list[list[str]]) -> list[dict[str, str]]:
        return [table_of(record) for record in reply]

    return Call(script="parked", arguments=(1000,), decode=decode)


def unpark(id_: str, action: Literal["retry", "drop"], *, queue_ttl_s: float) -> Call[bool]:
    """Try a parked generation anew, or take it off the list. False: it is not parked."""
    arguments = (id_, action, int(queue_ttl_s * 1000))
    return Call(script="unpark", arguments=arguments, decode=lambda reply: reply == "done")


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """What waits on one queue."""

    queue: str
    pending: int
    tickets: int

    @property
    def missing_tickets(self) -> int:
        """How many tickets would have to be sent for every waiting generation to be noticed."""
        return max(0, min(self.pending, MAX_TICKETS) - self.tickets)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How things stand in all: `counts` by name, and by queue how much waits and for how many seconds the first has."""

    counts: Mapping[str, int]
    queued: Mapping[str, int]
    waited_s: Mapping[str, float]


TENANTS_LOOKED_AT = 200
"""Of each queue: those whose turn is next."""


def standing() -> Call[Standing]:
    """How things stand, for monitoring."""

    def decode(reply: list[Any]) -> Standing:
        counts, queues = reply
        rows = list(zip(queues[::3], queues[1::3], queues[2::3], strict=True))
        return Standing(
            counts={name: int(count) for name, count in zip(counts[::2], counts[1::2], strict=True)},
            queued={queue: queued for queue, queued, _ in rows},
            waited_s={queue: waited_ms / 1000 for queue, _, waited_ms in rows},
        )

    return Call(script="gauges", arguments=(TENANTS_LOOKED_AT,), decode=decode)


def backlog() -> Call[tuple[Backlog, ...]]:
    """What waits, queue by queue."""

    def decode(reply: list[Any]) -> tuple[Backlog, ...]:
        rows = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        return tuple(Backlog(queue=queue, pending=pending, tickets=tickets) for queue, pending, tickets in rows)

    return Call(script="backlog", arguments=(), decode=decode)


def reroute(lately: Sequence[str], served: Sequence[str]) -> Call[dict[str, str]]:
    """Move what waits where nobody has served `lately` to another queue it may wait on that is served; id to its new queue."""
    return Call(script="reroute", arguments=(SWEEP, len(lately), *lately, *served), decode=table_of)
