"""Pictures that come with a submission, stored where workers find them."""

import asyncio
from typing import Protocol

from api.service.reservations import ORPHANS_S
from storage.contracts import edits, errors
from storage.ledger import call, expiry


class ObjectStore(Protocol):
    """Where pictures go."""

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store. Raises `errors.ObjectsUnavailableError`."""

    async def copy(self, source: str, key: str) -> None:
        """Store again under another key. Raises `errors.ObjectsUnavailableError` and `errors.NotFoundError`."""

    async def delete_prefix(self, prefix: str) -> int:
        """Remove everything below a prefix. Raises `errors.ObjectsUnavailableError`."""


class Inputs:
    """Stores them before their submission is recorded."""

    def __init__(self, ledger: call.AsyncLedger, objects: ObjectStore) -> None:
        self._ledger = ledger
        self._objects = objects

    async def announce(self, prefix: str, *, accepted_as: expiry.Acceptance) -> bool:
        """Have what will be stored below a prefix deleted, should this process die before the ledger knows it.

        False: it was accepted before, `accepted_as` says under which names, and has its pictures, or none any more.
        """
        return await self._ledger.run(expiry.keep([prefix], seconds=ORPHANS_S, unless=accepted_as))

    async def store(self, edit: edits.Edit, prefix: str) -> edits.Edit:
        """The edit with its pictures stored. Raises `errors.ObjectsUnavailableError` and `errors.NotFoundError`."""

        async def stored(picture: edits.Picture, key: str) -> edits.Picture:
            if isinstance(picture, edits.KeptPicture):
                await self._objects.copy(picture.key, key)
            elif isinstance(picture, edits.SentPicture):
                await self._objects.put(key, picture.data, picture.content_type)
            else:
                return picture
            return edits.StoredPicture(key=key)

        keys = (*(f"{prefix}{n}" for n in range(len(edit.references))), f"{prefix}mask")
        storing = [asyncio.ensure_future(stored(*pair)) for pair in zip(edit.pictures, keys, strict=False)]
        # Side by side; when one fails, what the others stored is removed once they are over.
        await asyncio.gather(*storing, return_exceptions=True)
        places = iter([task.result() for task in storing])
        return edit.with_pictures(lambda _: next(places))

    async def discard(self, prefix: str) -> None:
        """Remove what was stored for nothing."""
        try:
            await self._objects.delete_prefix(prefix)
        except errors.ObjectsUnavailableError:
            return  # the caller learns of the first fault, not of this one


def are_to_be_stored(edit: edits.Edit) -> bool:
    """Whether an edit brings pictures that are not fetched from elsewhere."""
    return any(isinstance(one, edits.SentPicture | edits.KeptPicture) for one in edit.pictures)
