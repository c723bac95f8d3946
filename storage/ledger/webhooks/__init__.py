"""Webhooks that are due, and what came of calling them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.contracts import generations, submissions
from storage.ledger.call import Call, table_of


@dataclass(frozen=True, kw_only=True)
class DueWebhook:
    """A webhook to be called now, after `tries` that came to nothing; nobody else gets it before `held_until`."""

    moment: submissions.Moment
    tries: int
    held_until: str
    record: Mapping[str, str]

    @property
    def id(self) -> str:
        """The generation's."""
        return self.record["id"]

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.record["tenant"]

    @property
    def generation(self) -> generations.Generation:
        """Raises `ValueError` for a record that this version cannot read."""
        return generations.Generation.from_record(self.record, None)


def due(
    *, held_ms: int, limit: int = 16, most_of_a_tenant: int = 16, calling: Sequence[str] = ()
) -> Call[tuple[DueWebhook, ...]]:
    """Webhooks that are due, `limit` at the most; nobody else gets them for a while.

    `calling` names the tenant of each that the caller is calling already: with those, no tenant has more than so many.
    """

    def decode(reply: list[Any]) -> tuple[DueWebhook, ...]:
        return tuple(
            DueWebhook(moment=moment, tries=tries, held_until=held_until, record=table_of(flat))
            for moment, tries, held_until, flat in reply
        )

    return Call(script="due", arguments=(held_ms, limit, most_of_a_tenant, *calling), decode=decode)


def called(webhook: DueWebhook, *, again_ms: int | None, outcome: str) -> Call[int]:
    """A webhook was called; None: it is done with. 0: it became due anew meanwhile, and stays so."""
    arguments = (webhook.id, webhook.moment, -1 if again_ms is None else again_ms, outcome, webhook.held_until)
    return Call(script="called", arguments=arguments, decode=int)
