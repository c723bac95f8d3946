"""Loads a model and warms it up: from nothing to a pipeline that serves its next edit at full speed."""

import importlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from storage.contracts import catalog, errors, plans
from storage.contracts.geometry import Canvas, Size, planned
from workers.pipelines import base

log = logging.getLogger(__name__)

WARM_UP_STEPS = 2
"""Denoising steps of the edit that warms a model up: the second one finds everything compiled."""


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """Seconds from nothing to ready: importing libraries, reading weights to where they stay, compiling and warming up."""

    import_s: float
    read_s: float
    warm_up_s: float

    def __str__(self) -> str:
        return f"import {self.import_s:.1f} s, read {self.read_s:.1f} s, warm-up {self.warm_up_s:.1f} s"


def loaded(
    model: catalog.Model,
    weights_dir: Path,
    gpu_type: str,
    plan: plans.Plan,
    on_loaded: base.OnLoaded,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[base.Pipeline, ColdStart]:
    """Read a model's weights as a plan says, and run an edit of the usual size.

    Raises `errors.ModelUnavailableError`, `errors.OutOfMemoryError` and `errors.GpuFaultError`.
    """
    began = clock()
    weights = model.weights
    folder = weights_dir / weights.source
    if weights.lora is not None and (weights_dir / weights.lora).exists():
        weights = weights.model_copy(update={"lora": str(weights_dir / weights.lora)})
    # Each model family is a module with a `load`; a worker imports those it serves, for some bring gigabytes along.
    try:
        family = importlib.import_module(f"workers.pipelines.{model.pipeline}")
    except ImportError as exc:
        message = f"{weights.name}: a library that it needs is not installed: {exc}"
        raise errors.ModelUnavailableError(message) from exc
    imported = clock()
    pipeline: base.Pipeline = family.load(weights, folder if folder.is_dir() else None, gpu_type, plan, on_loaded)
    read = clock()
    try:
        pipeline.warm_up(usual_job(model))
    except errors.DarkroomError:
        pipeline.close()
        raise
    except Exception as exc:
        pipeline.close()
        log.exception("%s cannot be warmed up", weights.name)
        reason = str(exc).partition("\n")[0][:200]
        raise errors.ModelUnavailableError(f"{weights.name} loads, but does not run: {reason}") from exc
    return pipeline, ColdStart(import_s=imported - began, read_s=read - imported, warm_up_s=clock() - read)


def usual_job(model: catalog.Model) -> base.Job:
    """An edit of the model's usual size, with a reference where it takes one, in as few steps as show every kernel."""
    references = [Image.new("RGB", (1024, 1024), "grey")] if model.max_references else []
    sizes = [Size(width=image.width, height=image.height) for image in references]
    geometry = planned(model.frame, Canvas(ratio=1.0), sizes, sizes[0] if sizes else None)
    return base.Job(
        prompt="",
        references=[
            image.resize((size.width, size.height)) for image, size in zip(references, geometry.references, strict=True)
        ],
        width=geometry.render.width,
        height=geometry.render.height,
        steps=WARM_UP_STEPS,
        guidance=1.0,
        seed=0,
    )
