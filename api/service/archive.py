"""Generations whose records lie in the object store: read there, and brought back to the ledger when they are to be changed."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeVar

from storage.contracts import errors, generations
from storage.ledger import archive, call, records
from storage.ledger.records import lists

T = TypeVar("T")

log = logging.getLogger(__name__)


class Records(Protocol):
    """Where they lie."""

    async def find(self, key: str) -> bytes | None:
        """An object, should it be there. Raises `errors.ObjectsUnavailableError`."""
        ...


class Archive:
    """What is over and no longer in Redis, of all tenants."""

    def __init__(self, ledger: call.AsyncLedger, objects: Records, *, max_bytes: int | None) -> None:
        """`max_bytes` of records a tenant may have in Redis; nothing is brought back beyond."""
        self._ledger = ledger
        self._objects = objects
        self._max_bytes = max_bytes

    async def find(self, id_: str, tenant: str) -> archive.Archived | None:
        """An archived generation. Raises `errors.ObjectsUnavailableError` and `errors.StoreUnavailableError`."""
        generation = await self._read(id_, tenant)
        if generation is None or generation.tenant != tenant:
            return None
        return generation if await self._ledger.run(archive.is_archived(generation)) else None

    async def among(
        self, ids: Sequence[str], tenant: str, *, matching: Mapping[str, str], words: str
    ) -> dict[str, generations.Generation]:
        """Those of a page's archived generations that are as asked for. Raises `errors.ObjectsUnavailableError`."""
        archived = {}
        for id_, one in zip(ids, await asyncio.gather(*(self._read(id_, tenant) for id_ in ids)), strict=True):
            try:
                if one is not None and lists.matches(one.record, matching=matching, words=words):
                    archived[id_] = generations.Generation.from_record(one.record, None)
            except (ValueError, KeyError) as exc:
                log.warning("%s is left out of a list, its record cannot be read: %s", id_, type(exc).__name__)
        return archived

    async def restore(self, id_: str, tenant: str, *, is_going: bool = False) -> bool:
        """Bring a generation and those of its request back to the ledger; whether any is there now.

        With `is_going` however much is there. Raises `errors.ObjectsUnavailableError`, `errors.StoreUnavailableError` and
        `errors.TooManyActiveError`.
        """
        first = await self._read(id_, tenant)
        if first is None:
            return False
        others = [await self._read(other, tenant) for other in first.siblings]
        request = [first, *(one for one in others if one is not None)]
        return bool(await self._ledger.run(archive.restore(request, max_bytes=None if is_going else self._max_bytes)))

    async def change(self, change: call.Call[T], id_: str, tenant: str) -> T:
        """Run a call that raises `errors.NotFoundError` for what is not in the ledger, on what is archived too."""
        try:
            return await self._ledger.run(change)
        except errors.NotFoundError:
            await self.restore(id_, tenant)
            return await self._ledger.run(change)

    async def cancel(
        self, id_: str, tenant: str, *, only_queued: bool = False
    ) -> Literal["cancelled", "terminal", "processing"]:
        """As `records.cancel`; what is archived is terminal. Raises `errors.NotFoundError` for what is unknown."""
        cancel = records.cancel(id_, tenant, only_queued=only_queued)
        outcome = await self._ledger.run(cancel)
        if outcome != "missing":
            return outcome
        if await self.find(id_, tenant) is not None:
            return "terminal"
        # It may have been brought back since.
        outcome = await self._ledger.run(cancel)
        if outcome == "missing":
            raise errors.NotFoundError
        return outcome

    async def _read(self, id_: str, tenant: str) -> archive.Archived | None:
        key = archive.key_of(tenant, id_)
        body = None if key is None else await self._objects.find(key)
        return None if body is None else archive.Archived.read(body)
