"""On the pipeline's thread: load the model, write the prompt anew, run the pipeline, step down when memory runs out."""

import dataclasses
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from storage import garbage, traces
from storage.contracts import edits, errors
from workers.leases import Lease
from workers.pipelines import base
from workers.preparing import Filters, Prepared

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Edited:
    """A claim whose picture is made."""

    prepared: Prepared
    picture: Image.Image
    execution_ms: int
    facts: base.Facts
    upsampled_prompt: str | None = None


class Running:
    """Runs edits.

    `relieve` makes a model need less memory and says whether that was possible; `finish_warming` compiles it; `encode_here` gives
    it a text encoder when no other worker encoded a prompt.
    """

    def __init__(
        self,
        *,
        filters: Filters,
        pipeline: Callable[[str, base.OnLoaded], base.Pipeline],
        relieve: Callable[[str], bool] = lambda model: False,
        finish_warming: Callable[[str], None] = lambda model: None,
        encode_here: Callable[[str], None] = lambda model: None,
    ) -> None:
        self._filters = filters
        self._pipeline = pipeline
        self._relieve = relieve
        self._finish_warming = finish_warming
        self._encode_here = encode_here

    def warm(self, lease: Lease) -> None:
        """Load the model a claim needs, ahead of its input. What goes wrong is met again when it is edited.

        Raises `errors.GpuFaultError`.
        """
        edit = lease.claim.edit
        try:
            lease.check()
            if edit.filtered:
                self._filters.check_prompt(edit.prompt)
            self._loaded(lease)
        except errors.GpuFaultError:
            # Everything after it fails too, and the next edit, which may be another's, would be blamed for it.
            raise
        except errors.DarkroomError as exc:
            log.info("%s: its model is not loaded ahead: %s", lease.claim.id, exc.code)

    def finish_warming(self, lease: Lease) -> None:
        """Compile what the edit just made did without. Raises `errors.GpuFaultError`."""
        self._finish_warming(lease.claim.edit.model)

    def edit(self, prepared: Prepared, on_step: base.OnStep) -> Edited:
        """Run the pipeline. Raises `errors.DarkroomError`."""
        lease = prepared.lease
        edit = lease.claim.edit

        def after_step(step: int) -> None:
            lease.advance(step)
            on_step(step)

        while True:
            pipeline = self._loaded(lease)
            if not pipeline.encodes and not prepared.job.encoded:
                self._encode_here(edit.model)
                pipeline = self._loaded(lease)
            lease.begin_editing()
            began = time.monotonic()
            try:
                job, upsampled = self._upsampled(pipeline, prepared)
                picture = pipeline.edit(job, after_step, lease.show if self._may_preview(edit) else None)
                break
            except errors.OutOfMemoryError as exc:
                exhausted = exc
            # At once and by a plan that needs less: the same again would end the same.
            lease.pause_editing()
            # They hold the pipeline's parts, which are to go.
            garbage.drop_frames(exhausted)
            if not self._relieve(edit.model):
                raise exhausted
        execution_ms = round((time.monotonic() - began) * 1000)
        lease.end_editing()
        return Edited(
            prepared=prepared,
            picture=picture,
            execution_ms=execution_ms,
            facts=pipeline.facts,
            upsampled_prompt=upsampled,
        )

    def _may_preview(self, edit: edits.Edit) -> bool:
        """Whether pictures are shown before the result: not where a filter has yet to judge that."""
        return edit.previews and not (edit.filtered and self._filters.judge_pictures)

    def _loaded(self, lease: Lease) -> base.Pipeline:
        loaded_before, began_ns = lease.load_ms, time.time_ns()
        pipeline = self._pipeline(lease.claim.edit.model, lease.loaded)
        if lease.load_ms != loaded_before:
            traces.passed("load", began_ns)
        return pipeline

    def _upsampled(self, pipeline: base.Pipeline, prepared: Prepared) -> tuple[base.Job, str | None]:
        """The job with its prompt written anew, and that prompt, if that is asked for and changes it."""
        lease, job = prepared.lease, prepared.job
        edit = lease.claim.edit
        if not edit.upsampled:
            return job, None
        with traces.step("upsample"):
            written = pipeline.upsample(job, edit.upsample_temperature, lambda: lease.advance(0))
        if written == job.prompt:
            return job, None
        if edit.filtered:
            self._filters.check_prompt(written)
        return dataclasses.replace(job, prompt=written), written
