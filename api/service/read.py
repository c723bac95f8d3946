"""Generations and their results, as a caller may have them just now: the one place that says what can still be downloaded."""

import base64
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from api.service.accepted import Accepted
from api.service.archive import Archive
from api.service.checks import NATIVE, Names
from api.service.objects import AsyncObjects
from api.service.signing import Signatures
from storage.contracts import catalog, edits, errors, generations, results
from storage.ledger import call, records
from storage.ledger.records import lists


@dataclass(frozen=True, kw_only=True)
class ResultView:
    """A generation, and what there is to have of it.

    `result` is None until it succeeded, and stays when the picture is gone; `url` is then None. `failure` says why a terminal
    generation has no result.
    """

    generation: generations.Generation
    model: catalog.Model | None
    objects: AsyncObjects
    signatures: Signatures

    @property
    def id(self) -> str:
        """The generation's."""
        return self.generation.id

    @property
    def is_over(self) -> bool:
        """Whether its state is terminal."""
        return self.generation.status.terminal

    @property
    def result(self) -> results.Result | None:
        """What was made."""
        return self.generation.result

    @property
    def expires_at(self) -> datetime | None:
        """When its picture is deleted; None as long as there is none."""
        return self.generation.times.expires_at if self.result is not None else None

    @property
    def _kept(self) -> tuple[str, datetime] | None:
        """Key and expiry of its picture, while that can be downloaded."""
        if self.result is None or self.expires_at is None or self.expires_at <= datetime.now(UTC):
            return None
        return self.result.key, self.expires_at

    @property
    def url(self) -> str | None:
        """A URL of the object store that downloads the picture, while it is kept."""
        kept = self._kept
        return self.objects.signed_url(*kept) if kept else None

    def own_url(self, base: str) -> str | None:
        """The same below `base`, from this service itself."""
        kept = self._kept
        return self.signatures.download_url(base, *kept) if kept else None

    def steady_url(self, base: str) -> str | None:
        """`own_url`, or `url` where links of our own hold for this process alone."""
        return self.own_url(base) if self.signatures.is_shared else self.url

    def thumbnail_url(self, base: str) -> str | None:
        """A small picture of the result, from this service, while that is kept."""
        kept = self._kept
        return self.signatures.thumbnail_url(base, *kept) if kept else None

    def failure(self, names: Names) -> errors.DarkroomError | None:
        """Why it is over without a result, with its fields called by these names; None when it has one or is not over."""
        if self.generation.status is generations.Status.CANCELLED:
            return errors.CancelledError("The generation was cancelled")
        if self.result is not None or not self.is_over:
            return None
        kind = errors.BY_CODE.get(self.generation.error_code or "", errors.InternalError)
        failure = kind(names.translated(self.generation.error_message or "The generation failed"))
        field = (self.generation.error_details or {}).get("field")
        failure.field = names.translated(field) if isinstance(field, str) else None
        return failure

    @property
    def is_filtered(self) -> bool:
        """Whether a filter refused it; `generation.error_details` has the verdict."""
        return self.generation.error_code == errors.ContentFilteredError.code

    def made(self, names: Names = NATIVE) -> results.Result:
        """The result. Raises why there is none: `failure`, or `errors.InternalError`."""
        if self.result is None:
            raise self.failure(names) or errors.InternalError("The generation has no result")
        return self.result

    async def base64(self) -> str:
        """The picture's file in base64. Raises as `made`, `errors.NotFoundError` and `errors.ObjectsUnavailableError`."""
        return base64.b64encode(await self.objects.get(self.made().key)).decode()

    async def data_uri(self) -> str:
        """The same as a data URI."""
        return f"data:{self.made().content_type};base64,{await self.base64()}"

    @property
    def prompt(self) -> str:
        """What the model was told."""
        return (self.result and self.result.upsampled_prompt) or self.generation.edit.prompt

    @property
    def price_usd(self) -> float:
        """The model's price of a picture."""
        return self.model.price_per_image if self.model else 0.0

    def input_urls(self) -> tuple[list[str], str | None]:
        """URLs of the stored references and of a stored mask."""
        edit = self.generation.edit
        until = datetime.fromtimestamp(self.generation.times.created_ms // 1000, UTC) + results.RESULT_LIFETIME

        def stored(picture: edits.Picture | None) -> str | None:
            return self.objects.signed_url(picture.key, until) if isinstance(picture, edits.StoredPicture) else None

        references = [url for picture in edit.references if (url := stored(picture)) is not None]
        return references, stored(edit.mask)


RECENT_S = 60.0
"""An end this long ago was written by replicas, or these are not there: clocks may differ by most of it."""


class Reader:
    """Reads generations of a tenant."""

    def __init__(
        self,
        *,
        ledger: call.AsyncLedger,
        archive: Archive,
        known: catalog.Catalog,
        objects: AsyncObjects,
        signatures: Signatures,
        confirm: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`confirm` makes sure that what was written until now outlives the primary."""
        self._confirm = confirm
        self._ledger = ledger
        self._archive = archive
        self._known = known
        self._objects = objects
        self._signatures = signatures

    @property
    def sign(self) -> Callable[[str, datetime], str]:
        """Makes a URL that downloads an object until a time."""
        return self._objects.signed_url

    def view(self, generation: generations.Generation) -> ResultView:
        """A generation that was read."""
        return ResultView(
            generation=generation,
            model=self._known.models.get(generation.edit.model),
            objects=self._objects,
            signatures=self._signatures,
        )

    async def one(self, id_: str, tenant: str) -> ResultView:
        """One generation, archived or not.

        Raises `errors.NotFoundError`, `errors.StoreUnavailableError` and `errors.ObjectsUnavailableError`.
        """
        try:
            generation = await self._ledger.run(records.read(id_, tenant))
        except errors.NotFoundError:
            archived = await self._archive.find(id_, tenant)
            if archived is not None:
                return self.view(generations.Generation.from_record(archived.record, None))
            # It may have been brought back since.
            generation = await self._ledger.run(records.read(id_, tenant))
        await self._confirm_end_of(generation)
        return self.view(generation)

    async def _confirm_end_of(self, *read: generations.Generation) -> None:
        """Nobody is told of an end that could be lost with the primary."""
        recent_ms = (time.time() - RECENT_S) * 1000
        if self._confirm is not None and any((one.times.completed_ms or 0) > recent_ms for one in read):
            await self._confirm()

    async def request(self, id_: str, tenant: str) -> list[ResultView]:
        """A generation and those of the same request. Raises as `one`."""
        first = await self.one(id_, tenant)
        others = [one for one in first.generation.siblings if one != first.id]
        return [first, *[await self.one(other, tenant) for other in others]]

    async def accepted(self, accepted: Accepted) -> list[ResultView]:
        """The generations of a request that was just accepted; where the store does not answer now, as they were accepted."""
        try:
            return await self.request(accepted.ids[0], accepted.tenant)
        except errors.TransientError:
            return [self.view(_just_queued(accepted, number)) for number in range(len(accepted.ids))]

    async def page(
        self,
        tenant: str,
        *,
        matching: dict[str, str],
        below: str | None,
        limit: int,
        active_only: bool,
        words: str = "",
    ) -> tuple[Sequence[ResultView], str | None]:
        """Some of a tenant's generations, newest first, and where the next page begins.

        Raises `errors.StoreUnavailableError` and `errors.ObjectsUnavailableError`.
        """
        page = await self._ledger.run(
            lists.list_(tenant, matching=matching, below=below, limit=limit, active_only=active_only, words=words)
        )
        archived = await self._archive.among(
            [one for one in page.entries if isinstance(one, str)], tenant, matching=matching, words=words
        )
        await self._confirm_end_of(*page.generations)
        generations_ = [archived.get(one) if isinstance(one, str) else one for one in page.entries]
        return [self.view(one) for one in generations_ if one is not None], page.continue_below


def _just_queued(accepted: Accepted, number: int) -> generations.Generation:
    edit = accepted.submission.edit
    seeded = edit.model_copy(update={"seed": (edit.seed + number) % (edits.MAX_SEED + 1)})
    return generations.Generation(
        id=accepted.ids[number],
        tenant=accepted.tenant,
        status=generations.Status.QUEUED,
        submission=accepted.submission.model_copy(update={"edit": seeded}),
        times=generations.Timeline(created_ms=round(datetime.now(UTC).timestamp() * 1000)),
        attempts=0,
        step=0,
        result=None,
        error_code=None,
        error_message=None,
        error_details=None,
        position=None,
        siblings=accepted.ids if len(accepted.ids) > 1 else (),
        group=accepted.submission.group,
        ignored=accepted.submission.ignored,
    )
