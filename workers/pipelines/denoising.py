"""What all pipelines of diffusers share: the step callback, cancelling, faults, prompt embeddings kept, previews, the receipt."""

import contextlib
import dataclasses
import functools
import logging
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

import torch
from PIL import Image

from storage import garbage, traces
from storage.contracts import errors
from storage.contracts.plans import Plan
from workers.pipelines import faults, peaks
from workers.pipelines.base import Facts, Job, OnPreview, OnStep, OnToken
from workers.pipelines.execution import Applied
from workers.pipelines.previews import Projection
from workers.pipelines.prompts import PROMPTS_KEPT, PromptMemory, packed, unpacked

log = logging.getLogger(__name__)


class Denoising:
    """A pipeline of diffusers on one device.

    A family says how it is called (`call`), how prompts are encoded (`per_token`, `pooled`) and how it packs pixels (`tokens`).
    By its plan it may lack its large text encoder, or have nothing else.
    """

    def __init__(self, applied: Applied, plan: Plan) -> None:
        self.applied = applied
        self.pipe = applied.pipe
        self.pipe.set_progress_bar_config(disable=True)
        self.plan = plan
        self._peaks = peaks.Peaks()
        self._laps = traces.Laps()
        self._encoded: Mapping[str, bytes] = {}
        # What comes from elsewhere is remembered before it gets here.
        self.embeddings = PromptMemory(torch.inference_mode()(self._encode), kept=PROMPTS_KEPT if self.encodes else 0)

    @property
    def encodes(self) -> bool:
        """See `base.Pipeline`."""
        return self.plan.encoding != "elsewhere"

    def per_token(self, prompt: str) -> torch.Tensor:
        """What the large text encoder makes of a prompt: (1, tokens, width)."""
        raise NotImplementedError

    def placeholder(self) -> torch.Tensor:
        """Zeros in the shape of `per_token`, for an edit that nobody looks at."""
        raise NotImplementedError

    def pooled(self, prompt: str) -> tuple[torch.Tensor, ...]:
        """What other text encoders make of it."""
        return ()

    def _encode(self, prompt: str) -> tuple[torch.Tensor, ...]:
        if self.encodes:
            return self.per_token(prompt), *self.pooled(prompt)
        if prompt not in self._encoded:
            raise errors.InternalError("A prompt was to be encoded elsewhere, and was not")
        embeddings = unpacked(self._encoded[prompt])
        return embeddings.to(self.pipe._execution_device, self.pipe.transformer.dtype), *self.pooled(prompt)

    def text(self, prompt: str) -> bytes:
        """See `base.Pipeline`."""
        with faults.translated(), torch.inference_mode():
            embeddings = self.per_token(prompt)
            self.applied.encoded()
            return packed(embeddings)

    def call(self, job: Job) -> tuple[Any, Mapping[str, Any]]:
        """Which pipeline object runs a job, and the arguments that are its family's own."""
        raise NotImplementedError

    def tokens(self, picture: Image.Image) -> torch.Tensor:
        """A picture as the denoiser sees it: (tokens, channels), a token for sixteen by sixteen pixels, row by row."""
        raise NotImplementedError

    def upsample(self, job: Job, temperature: float, on_token: OnToken) -> str:
        """See `base.Pipeline`. The catalog lets no model promise it whose family does not write it."""
        raise NotImplementedError

    @functools.cached_property
    def _projection(self) -> Projection:
        return Projection.fitted_to(torch.inference_mode()(self.tokens))

    @property
    def facts(self) -> Facts:
        """See `base.Pipeline`."""
        return dataclasses.replace(
            self._lasting,
            pipeline=self._ran or self._lasting.pipeline,
            plan=self._plan_name,
            phases_gb=self._peaks.gb,
            planned_gb=self.plan.phases.measured if self._peaks.gb else {},
        )

    @property
    def _plan_name(self) -> str:
        return self.plan.name + (", compiled" if self.plan.compiled and not self.applied.is_eager else "")

    @functools.cached_property
    def _lasting(self) -> Facts:
        device = self.pipe._execution_device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
        return Facts(
            pipeline=type(self.pipe).__name__,
            dtype=str(self.pipe.dtype if self.plan.encoding == "only" else self.pipe.transformer.dtype).removeprefix(
                "torch."
            ),
            plan=self._plan_name,
            profile=self.plan.profile,
            device=name,
            libraries={library: version(library) for library in ("torch", "diffusers", "transformers")},
            revision=self.applied.revision,
        )

    def close(self) -> None:
        """See `base.Pipeline`."""
        self.applied.close()
        self.pipe = None
        self.__dict__.clear()
        # Hooks and parts refer to each other in circles.
        garbage.let_go()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    _ran: str = ""
    """The class that ran the last job: a mask asks for another than the one that was loaded."""

    def edit(self, job: Job, on_step: OnStep, on_preview: OnPreview | None = None) -> Image.Image:
        """See `base.Pipeline`. The same job gives the same pixels on the same kind of device."""
        before: list[torch.Tensor] = []

        def after_step(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            on_step(index + 1)
            if index + 1 == pipe.num_timesteps:
                self._ended("denoise")
            if on_preview is not None:
                if before:
                    clean = _foreseen(pipe.scheduler, before.pop(), tensors["latents"])
                    on_preview(self._projection.picture(clean[0], job.width, job.height))
                before.append(tensors["latents"])
            return {}

        with self.working():
            self._encoded = job.encoded
            if (lora := getattr(self.pipe.transformer, "scalable_lora", None)) is not None:
                lora.set(1.0 if job.lora_scale is None else job.lora_scale, self.pipe._execution_device)
            pipe, arguments = self.call(job)
            self._ran = type(pipe).__name__
            self.applied.encoded()
            self._ended("encode")
            if self.applied.step_cache is not None:
                self.applied.step_cache.start(pipe)
            output = pipe(
                width=job.width,
                height=job.height,
                num_inference_steps=job.steps,
                generator=torch.Generator("cpu").manual_seed(job.seed),
                callback_on_step_end=after_step,
                # Without previews no tensor is handed out: reading one would make the GPU wait.
                callback_on_step_end_tensor_inputs=["latents"] if on_preview else [],
                output_type="pt",
                **arguments,
            )
            picture = _picture(output.images[0])
            self._ended("decode")
        return picture

    def _ended(self, phase: str) -> None:
        self._peaks.ended(phase)
        self._laps.ended(phase)

    def postpone_compiling(self) -> bool:
        """See `base.Pipeline`. Products of quantised weights are slow, and take more memory than planned, without compilation."""
        if not self.plan.compiled or self.plan.transformer.format != "bf16":
            return False
        self.applied.postpone_compiled()
        return True

    def warm_up(self, job: Job) -> None:
        """See `base.Pipeline`."""
        if self.plan.encoding == "only":
            self.text(job.prompt)
            return
        if not self.encodes:
            job = dataclasses.replace(job, encoded={job.prompt: packed(self.placeholder())})
        self.applied.resume_compiled()
        while True:
            try:
                with traces.unrecorded():
                    self.edit(job, lambda step: None)
            except errors.DarkroomError:
                raise
            except Exception as exc:
                if not self._simplify():
                    raise
                reason = str(exc).partition("\n")[0][:300]
                log.warning("what is fastest does not run here; computing as %r: %s", self._plan_name, reason)
            else:
                return

    def _simplify(self) -> bool:
        """Do without what may not work with this driver or compiler; False when nothing is left to do without."""
        if not self.plan.compiled:
            return False
        self.applied.compute_eagerly()
        self.plan = dataclasses.replace(self.plan, compiled=False)
        return True

    def same_edit_goes_on(self) -> None:
        """What comes next belongs to the same edit: the peak of its encode phase is that of both."""
        self._peaks.keep()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """While the device computes: faults in our words, memory given back after one, peaks written down."""
        self._peaks.start()
        self._laps.start()
        with faults.translated():
            try:
                yield
            finally:
                # An exception skips the pipeline's own clean-up, and what a step cache holds would enter the next picture.
                self.pipe.maybe_free_model_hooks()


def _picture(pixels: torch.Tensor) -> Image.Image:
    """Pixels (3, height, width) from 0 to 1 as a picture, rounded as diffusers does, but on the device: fewer bytes to copy."""
    levels = (pixels.float() * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())


def _foreseen(scheduler: Any, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """The clean latents that the last step of a rectified flow points at."""
    reached = scheduler.sigmas[scheduler.step_index]
    left = scheduler.sigmas[scheduler.step_index - 1]
    velocity = (after - before) / (reached - left)
    return after - reached * velocity
