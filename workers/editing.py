"""The use case: claim, prepare, edit, finish.

Each phase runs where the conveyor puts it. Nothing here knows how tickets travel or what a GPU is.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from PIL import Image

from storage.contracts import catalog, edits, errors, generations
from storage.ledger import calls
from workers import pictures
from workers.leases import Keeper, Lease
from workers.pipelines import base

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_S = 60.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
"""A finished picture is kept, and its upload tried again with growing pauses, for about a minute."""


class ObjectStore(Protocol):
    """Where inputs are and results go."""

    def get(self, key: str) -> bytes:
        """Fetch. Raises `errors.ObjectsUnavailableError`."""
        ...

    def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store. Raises `errors.ObjectsUnavailableError`."""
        ...

    def delete_prefix(self, prefix: str) -> int:
        """Remove. Raises `errors.ObjectsUnavailableError`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A claim whose inputs are fetched, decoded and fitted."""

    lease: Lease
    job: base.Job
    fit: str


@dataclass(frozen=True, kw_only=True)
class Edited:
    """A claim whose picture is made."""

    prepared: Prepared
    picture: Image.Image
    execution_ms: int


class Editing:
    """What a GPU worker does with one generation."""

    def __init__(
        self,
        *,
        worker: str,
        queues: Sequence[str],
        known: catalog.Catalog,
        ledger: calls.Ledger,
        objects: ObjectStore,
        fetch: Callable[[str], bytes],
        pipeline: Callable[[str], base.Pipeline],
        keeper: Keeper,
        max_attempts: int,
        rest_s: float,
    ) -> None:
        self._worker = worker
        self._queues = list(queues)
        self._catalog = known
        self._ledger = ledger
        self._objects = objects
        self._fetch = fetch
        self._pipeline = pipeline
        self._keeper = keeper
        self._max_attempts = max_attempts
        self._rest_s = rest_s

    def claim(self) -> Lease | None:
        """Take the next generation; None when nothing waits. Raises `errors.StoreUnavailableError`."""
        # Another queue goes first each time, so that a busy one does not starve the rest.
        self._queues.append(self._queues.pop(0))
        claim = self._ledger.run(calls.claim(self._worker, self._keeper.lease_ms, self._queues))
        if claim is None:
            return None
        log.info("%s claimed, attempt %d", claim.id, claim.attempt)
        return self._keeper.hold(claim)

    def prepare(self, lease: Lease) -> Prepared:
        """Fetch, check, decode and fit the inputs. Raises `errors.DarkroomError`."""
        edit = lease.claim.edit
        model = self._catalog.model(edit.model)
        decoded = [pictures.decode(self._bytes(reference), "input_image") for reference in edit.references]
        references = [pictures.fitted(one.image, model.nearest_size(one.original.ratio)) for one in decoded]
        first = decoded[0].original
        size = model.nearest_size(edit.aspect_ratio or first.ratio)
        lease.check()
        job = base.Job(
            prompt=edit.prompt,
            references=references,
            width=size.width,
            height=size.height,
            steps=edit.steps,
            guidance=edit.guidance,
            seed=edit.seed,
        )
        read = references[0]
        fit = f"input {first.width}x{first.height} scaled to {read.width}x{read.height}"
        return Prepared(lease=lease, job=job, fit="input as it is" if read.size == (first.width, first.height) else fit)

    def edit(self, prepared: Prepared, on_step: base.OnStep) -> Edited:
        """Run the pipeline. Raises `errors.DarkroomError`."""
        lease = prepared.lease

        def after_step(step: int) -> None:
            lease.advance(step)
            on_step(step)

        lease.begin_editing()
        pipeline = self._pipeline(lease.claim.edit.model)
        began = time.monotonic()
        picture = pipeline.edit(prepared.job, after_step)
        execution_ms = round((time.monotonic() - began) * 1000)
        lease.end_editing()
        return Edited(prepared=prepared, picture=picture, execution_ms=execution_ms)

    def finish(self, edited: Edited) -> bool:
        """Encode, upload, publish. False: the claim was lost. Raises `errors.DarkroomError`."""
        prepared = edited.prepared
        claim = prepared.lease.claim
        edit = claim.edit
        prepared.lease.check()
        body = pictures.encode(edited.picture, edit.output_format, edit.quality)
        content_type = edits.CONTENT_TYPES[edit.output_format]
        self._patiently(prepared.lease, lambda: self._objects.put(claim.result_key, body, content_type))
        result = generations.Result(
            key=claim.result_key,
            content_type=content_type,
            width=edited.picture.width,
            height=edited.picture.height,
            size_bytes=len(body),
            fit=prepared.fit,
            execution_ms=edited.execution_ms,
            weights=self._catalog.model(edit.model).weights.name,
        )
        if self._patiently(prepared.lease, lambda: self._ledger.run(calls.finish(claim, result))):
            log.info("%s succeeded", claim.id)
            return True
        log.info("%s was taken away before its result could be published", claim.id)
        self._objects.delete_prefix(claim.result_key)
        return False

    def give_up(self, lease: Lease, error: errors.DarkroomError) -> None:
        """Record why an attempt ended; a transient reason queues it again while attempts are left."""
        claim = lease.claim
        if isinstance(error, errors.CancelledError):
            log.info("%s stopped: %s", claim.id, error.code)
            return
        rest_s = self._rest(claim.attempt) if isinstance(error, errors.TransientError) else None
        try:
            state = self._ledger.run(calls.fail(claim, error, rest_s=rest_s, max_attempts=self._max_attempts))
            log.info("%s %s: %s", claim.id, state, error.code)
        except errors.StoreUnavailableError:
            log.warning("%s: could not be recorded as failed; its lease will run out", claim.id)

    def _rest(self, attempt: int) -> float:
        """Seconds before the next attempt: doubled each time, and jittered so that what failed together returns apart."""
        return self._rest_s * 2.0 ** (attempt - 1) * random.uniform(0.5, 1)  # noqa: S311  (jitter)

    def _patiently(self, lease: Lease, action: Callable[[], T]) -> T:
        """Repeat what fails for a passing reason: the GPU's work is done, and a store's hiccup should not cost it."""
        deadline = time.monotonic() + PATIENCE_S
        pause = FIRST_PAUSE_S
        while True:
            try:
                return action()
            except errors.TransientError as exc:
                if time.monotonic() + pause > deadline:
                    raise
                log.warning("%s: %s; trying again", lease.claim.id, exc)
            time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  (jitter)
            pause = min(pause * 2, LONGEST_PAUSE_S)
            lease.check()

    def _bytes(self, reference: edits.StoredInput | edits.RemoteInput) -> bytes:
        if isinstance(reference, edits.StoredInput):
            return self._objects.get(reference.key)
        return self._fetch(reference.url)
