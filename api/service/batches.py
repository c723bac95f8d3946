"""Batches: accepted at once, to be submitted line by line as there is room; `batch_runner` does that."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Literal, Protocol

from pydantic import TypeAdapter

from api.service import checks
from storage.contracts import access, batches, edits, errors, submissions
from storage.ledger import batches as ledger_batches
from storage.ledger import call, expiry

log = logging.getLogger(__name__)

ORPHANS_S = 3600.0
"""After which the objects of a batch are deleted that was never recorded."""

_LINE = TypeAdapter(batches.Line)


class ObjectStore(Protocol):
    """What batches need of it."""

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store. Raises `errors.ObjectsUnavailableError`."""
        ...

    async def get(self, key: str) -> bytes:
        """Fetch. Raises `errors.ObjectsUnavailableError` and `errors.NotFoundError`."""
        ...

    async def delete_prefix(self, prefix: str) -> int:
        """Remove. Raises `errors.ObjectsUnavailableError`."""
        ...

    def signed_url(self, key: str, expires_at: datetime) -> str:
        """A URL that downloads an object."""
        ...


class Batches:
    """Batches of a tenant."""

    def __init__(self, ledger: call.AsyncLedger, objects: ObjectStore, refuses: Callable[[str], bool]) -> None:
        """`refuses` says of a URL whether it may not be called."""
        self._ledger = ledger
        self._objects = objects
        self._refuses = refuses

    async def create(
        self,
        lines: Sequence[batches.Line],
        caller: access.Caller,
        *,
        name: str,
        webhook: submissions.Webhook | None,
        idempotency_key: str | None,
        fingerprint: str,
    ) -> batches.Batch:
        """Accept a batch of which at least one line is an edit.

        Raises `errors.IdempotencyConflictError`, `errors.TooManyActiveError`, `errors.StoreUnavailableError` and
        `errors.ObjectsUnavailableError`, and `errors.InvalidInputError` for a webhook that may not be called.
        """
        if webhook is not None:
            checks.called(webhook.url, checks.NATIVE.webhook, self._refuses)
        id_, tenant = str(uuid.uuid4()), caller.tenant
        folder = batches.folder_of(tenant, id_)
        # Should this process die before the ledger knows it, somebody deletes what was stored.
        kept, known_at = [], float("-inf")
        for number, line in enumerate(lines):
            # An object store may take its time for all of them.
            if time.monotonic() - known_at > ORPHANS_S / 2:
                await self._ledger.run(expiry.keep([folder], seconds=ORPHANS_S))
                known_at = time.monotonic()
            kept.append(await self._with_kept_pictures(line, folder, number))
        await self._objects.put(f"{folder}lines.jsonl", jsonl(kept), "application/jsonl")
        created = ledger_batches.create(
            id_=id_,
            tenant=tenant,
            caller=caller.name,
            name=name,
            total=len(lines),
            refused=sum(line.fault is not None for line in lines),
            webhook=webhook,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
        )
        try:
            accepted = await self._ledger.run(created)
        except errors.StoreUnavailableError:
            raise  # it may have been accepted
        except errors.DarkroomError:
            await self._objects.delete_prefix(folder)
            raise
        if accepted != id_:
            await self._objects.delete_prefix(folder)
        log.info("%s: a batch of %d lines", accepted, len(lines))
        return await self.read(accepted, tenant)

    async def read(self, id_: str, tenant: str) -> batches.Batch:
        """One batch. Raises `errors.NotFoundError` and `errors.StoreUnavailableError`."""
        return await self._ledger.run(ledger_batches.read(id_, tenant))

    async def lines(self, batch: batches.Batch) -> list[batches.Line]:
        """Its lines. Raises `errors.NotFoundError` and `errors.ObjectsUnavailableError`."""
        return await lines_of(self._objects, batch)

    async def list(self, tenant: str, *, limit: int) -> tuple[batches.Batch, ...]:
        """The latest, newest first. Raises `errors.StoreUnavailableError`."""
        return await self._ledger.run(ledger_batches.list_(tenant, limit=limit))

    async def change(self, id_: str, tenant: str, what: Literal["cancel", "retry"]) -> bool:
        """Cancel what is left, or retry what failed; whether there was anything. Raises as `read`."""
        return await self._ledger.run(ledger_batches.change(id_, tenant, what))

    async def erase(self, tenant: str) -> int:
        """Forget all of a tenant's batches, but not their generations; how many objects were deleted. Raises as `create`."""
        for batch in await self.list(tenant, limit=batches.MAX_LINES):
            await self._ledger.run(ledger_batches.forget(batch))
        return await self._objects.delete_prefix(f"batches/{tenant}/")

    async def _with_kept_pictures(self, line: batches.Line, folder: str, number: int) -> batches.Line:
        if line.submission is None:
            return line
        stored: list[edits.Picture] = []
        for place, picture in enumerate(line.submission.edit.pictures):
            if isinstance(picture, edits.SentPicture):
                key = f"{folder}pictures/{number}-{place}.{edits.extension_of(picture.content_type) or 'bin'}"
                await self._objects.put(key, picture.data, picture.content_type)
                stored.append(edits.KeptPicture(key=key))
            else:
                stored.append(picture)
        places = iter(stored)
        edit = line.submission.edit.with_pictures(lambda _: next(places))
        return line.model_copy(update={"submission": line.submission.model_copy(update={"edit": edit})})


async def lines_of(objects: ObjectStore, batch: batches.Batch) -> list[batches.Line]:
    """A batch's lines. Raises `errors.NotFoundError` and `errors.ObjectsUnavailableError`."""
    body = await objects.get(batch.lines_key)
    return await asyncio.to_thread(lambda: [_LINE.validate_json(line) for line in body.splitlines()])


def jsonl(lines: Iterable[batches.Line]) -> bytes:
    """Lines as an object has them."""
    return b"".join(_LINE.dump_json(line, exclude_defaults=True) + b"\n" for line in lines)
