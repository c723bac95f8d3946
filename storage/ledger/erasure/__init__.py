"""Forgetting a generation, or all of a tenant's, before their time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage.ledger.call import Call, table_of


@dataclass(frozen=True, kw_only=True)
class Gone:
    """A generation that is forgotten: how many events it had, and the prefixes of objects that may be deleted now.

    `record` is where it lies should it have been archived.
    """

    events: int
    record: str
    prefixes: tuple[str, ...]


def erase(id_: str, tenant: str, *, with_events: bool = True, only_due: bool = False) -> Call[Gone | None]:
    """Forget a generation; an unfinished one is cancelled first. None: there is none, or with `only_due` not to be erased yet.

    Without its events, which are looked for among many, where those of the whole tenant go anyway.
    """

    def decode(reply: list[Any]) -> Gone | None:
        if reply[0] == "missing":
            return None
        _, events, record, *prefixes = reply
        return Gone(events=int(events), record=record, prefixes=tuple(filter(None, prefixes)))

    return Call(
        script="erase",
        arguments=(id_, tenant, "events" if with_events else "", "due" if only_due else ""),
        decode=decode,
    )


def over(limit: int) -> Call[tuple[tuple[str, str], ...]]:
    """Id and tenant of generations whose agreed time is over, `limit` at the most."""
    return Call(script="over", arguments=(limit,), decode=lambda reply: tuple((id_, tenant) for id_, tenant in reply))


def postpone(id_: str, *, by_s: float) -> Call[int]:
    """Erase a generation later."""
    return Call(script="postpone", arguments=(id_, int(by_s * 1000)), decode=int)


def ids_of(tenant: str, *, below: str | None, limit: int) -> Call[tuple[tuple[str, ...], str | None]]:
    """Ids of a tenant's generations, newest first, and what to ask for the next page with; None is the end."""

    def decode(reply: list[Any]) -> tuple[tuple[str, ...], str | None]:
        below, *records = reply
        return tuple(_id(record) for record in records), below or None

    return Call(script="list", arguments=(tenant, "history", below or "+inf", limit, ""), decode=decode)


def erase_events(tenant: str) -> Call[int]:
    """Forget a tenant's events; how many that were."""
    return Call(script="erase_events", arguments=(tenant,), decode=int)


def _id(record: Sequence[str]) -> str:
    return record[0] if len(record) == 1 else table_of(record)["id"]
