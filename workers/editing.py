"""The use case: claim, prepare, edit, store, publish.

Each phase runs where the conveyor puts it. Nothing here knows how tickets travel or what a GPU is.
"""

import dataclasses
import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from PIL import Image

from storage.contracts import catalog, edits, errors, estimates, generations, samples
from storage.contracts.geometry import Geometry, Size, planned
from storage.ledger import call, claims
from workers import pictures
from workers.leases import Keeper, Lease
from workers.pipelines import base

log = logging.getLogger(__name__)

T = TypeVar("T")

MASK_TOLERANCE = 0.02
"""How far, as a logarithm, a mask's aspect ratio may be from its picture's."""

PASS_ON_S = 0.2
"""A ticket for work that is left to others is passed on after a moment: at once, it would come straight back."""

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


class Filters(Protocol):
    """Refuses what may not be asked, shown or made."""

    def check_prompt(self, prompt: str) -> None:
        """Raises `errors.ContentFilteredError`."""
        ...

    def check_picture(self, picture: Image.Image, stage: Literal["input", "output"]) -> None:
        """Raises `errors.ContentFilteredError`."""
        ...


class Signer(Protocol):
    """Signs content credentials into files."""

    def signed(self, data: bytes, content_type: str, *, generation_id: str, edited: bool, receipt: str) -> bytes:
        """The file with credentials."""
        ...


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A claim whose inputs are fetched, decoded and fitted."""

    lease: Lease
    job: base.Job
    geometry: Geometry


@dataclass(frozen=True, kw_only=True)
class Edited:
    """A claim whose picture is made."""

    prepared: Prepared
    picture: Image.Image
    execution_ms: int
    facts: base.Facts
    upsampled_prompt: str | None = None


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A claim whose result lies in the object store and is not published yet."""

    lease: Lease
    result: generations.Result
    sample: samples.Sample
    body: bytes

    @property
    def is_to_be_delivered(self) -> bool:
        """Whether it goes into its caller's own bucket first."""
        return self.lease.claim.edit.deliver is not None


