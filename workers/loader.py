"""Loads a model and warms it up: from nothing to a pipeline that serves its next edit at full speed."""

import importlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from storage import garbage
from storage.contracts import catalog, errors, plans
from storage.contracts.geometry import Canvas, Size, planned
from workers import compiling
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


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A pipeline, how long it took, and whether it is at its full speed already."""

    pipeline: base.Pipeline
    cold_start: ColdStart
    is_warm: bool


@dataclass(frozen=True)
class Loader:
    """Loads models for a GPU type from below a folder; `compile_cache` is where compiled code is kept, if it is."""

    weights_dir: Path
    gpu_type: str
    compile_cache: Path | None = None
    clock: Callable[[], float] = time.monotonic

    def load(
        self, model: catalog.Model, plan: plans.Plan, on_loaded: base.OnLoaded, *, at_once: bool = False
    ) -> Loaded:
        """Read a model's weights as a plan says, and run an edit of the usual size.

        With `at_once` somebody waits: what would have to be compiled first computes eagerly, and `warm_up` is to be called after
        the first edit. Raises `errors.ModelUnavailableError`, `errors.GpuFaultError` and `errors.OutOfMemoryError`, when nothing
        of it is in memory any more.
        """
        began = self.clock()
        weights = model.weights
        folder = self.weights_dir / weights.source
        if weights.lora is not None and (self.weights_dir / weights.lora).exists():
            weights = weights.model_copy(update={"lora": str(self.weights_dir / weights.lora)})
        if weights.gguf is not None and (self.weights_dir / weights.gguf).is_file():
            weights = weights.model_copy(update={"gguf": str(self.weights_dir / weights.gguf)})
        # Each model family is a module with a `load`; a worker imports those it serves, for some bring gigabytes along.
        try:
            with garbage.paused():
                family = importlib.import_module(f"workers.pipelines.{model.pipeline}")
        except ImportError as exc:
            message = f"{weights.name}: a library that it needs is not installed: {exc}"
            raise errors.ModelUnavailableError(message) from exc
        imported = self.clock()
        at = folder if folder.is_dir() else None
        pipeline = _emptied_where_exhausted(lambda: family.load(weights, at, self.gpu_type, plan, on_loaded))
        read = self.clock()
        is_compiled = compiling.is_kept(self.compile_cache, weights.name, plan.name)
        is_warm = not (at_once and not is_compiled and pipeline.postpone_compiling())
        if is_warm:
            self.warm_up(model, pipeline, plan)
        cold_start = ColdStart(import_s=imported - began, read_s=read - imported, warm_up_s=self.clock() - read)
        garbage.settle()
        return Loaded(pipeline=pipeline, cold_start=cold_start, is_warm=is_warm)

    def finish_warming(
        self, model: catalog.Model, pipeline: base.Pipeline, plan: plans.Plan
    ) -> errors.DarkroomError | None:
        """Compile what a first edit did without; why that failed, and it is closed. Raises `errors.GpuFaultError`."""
        began = self.clock()
        try:
            self.warm_up(model, pipeline, plan)
        except errors.GpuFaultError:
            raise
        except errors.DarkroomError as exc:
            log.warning("%s cannot be warmed up: %s", model.weights.name, exc)
            return exc
        log.info("%s warmed up in %.1f s, after its first edit", model.weights.name, self.clock() - began)
        return None

    def warm_up(self, model: catalog.Model, pipeline: base.Pipeline, plan: plans.Plan) -> None:
        """Compile and tune; what cannot be is closed. Raises as `load`."""
        failure: errors.DarkroomError
        try:
            pipeline.warm_up(usual_job(model))
        except errors.DarkroomError as exc:
            failure = exc
        except Exception as exc:
            log.exception("%s cannot be warmed up", model.weights.name)
            reason = str(exc).partition("\n")[0][:200]
            failure = errors.ModelUnavailableError(f"{model.weights.name} loads, but does not run: {reason}")
        else:
            # Where it could not be compiled nothing is kept.
            if not plan.compiled or pipeline.facts.plan.endswith("compiled"):
                compiling.note_kept(self.compile_cache, model.weights.name, plan.name)
            return
        # They hold the pipeline's parts, which are to go.
        garbage.drop_frames(failure)
        pipeline.close()
        raise failure


def _emptied_where_exhausted(load: Callable[[], base.Pipeline]) -> base.Pipeline:
    """What it loads; where memory runs out, what was half placed goes, too."""
    try:
        return load()
    except errors.OutOfMemoryError as exc:
        exhausted = exc
    garbage.drop_frames(exhausted)
    # Parts refer to each other in circles.
    garbage.let_go()
    raise exhausted


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
