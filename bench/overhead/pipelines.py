"""The pipelines both services and the bare loop run: the same job at the same size."""

import functools
import os
from pathlib import Path

from PIL import Image

from storage.contracts.catalog import Catalog
from storage.settings import StoreSettings
from workers import pictures
from workers.pipelines.base import Job
from workers.residency import Residency

STEPS = 28


@functools.cache
def _known() -> tuple[Catalog, Residency]:
    known = StoreSettings().read_catalog()
    return known, Residency(known, weights_dir=Path(os.environ["DARKROOM_WEIGHTS_DIR"]), gpu_type="cpu")


def edit(model: str, image: Image.Image, prompt: str) -> Image.Image:
    """One edit as the worker would run it: reference and result at the preferred size of the picture's aspect ratio."""
    known, residency = _known()
    size = known.model(model).frame.nearest(image.width / image.height)
    job = Job(
        prompt=prompt,
        references=[pictures.fitted(image, size)],
        width=size.width,
        height=size.height,
        steps=STEPS,
        guidance=2.5,
        seed=1,
    )
    return residency.pipeline(model).edit(job, lambda _: None)
