"""What a pipeline is to the rest of the worker."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

OnStep = Callable[[int], None]
"""Told how many denoising steps are done. What it raises ends the edit at once and leaves the pipeline usable."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """An edit ready for the GPU: decoded references at the sizes the model reads, and the exact output size in pixels."""

    prompt: str
    references: Sequence[Image.Image]
    width: int
    height: int
    steps: int
    guidance: float
    seed: int


class Pipeline(Protocol):
    """A loaded model."""

    def edit(self, job: Job, on_step: OnStep) -> Image.Image:
        """Run the denoising loop. Returns an RGB picture of exactly `job.width` x `job.height`.

        Raises `errors.OutOfMemoryError` and whatever `on_step` raises.
        """
        ...
