"""A stand-in for a GPU: it sleeps as long as it is told, step by step, and returns the reference at the output's size.

For benchmarks and for integration tests of clients. A model uses it by `pipeline = "stand_in"` in the catalog, with
`weights.source` naming the milliseconds of a whole edit.
"""

import time
from pathlib import Path

from PIL import Image

from storage.contracts.catalog import Weights
from workers.pipelines.base import Job, OnStep


class StandInPipeline:
    """Sleeps instead of denoising."""

    def __init__(self, duration_s: float) -> None:
        self._duration_s = duration_s

    def edit(self, job: Job, on_step: OnStep) -> Image.Image:
        """See `base.Pipeline`."""
        began = time.perf_counter()
        for step in range(1, job.steps + 1):
            # Against the clock, so that the sum of many short sleeps is not longer than the whole.
            time.sleep(max(0.0, began + self._duration_s * step / job.steps - time.perf_counter()))
            on_step(step)
        return job.references[0].resize((job.width, job.height))


def load(weights: Weights, folder: Path | None, device: str) -> StandInPipeline:
    """`weights.source` is a number of milliseconds."""
    return StandInPipeline(float(weights.source) / 1000)
