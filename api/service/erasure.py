"""Erasing: what is remembered of a generation, or of a tenant's all, in the ledger and in the object store."""

from dataclasses import dataclass

from api.service.archive import Archive
from api.service.batches import Batches
from api.service.objects import AsyncObjects
from storage.contracts import errors
from storage.ledger import call, erasure

PAGE = 100


@dataclass(kw_only=True)
class Erased:
    """What was deleted: generations (records with prompt and parameters), events, objects (pictures in and out)."""

    generations: int = 0
    events: int = 0
    objects: int = 0


class Eraser:
    """Erases. What was used (counts and costs by month) stays, for it is nobody's content."""

    def __init__(self, ledger: call.AsyncLedger, archive: Archive, batches: Batches, objects: AsyncObjects) -> None:
        self._ledger = ledger
        self._batches = batches
        self._archive = archive
        self._objects = objects

    async def one(self, id_: str, tenant: str) -> Erased:
        """Erase a generation, which is cancelled should it be unfinished.

        Raises `errors.NotFoundError`, `errors.StoreUnavailableError` and `errors.ObjectsUnavailableError`; after the last, the
        housekeeping worker deletes what is left.
        """
        erased = Erased()
        await self._erase(id_, tenant, erased)
        if not erased.generations:
            raise errors.NotFoundError
        return erased

    async def everything(self, tenant: str) -> Erased:
        """Erase all that a tenant ever asked for and was given. Raises as `one`; asking again goes on where it ended."""
        erased, below = Erased(), None
        # First, since they submit more.
        erased.objects += await self._batches.erase(tenant)
        while True:
            listing = erasure.ids_of(tenant, below=below, limit=PAGE)
            ids, below = await self._ledger.run(listing)
            for id_ in ids:
                await self._erase(id_, tenant, erased, with_events=False)
            if below is None:
                break
        erased.events += await self._ledger.run(erasure.erase_events(tenant))
        # Those of generations went with them; what was accepted meanwhile keeps its own.
        erased.objects += await self._objects.delete_prefix(f"files/{tenant}/")
        return erased

    async def _erase(self, id_: str, tenant: str, erased: Erased, *, with_events: bool = True) -> None:
        erase = erasure.erase(id_, tenant, with_events=with_events)
        gone = await self._ledger.run(erase)
        if gone is None and await self._archive.restore(id_, tenant, is_going=True):
            gone = await self._ledger.run(erase)
        if gone is None:
            return
        await self._objects.delete(gone.record)
        erased.generations += 1
        erased.events += gone.events
        for prefix in gone.prefixes:
            erased.objects += await self._objects.delete_prefix(prefix)
