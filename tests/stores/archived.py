"""What tests of archived generations share: the API's side of the archive, housekeeping, and lists that have grown older."""

import asyncio
import json
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from api.service.archive import Archive
from api.service.batches import Batches
from api.service.erasure import Eraser
from api.service.objects import AsyncObjects
from api.service.read import Reader
from api.service.signing import Signatures
from storage import keys
from storage.contracts import catalog, generations, submissions
from storage.ledger import call
from storage.ledger.archive import lapses
from storage.objects import Objects
from tests.stores.conftest import Desk
from workers.archiving import Archiver
from workers.housekeeping import Housekeeping
from workers.metrics import HousekeepingMetrics

T = TypeVar("T")

HOOK = submissions.Webhook(url="http://example.com/hook", dialect="runpod")
NOW = 1e-9
"""Seconds after the end, the smallest: a move waits for none."""


class Async:
    """A ledger for the API's side on the desk's connection."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def run(self, call: call.Call[T]) -> T:
        return self._desk.run(call)


class Face:
    """What the API has of it."""

    def __init__(self, desk: Desk, objects: Objects, max_bytes: int | None = None) -> None:
        ledger, self.objects = Async(desk), AsyncObjects(objects)
        self.archive = Archive(ledger, self.objects, max_bytes=max_bytes)
        known = catalog.Catalog(models={}, gpu_types={})
        self.reader = Reader(
            ledger=ledger, archive=self.archive, known=known, objects=self.objects, signatures=Signatures(b"s")
        )
        self.eraser = Eraser(ledger, self.archive, Batches(ledger, self.objects, lambda url: False), self.objects)

    def read(self, id_: str, tenant: str) -> generations.Generation:
        return asyncio.run(self.reader.one(id_, tenant)).generation

    def ids(self, tenant: str, *, words: str = "", limit: int = 100, **matching: str) -> list[str]:
        found, below = [], None
        while True:
            page = self.reader.page(tenant, matching=matching, below=below, limit=limit, active_only=False, words=words)
            views, below = asyncio.run(page)
            assert len(views) <= limit
            found += [view.id for view in views]
            if below is None:
                return found


def moved(desk: Desk, objects: Objects) -> None:
    Archiver(desk.ledger, objects, after_s=NOW).move()


def finished(desk: Desk, tenant: str, **changes: object) -> str:
    id_ = desk.accept(tenant, **changes)
    desk.finish(desk.claim())
    return id_


def is_here(desk: Desk, id_: str) -> bool:
    return bool(desk.connection.exists(keys.GENERATION + id_))


def stored(objects: Objects, tenant: str) -> list[str]:
    return [one.key for kind in ("records", "results", "inputs") for one in objects.entries(f"{kind}/{tenant}/")]


def housekeeping(ledger: call.Ledger, objects: Any, archiver: Archiver) -> Housekeeping:
    return Housekeeping(
        ledger=ledger, objects=objects, archiver=archiver, send_ticket=lambda queue: None, known_queues=(), lease_s=10,
        sweep_s=1, max_attempts=3, max_losses=2, counted=HousekeepingMetrics(CollectorRegistry()),
    )  # fmt: skip


def sweep(desk: Desk, archiver: Archiver, objects: Objects) -> None:
    housekeeping(desk.ledger, objects, archiver).delete_expired()


def lists_of_expiry(desk: Desk, objects: Objects) -> dict[bool, str]:
    """The keys of the lists, by whether they tell of the end."""
    found = [str(one) for one, _ in desk.connection.zscan_iter(keys.EXPIRING) if str(one).startswith(lapses.LISTS)]
    return {lapses.lapses_of(objects.get(one))[0].is_end: one for one in found}


def grown_older(desk: Desk, objects: Objects, key: str, *ids: str) -> None:
    """As a list is when the time of these has come, or without any that of all."""
    older = [
        one.model_copy(update={"due_ms": desk.now_ms() - 1}) if one.id in ids or not ids else one
        for one in lapses.lapses_of(objects.get(key))
    ]
    told = json.dumps([one.model_dump(mode="json") for one in older])
    objects.put(key, told.encode(), "application/json")
    desk.connection.zadd(keys.EXPIRING, {key: 1})
