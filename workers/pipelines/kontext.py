"""FLUX.1 Kontext: one reference picture, guidance embedded in the model, rectified flow."""

from pathlib import Path
from typing import Any

import torch
from diffusers import FluxKontextPipeline
from diffusers.utils.logging import disable_progress_bar
from PIL import Image

from storage.contracts import errors
from storage.contracts.catalog import Weights
from workers.pipelines import device
from workers.pipelines.base import Job, OnStep

MAX_SEQUENCE_LENGTH = 512


class KontextPipeline:
    """diffusers' `FluxKontextPipeline`, resident on one device."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._pipe.set_progress_bar_config(disable=True)

    def edit(self, job: Job, on_step: OnStep) -> Image.Image:
        """See `base.Pipeline`. The same job gives the same pixels on the same kind of device.

        Also raises `errors.GpuFaultError`.
        """

        def after_step(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            on_step(index + 1)
            return {}

        try:
            output = self._pipe(
                prompt=job.prompt,
                image=job.references[0],
                width=job.width,
                height=job.height,
                # Without it four of the seventeen preferred sizes come out smaller than asked.
                max_area=job.width * job.height,
                # The reference arrives at a size the model reads; resizing it again would only blur it.
                _auto_resize=False,
                num_inference_steps=job.steps,
                guidance_scale=job.guidance,
                generator=torch.Generator("cpu").manual_seed(job.seed),
                max_sequence_length=MAX_SEQUENCE_LENGTH,
                callback_on_step_end=after_step,
                # No tensor is handed out: reading one would make the GPU wait.
                callback_on_step_end_tensor_inputs=[],
            )
        except torch.OutOfMemoryError as exc:
            torch.cuda.empty_cache()
            raise errors.OutOfMemoryError("The GPU ran out of memory", retry_after=1.0) from exc
        except torch.AcceleratorError as exc:
            raise errors.GpuFaultError("The GPU reported a fault") from exc
        finally:
            # An exception skips the pipeline's own clean-up, and what a step cache holds would enter the next picture.
            self._pipe.maybe_free_model_hooks()
        picture: Image.Image = output.images[0]
        return picture


def load(weights: Weights, folder: Path | None, gpu_type: str) -> KontextPipeline:
    """Load from a local folder, or from the hub when `folder` is None. Safetensors only, no code from outside."""
    disable_progress_bar()
    name, dtype = device.of(gpu_type)
    pipe = FluxKontextPipeline.from_pretrained(
        str(folder) if folder else weights.source,
        revision=None if folder else weights.revision,
        local_files_only=folder is not None,
        use_safetensors=True,
        dtype=dtype,
    )
    return KontextPipeline(pipe.to(name))
