"""After the pipeline: encode, sign, store, deliver and publish. Patient: the GPU's work is done."""

import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from storage import traces
from storage.contracts import catalog, edits, errors, estimates, generations, results, samples
from storage.ledger import call, claims
from workers import pictures
from workers.leases import Lease
from workers.pipelines import base
from workers.preparing import Filters, Prepared
from workers.running import Edited

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_S = 60.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
"""A finished picture is kept, and its upload tried again with growing pauses, for about a minute."""


class ResultStore(Protocol):
    """Where results go."""

    def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store. Raises `errors.ObjectsUnavailableError`."""
        ...

    def delete_prefix(self, prefix: str) -> int:
        """Remove. Raises `errors.ObjectsUnavailableError`."""
        ...


class Signer(Protocol):
    """Signs content credentials into files."""

    def signed(self, data: bytes, content_type: str, *, generation_id: str, edited: bool, receipt: str) -> bytes:
        """The file with credentials."""
        ...


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A claim whose result lies in the object store and is not published yet."""

    lease: Lease
    result: results.Result
    sample: samples.Sample
    body: bytes

    @property
    def is_to_be_delivered(self) -> bool:
        """Whether it goes into its caller's own bucket first."""
        return self.lease.claim.edit.deliver is not None


class Finishing:
    """Finishes edits; `deliver` puts a result into its caller's own bucket and says whether that went well."""

    def __init__(
        self,
        *,
        claimant: claims.Claimant,
        known: catalog.Catalog,
        ledger: call.Ledger,
        objects: ResultStore,
        filters: Filters,
        signer: Signer | None = None,
        deliver: Callable[[str, str, bytes, str], bool],
        finished: Callable[[str, results.Timings, samples.Sample], None] = lambda model, timings, sample: None,
    ) -> None:
        """`finished` is told of every edit that was published."""
        self._finished = finished
        self._claimant = claimant
        self._catalog = known
        self._ledger = ledger
        self._objects = objects
        self._filters = filters
        self._signer = signer
        self._deliver = deliver

    def store(self, edited: Edited) -> Stored:
        """Encode, sign and upload. Raises `errors.DarkroomError`."""
        prepared = edited.prepared
        claim = prepared.lease.claim
        edit = claim.edit
        prepared.lease.check()
        if edit.filtered:
            self._filters.check_picture(edited.picture, "output")
        picture = pictures.finished(edited.picture, prepared.geometry)
        receipt = self._receipt(edited)
        with traces.step("compress"):
            body = pictures.encode(picture, edit.output_format, edit.quality, receipt.model_dump_json())
            body = self._signed(body, claim, receipt)
        content_type = edits.CONTENT_TYPES[edit.output_format]
        began = time.monotonic()
        with traces.step("upload"):
            self._patiently(prepared.lease, lambda: self._objects.put(claim.result_key, body, content_type))
        timings = results.Timings(
            queue_ms=claim.waited_ms,
            load_ms=prepared.lease.load_ms,
            execute_ms=edited.execution_ms,
            upload_ms=round((time.monotonic() - began) * 1000),
        )
        result = results.Result(
            key=claim.result_key,
            content_type=content_type,
            width=picture.width,
            height=picture.height,
            size_bytes=len(body),
            fit=prepared.geometry.note,
            execution_ms=edited.execution_ms,
            receipt=receipt,
            cost_usd=self._cost(prepared, edited.execution_ms),
            timings=timings,
            upsampled_prompt=edited.upsampled_prompt,
        )
        sample = self._sample(prepared, samples.SUCCEEDED).model_copy(
            update={**timings.model_dump(), "placement": edited.facts.plan, **_memory(edited.facts)}
        )
        return Stored(lease=prepared.lease, result=result, sample=sample, body=body)

    def publish(self, stored: Stored) -> bool:
        """Deliver, if that is asked for, and publish. False: the claim was lost. Raises `errors.DarkroomError`."""
        claim, result = stored.lease.claim, stored.result
        target = self._claimant.target(claim.edit.model)
        # What is known to be lost is not put into a caller's bucket: another worker's picture may lie there.
        if claim.edit.deliver is not None and stored.lease.is_wanted:
            delivered = self._deliver(claim.tenant, claim.edit.deliver.put_url, stored.body, result.content_type)
            result = result.model_copy(update={"delivered": delivered})
        finish = claims.finish(claim, result, target, stored.sample)
        published = self._patiently(stored.lease, lambda: self._ledger.run(finish))
        if published:
            log.info("%s succeeded", claim.id)
            if result.timings is not None:
                self._finished(claim.edit.model, result.timings, stored.sample)
            return True
        log.info("%s was taken away before its result could be published", claim.id)
        if published is not None:
            self._objects.delete_prefix(claim.result_key)
        return False

    def _cost(self, prepared: Prepared, execution_ms: int) -> float:
        model = self._catalog.model(prepared.lease.claim.edit.model)
        gpu = self._catalog.gpu_types[self._claimant.gpu_type]
        # What is scaled up afterwards costs nothing.
        pixels = prepared.geometry.render.pixels
        cost = estimates.price_usd(model, gpu, pixels=pixels, seconds=execution_ms / 1000)
        return round(cost, 6)

    def _sample(self, prepared: Prepared, outcome: str) -> samples.Sample:
        job = prepared.job
        return samples.Sample(
            at_ms=round(time.time() * 1000),
            outcome=outcome,
            pixels=job.width * job.height,
            steps=prepared.lease.claim.edit.passes,
            references=len(job.references),
            upsampled=prepared.lease.claim.edit.upsampled,
        )

    def _signed(self, body: bytes, claim: generations.Claim, receipt: results.MadeWith) -> bytes:
        if self._signer is None:
            return body
        return self._signer.signed(
            body,
            edits.CONTENT_TYPES[claim.edit.output_format],
            generation_id=claim.id,
            edited=bool(claim.edit.references),
            receipt=receipt.model_dump_json(),
        )

    def _receipt(self, edited: Edited) -> results.MadeWith:
        edit, facts = edited.prepared.lease.claim.edit, edited.facts
        weights = self._catalog.model(edit.model).weights
        return results.MadeWith.of(
            edit,
            weights=weights.name,
            revision=facts.revision or weights.revision,
            pipeline=facts.pipeline,
            rendered=str(edited.prepared.geometry.render),
            dtype=facts.dtype,
            profile=facts.profile,
            placement=facts.plan,
            gpu_type=self._claimant.gpu_type,
            gpu=facts.device,
            libraries=dict(facts.libraries),
        )

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


def _memory(facts: base.Facts) -> dict[str, object]:
    """What an edit took of the GPU's memory beside what its plan says; more than a twentieth beyond that is logged."""
    for phase, gb in facts.phases_gb.items():
        if gb > 1.05 * facts.planned_gb.get(phase, math.inf):
            log.warning("%s took %.2f GB and %.2f were planned (%s)", phase, gb, facts.planned_gb[phase], facts.plan)
    return {"peak_gb": facts.peak_gb, "phases_gb": dict(facts.phases_gb), "planned_gb": dict(facts.planned_gb)}