class Editing:
    """What a GPU worker does with one generation."""

    def __init__(
        self,
        *,
        claimant: claims.Claimant,
        queues: Sequence[str],
        known: catalog.Catalog,
        ledger: call.Ledger,
        objects: ObjectStore,
        filters: Filters,
        signer: Signer | None = None,
        fetch: Callable[[str, str], bytes],
        deliver: Callable[[str, str, bytes, str], bool],
        pipeline: Callable[[str, base.OnLoaded], base.Pipeline],
        relieve: Callable[[str], bool] = lambda model: False,
        finish_warming: Callable[[str], None] = lambda model: None,
        warm_queues: Callable[[], Sequence[str]] = tuple,
        closed_queues: Callable[[], Sequence[str]] = tuple,
        warm_elsewhere: Callable[[], Sequence[str]] = tuple,
        pass_on: Callable[[str], None] = lambda queue: None,
        affinity_s: float = 0,
        defer_s: float = 0,
        keeper: Keeper,
        max_attempts: int,
        max_losses: int = 2,
        rest_s: float,
    ) -> None:
        self._claimant = claimant
        self._queues = list(queues)
        self._catalog = known
        self._ledger = ledger
        self._objects = objects
        self._filters = filters
        self._signer = signer
        self._fetch = fetch
        self._deliver = deliver
        self._pipeline = pipeline
        self._relieve = relieve
        self._finish_warming = finish_warming
        self._warm_queues = warm_queues
        self._closed_queues = closed_queues
        self._warm_elsewhere = warm_elsewhere
        self._pass_on = pass_on
        self._affinity_ms = int(affinity_s * 1000)
        self._defer_ms = int(defer_s * 1000)
        self._keeper = keeper
        self._max_attempts = max_attempts
        self._max_losses = max_losses
        self._rest_s = rest_s

    def claim(self, *, has_ticket: bool = True) -> Lease | None:
        """Take the next generation; None when nothing waits, or only work that is left to others for a moment.

        Raises `errors.StoreUnavailableError`.
        """
        # The queue served last goes last, so that a busy one does not starve the rest; those of loaded models before others,
        # and last those of models that are loaded elsewhere.
        loaded, closed, elsewhere = self._warm_queues(), self._closed_queues(), self._warm_elsewhere()
        deferred = {queue for queue in elsewhere if queue not in loaded}
        ordered = sorted(
            (queue for queue in self._queues if queue not in closed),
            key=lambda queue: (queue in deferred, queue not in loaded),
        )
        wanted = claims.claim(
            self._claimant,
            self._keeper.lease_ms,
            ordered,
            preferred=sum(queue in loaded for queue in ordered),
            patience_ms=self._affinity_ms,
            deferred=sum(queue in deferred for queue in ordered),
            deferral_ms=self._defer_ms,
        )
        claim = self._ledger.run(wanted)
        while isinstance(claim, claims.Unreadable):
            # It rests now, so the next is another one: what cannot be read keeps nobody waiting.
            log.error(
                "%s cannot be read by this version: %s", claim.id, self._ledger.run(claims.release_unreadable(claim))
            )
            claim = self._ledger.run(wanted)
        if isinstance(claim, claims.Deferred):
            if has_ticket:
                # It was meant for whoever has the model loaded.
                time.sleep(PASS_ON_S)
                self._pass_on(claim.queue)
            return None
        if claim is None:
            return None
        self._queues.remove(claim.queue)
        self._queues.append(claim.queue)
        log.info("%s claimed, attempt %d", claim.id, claim.attempt)
        return self._keeper.hold(claim)

    def warm(self, lease: Lease) -> None:
        """Load the model a claim needs, ahead of its input. What goes wrong is met again when it is edited.

        Raises `errors.GpuFaultError`.
        """
        edit = lease.claim.edit
        try:
            lease.check()
            if edit.filtered:
                self._filters.check_prompt(edit.prompt)
            self._pipeline(edit.model, lease.loaded)
        except errors.GpuFaultError:
            # Everything after it fails too, and the next edit, which may be another's, would be blamed for it.
            raise
        except errors.DarkroomError as exc:
            log.info("%s: its model is not loaded ahead: %s", lease.claim.id, exc.code)

    def finish_warming(self, lease: Lease) -> None:
        """Compile what the edit just made did without. Raises `errors.GpuFaultError`."""
        self._finish_warming(lease.claim.edit.model)

    def prepare(self, lease: Lease) -> Prepared:
        """Fetch, check, decode and fit the inputs. Raises `errors.DarkroomError`."""
        edit = lease.claim.edit
        model = self._catalog.model(edit.model)
        if edit.filtered:
            self._filters.check_prompt(edit.prompt)
        decoded = [pictures.decode(self._bytes(reference), "input_image") for reference in edit.references]
        images, originals = [one.image for one in decoded], [one.original for one in decoded]
        for image in images if edit.filtered else ():
            self._filters.check_picture(image, "input")
        if model.stitches and len(images) > 1:
            side_by_side = sum(original.ratio for original in originals)
            model.frame.check_reference(Size(width=max(1, round(1000 * side_by_side)), height=1000))
            images = [pictures.stitched(images)]
            originals = [Size(width=images[0].width, height=images[0].height)]
        geometry = planned(model.frame, edit.canvas, originals, decoded[0].original if decoded else None)
        sizes = geometry.references
        mask = None
        if edit.mask is not None:
            mask = self._mask(edit.mask, edit.mask_channel, originals[0], geometry)
            # What is kept must lie where it lay: picture and mask have the result's size.
            sizes = (geometry.render,)
        lease.check()
        job = base.Job(
            prompt=edit.prompt,
            negative_prompt=edit.negative_prompt,
            true_guidance=edit.true_guidance,
            references=[pictures.fitted(image, size) for image, size in zip(images, sizes, strict=True)],
            mask=mask,
            strength=edit.strength,
            width=geometry.render.width,
            height=geometry.render.height,
            steps=edit.steps,
            guidance=edit.guidance,
            seed=edit.seed,
        )
        return Prepared(lease=lease, job=job, geometry=geometry)

    def _mask(
        self, reference: edits.Input, channel: edits.MaskChannel, original: Size, geometry: Geometry
    ) -> Image.Image:
        mask = pictures.decode_mask(self._bytes(reference, "mask_image"), "mask_image", channel)
        if abs(math.log(mask.original.ratio / original.ratio)) > MASK_TOLERANCE:
            message = f"mask_image must have the shape of input_image, {original}; got {mask.original}"
            raise errors.InvalidInputError(message, field="mask_image")
        return pictures.fitted(mask.image, geometry.render)

    def edit(self, prepared: Prepared, on_step: base.OnStep) -> Edited:
        """Run the pipeline. Raises `errors.DarkroomError`."""
        lease = prepared.lease
        edit = lease.claim.edit

        def after_step(step: int) -> None:
            lease.advance(step)
            on_step(step)

        while True:
            pipeline = self._pipeline(edit.model, lease.loaded)
            lease.begin_editing()
            began = time.monotonic()
            try:
                job, upsampled = self._upsampled(pipeline, prepared)
                picture = pipeline.edit(job, after_step, lease.show if edit.previews else None)
                break
            except errors.OutOfMemoryError:
                # At once and by a plan that needs less: the same again would end the same.
                lease.pause_editing()
                if not self._relieve(edit.model):
                    raise
        execution_ms = round((time.monotonic() - began) * 1000)
        lease.end_editing()
        return Edited(
            prepared=prepared,
            picture=picture,
            execution_ms=execution_ms,
            facts=pipeline.facts,
            upsampled_prompt=upsampled,
        )

    def _upsampled(self, pipeline: base.Pipeline, prepared: Prepared) -> tuple[base.Job, str | None]:
        """The job with its prompt written anew, and that prompt, if that is asked for and changes it."""
        lease, job = prepared.lease, prepared.job
        edit = lease.claim.edit
        if not edit.upsampled:
            return job, None
        written = pipeline.upsample(job, edit.upsample_temperature, lambda: lease.advance(0))
        if written == job.prompt:
            return job, None
        if edit.filtered:
            self._filters.check_prompt(written)
        return dataclasses.replace(job, prompt=written), written

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
        body = pictures.encode(picture, edit.output_format, edit.quality, receipt.model_dump_json())
        body = self._signed(body, claim, receipt)
        content_type = edits.CONTENT_TYPES[edit.output_format]
        began = time.monotonic()
        self._patiently(prepared.lease, lambda: self._objects.put(claim.result_key, body, content_type))
        timings = generations.Timings(
            queue_ms=claim.waited_ms,
            load_ms=prepared.lease.load_ms,
            execute_ms=edited.execution_ms,
            upload_ms=round((time.monotonic() - began) * 1000),
        )
        result = generations.Result(
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

    def _cost(self, prepared: Prepared, execution_ms: int) -> float:
        model = self._catalog.model(prepared.lease.claim.edit.model)
        gpu = self._catalog.gpu_types[self._claimant.gpu_type]
        # What is scaled up afterwards costs nothing.
        pixels = prepared.geometry.render.pixels
        cost = estimates.price_usd(model, gpu, pixels=pixels, seconds=execution_ms / 1000)
        return round(cost, 6)

    def _target(self, claim: generations.Claim) -> samples.Target:
        return samples.Target(model=claim.edit.model, gpu_type=self._claimant.gpu_type, region=self._claimant.region)

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

    def publish(self, stored: Stored) -> bool:
        """Deliver, if that is asked for, and publish. False: the claim was lost. Raises `errors.DarkroomError`."""
        claim, result = stored.lease.claim, stored.result
        target = self._target(claim)
        if claim.edit.deliver is not None:
            delivered = self._deliver(claim.tenant, claim.edit.deliver.put_url, stored.body, result.content_type)
            result = result.model_copy(update={"delivered": delivered})
        if self._patiently(stored.lease, lambda: self._ledger.run(claims.finish(claim, result, target, stored.sample))):
            log.info("%s succeeded", claim.id)
            return True
        log.info("%s was taken away before its result could be published", claim.id)
        self._objects.delete_prefix(claim.result_key)
        return False

    def _signed(self, body: bytes, claim: generations.Claim, receipt: generations.MadeWith) -> bytes:
        if self._signer is None:
            return body
        return self._signer.signed(
            body,
            edits.CONTENT_TYPES[claim.edit.output_format],
            generation_id=claim.id,
            edited=bool(claim.edit.references),
            receipt=receipt.model_dump_json(),
        )

    def _receipt(self, edited: Edited) -> generations.MadeWith:
        edit, facts = edited.prepared.lease.claim.edit, edited.facts
        weights = self._catalog.model(edit.model).weights
        return generations.MadeWith(
            model=edit.model,
            weights=weights.name,
            revision=facts.revision or weights.revision,
            pipeline=facts.pipeline,
            seed=edit.seed,
            steps=edit.steps,
            guidance=edit.guidance,
            upsample_temperature=edit.upsample_temperature or None,
            rendered=str(edited.prepared.geometry.render),
            dtype=facts.dtype,
            profile=facts.profile,
            placement=facts.plan,
            gpu_type=self._claimant.gpu_type,
            gpu=facts.device,
            libraries=dict(facts.libraries),
        )

    def give_up(self, lease: Lease, error: errors.DarkroomError) -> None:
        """Record why an attempt ended; a transient reason queues it again while attempts are left."""
        claim = lease.claim
        if isinstance(error, errors.CancelledError):
            log.info("%s stopped: %s", claim.id, error.code)
            return
        rest_s = self._rest(claim.attempt) if isinstance(error, errors.TransientError) else None
        sample = None
        if error.code not in samples.NOT_THE_TARGETS_FAULT:
            sample = samples.Sample(at_ms=round(time.time() * 1000), outcome=error.code)
        fail = claims.fail(
            claim,
            error,
            rest_s=rest_s,
            max_attempts=self._max_attempts,
            target=self._target(claim),
            sample=sample,
            # After a fault of the GPU its process ends: another payload like that would tour the fleet.
            max_losses=self._max_losses if isinstance(error, errors.GpuFaultError) else None,
        )
        try:
            state = self._ledger.run(fail)
            log.info("%s %s: %s", claim.id, state, error.code)
        except errors.TransientError as exc:
            log.warning("%s: could not be recorded as failed; its lease will run out: %s", claim.id, exc)

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

    def _bytes(self, reference: edits.Input, field: str = "input_image") -> bytes:
        if isinstance(reference, edits.StoredInput):
            return self._objects.get(reference.key)
        return self._fetch(reference.url, field)


def _memory(facts: base.Facts) -> dict[str, object]:
    """What an edit took of the GPU's memory beside what its plan says; more than a twentieth beyond that is logged."""
    for phase, gb in facts.phases_gb.items():
        if gb > 1.05 * facts.planned_gb.get(phase, math.inf):
            log.warning("%s took %.2f GB and %.2f were planned (%s)", phase, gb, facts.planned_gb[phase], facts.plan)
    return {"peak_gb": facts.peak_gb, "phases_gb": dict(facts.phases_gb), "planned_gb": dict(facts.planned_gb)}
